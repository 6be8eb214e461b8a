"""`python -m instructgpt.chat`: in a script, through a pipe and on a terminal."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from instructgpt import chat
from instructgpt.chat import Conversation, find_reward_model, open_models
from instructgpt.errors import UserError
from instructgpt.inference import RewardModel
from tests.stages.recipe_run import Finished, finished

PROMPT = "Where does Dela live?"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(scope="module")
def models(run: Finished):
    return open_models([str(run.workdir / name) for name in ("sft", "ppo")])


@pytest.fixture(scope="module")
def reward(run: Finished) -> RewardModel:
    return RewardModel.open(run.workdir / "reward", max_prompt=-1)


def test_each_model_answers_and_remembers_what_it_said(models, reward):
    conversation = Conversation(models, reward, seed=1)
    first = conversation.ask(PROMPT)
    assert [answer.label for answer in first] == ["sft", "ppo"]
    again = Conversation(models, seed=1)
    assert [a.text for a in again.ask(PROMPT)] == [a.text for a in first]
    second = conversation.ask("And Falk?")
    # As the model and the reward model answer to the whole dialogue.
    history = [PROMPT, first[1].text]
    record = {"prompt": "And Falk?", "history": history}
    (score,) = reward.score([record], [second[1].text])
    assert second[1].score == float(score)
    assert again.ask("And Falk?")[1].score is None
    conversation.reset()
    forgotten = conversation.ask("And Falk?")
    assert forgotten[1].score != second[1].score


def test_a_conversation_that_is_too_long_says_so_and_goes_on(models):
    conversation = Conversation(models, temperature=0, max_response=4)
    conversation.ask(PROMPT)
    with pytest.raises(UserError, match=r"sft has \d+ tokens.*168.*begin a new"):
        conversation.ask("Who lives there? " * 60)
    assert len(conversation.ask("And Falk?")) == 2


def test_the_reward_model_of_a_recipe_is_found(run, tmp_path):
    assert find_reward_model([str(run.workdir / "sft")]) == str(run.workdir / "reward")
    assert find_reward_model([str(tmp_path)]) == ""


def test_workdirs_of_one_name_are_told_apart(run, monkeypatch):
    monkeypatch.chdir(run.workdir)
    assert list(open_models(["sft", "./sft/"])) == ["sft", "./sft/"]


def test_answers_to_one_question(run, capsys):
    path = str(run.workdir / "ppo")
    chat.main([path, "--prompt", PROMPT, "--max_response=3"])
    said = capsys.readouterr().out
    assert re.fullmatch(r"\nppo\n(  .+\n)+  \[score [+-]\d+\.\d\d\]\n\n", said)
    chat.main([path, "--prompt", PROMPT, "--max_response=3", "--reward=none"])
    assert "score" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "typed", "says"),
    [
        (["nowhere"], "", "error: the question is empty; give one as --prompt"),
        (["nowhere", "--prompt=x"], "", "error: no checkpoint in .*nowhere"),
        (["reward", "--prompt=x"], "", "error: .*reward holds a scalar model"),
        (["ppo", "ppo", "--prompt=x"], "", "error: ppo is named twice"),
        (["ppo", "--prompt=x", "--part=emma"], "", "error: .* has no 'emma'"),
        (["ppo", "--prompt=x", "--temperature=-1"], "", "error: .*temperature=-1"),
        (["ppo"], "house " * 300, r"error: the conversation with ppo has \d+ tokens"),
    ],
)
def test_mistakes_are_one_line(run, monkeypatch, arguments, typed, says):
    monkeypatch.chdir(run.workdir)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    with pytest.raises(SystemExit, match=says) as error:
        chat.main(arguments)
    assert "\n" not in str(error.value)


def command(run: Finished, *arguments: str) -> list[str]:
    path = str(run.workdir / "ppo")
    more = "--max_response=4", "--reward=none", *arguments
    return [sys.executable, "-m", "instructgpt.chat", path, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}


def test_a_question_through_a_pipe(run):
    done = subprocess.run(
        command(run),
        input=f"{PROMPT}\n",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\nppo\n  ")


class Terminal:
    """A conversation as somebody at a terminal has it."""

    def __init__(self, run: Finished):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command(run), env=environment(), stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self.shown = ""
        self._seen = 0  # how much of it `until` has gone past

    def until(self, text: str, seconds: float = 300) -> None:
        """Reads on until this is shown, or until the end for ""."""
        end = time.monotonic() + seconds
        while not text or text not in self.shown[self._seen :]:
            assert time.monotonic() < end, self.shown
            if not select.select([self._master], [], [], 1)[0]:
                continue
            try:
                part = os.read(self._master, 4096)
            except OSError:  # the other end is closed
                part = b""
            if not part:
                assert not text, self.shown
                return
            self.shown += part.decode(errors="replace")
        self._seen = self.shown.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(run: Finished):
    terminal = Terminal(run)
    yield terminal
    terminal.close()


@pytest.mark.parametrize(("key", "code"), [("\x04", 0), ("\x03", 130)])
def test_a_terminal(terminal, key, code):
    terminal.until("> ")
    assert "/reset begins a new conversation" in terminal.shown
    if key == "\x04":
        terminal.type(f"{PROMPT}\n")
        terminal.until("ppo\r\n  ")
        terminal.until("> ")
        terminal.type("/reset\n")
        terminal.until("> ")
        terminal.type("/what\n")
        terminal.until("no such command")
        terminal.until("> ")
    # The terminal is not the process's own, so that Ctrl-C has to be sent; not before
    # it waits for a line, as Python then hears of it at the next one only.
    if key == "\x03":
        time.sleep(2)
        terminal.process.send_signal(signal.SIGINT)
    else:
        terminal.type(key)
    terminal.until("")
    assert terminal.process.wait(30) == code
    assert terminal.shown.endswith("end of the conversation\r\n")
    assert "Traceback" not in terminal.shown
