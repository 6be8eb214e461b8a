"""The training loop is asked to stop, or has no room: what is saved and said."""

import contextlib
import errno
import os
import signal
import subprocess
import time

import pytest

from instructgpt.errors import UserError
from instructgpt.loop import LoopConfig, Preempted
from instructgpt.metrics import MetricWriter
from instructgpt.outputs import writing
from tests.test_loop import STEPS, at_step, bits, losses, run, saved_steps, terminate


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """(state, metrics) of a run that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("unbroken")
    return bits(run(workdir)), losses(workdir)


@pytest.mark.parametrize("number", [1, 4, STEPS])
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, unbroken, number, asked, capfd):
    before = signal.getsignal(asked)
    with pytest.raises(Preempted) as stopped:
        run(tmp_path, update=at_step(number, lambda: os.kill(os.getpid(), asked)))
    assert stopped.value.code == 128 + asked
    assert saved_steps(tmp_path) == [number]
    assert signal.getsignal(asked) == before
    says = f"toy: stopped after step {number}, which is saved; start the same line aga"
    assert says in capfd.readouterr().out
    assert bits(run(tmp_path)) == unbroken[0]
    assert losses(tmp_path) == unbroken[1]
    goes_on = f"toy: going on from step {number}\n" in capfd.readouterr().out
    assert goes_on == (number < STEPS)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_last_look_reaches_who_listened_before(
    tmp_path, monkeypatch, asked
):
    """Between the loop's last question and its end nobody would hear it."""
    heard = []

    def answer(stop: bool, step: int) -> bool:
        if step == STEPS + 1:
            os.kill(os.getpid(), asked)
        return stop

    before = signal.signal(asked, lambda number, _: heard.append(number))
    monkeypatch.setattr("instructgpt.loop.agree_to_stop", answer)
    try:
        run(tmp_path)
    finally:
        signal.signal(asked, before)
    assert heard == [asked]


def test_a_second_ctrl_c_ends_at_once_and_who_does_not_hear_one_hears_none(tmp_path):
    """Looks at what is installed: one that is sent would end the tests."""
    seen = []

    def look():
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(signal.getsignal(signal.SIGINT))

    with pytest.raises(Preempted):
        run(tmp_path / "first", update=at_step(2, look))
    assert seen == [signal.SIG_DFL]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(tmp_path / "deaf", update=at_step(2, look))
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen[1:] == [signal.SIG_IGN]


def test_a_signal_while_the_last_step_is_saved_stops_what_would_follow(
    tmp_path, unbroken
):
    def finish(state):
        terminate()
        return state, {}

    with pytest.raises(Preempted):
        run(tmp_path, finish=finish)
    assert bits(run(tmp_path)) == unbroken[0]


def test_metrics_that_were_changed_since_the_checkpoint_are_named(tmp_path, unbroken):
    with pytest.raises(Preempted):
        run(tmp_path, update=at_step(4, terminate))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"loss": ', b'"loss": 1', 1))
    assert path.read_bytes() != whole
    with pytest.raises(
        UserError, match=r"metrics\.jsonl is damaged.*; delete it to go"
    ):
        run(tmp_path)
    path.write_bytes(whole + b'{"step": 5, \xff\xfe')  # as a kill leaves its last line
    assert bits(run(tmp_path)) == unbroken[0]
    assert losses(tmp_path) == unbroken[1]


def test_a_run_is_not_made_shorter_than_what_is_saved(tmp_path):
    with pytest.raises(Preempted):
        run(tmp_path, update=at_step(4, terminate))
    for steps in (3, 4):  # at the fourth it was stopped, and did not end
        with pytest.raises(
            UserError, match=rf"end after step {steps}, .* of step 4 of"
        ):
            run(tmp_path, config=LoopConfig(num_steps=steps))
    assert saved_steps(tmp_path) == [4]


class FullDisk:
    """Patches what writes metrics so that there is no room from the n-th line on."""

    def __init__(self, monkeypatch, lines):
        self.left = lines
        write = MetricWriter.write

        def full(writer, step, scalars):
            if not self.left:
                with writing(writer._path):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left -= 1
            write(writer, step, scalars)

        monkeypatch.setattr(MetricWriter, "write", full)


def test_metrics_without_room_are_one_line_and_the_run_goes_on(
    tmp_path, unbroken, monkeypatch
):
    with monkeypatch.context() as patch:
        FullDisk(patch, lines=4)
        says = r"metrics\.jsonl: No space left on device; make room there, and start"
        with pytest.raises(UserError, match=says):
            run(tmp_path)
    assert saved_steps(tmp_path) == [3]
    assert bits(run(tmp_path)) == unbroken[0]
    assert losses(tmp_path) == unbroken[1]


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many bytes."""
    made = []

    def make(size):
        where = tmp_path / f"disk{len(made)}"
        where.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs a user who may mount")
        made.append(where)
        return where

    yield make
    for where in made:
        subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_ends_in_one_line_and_with_room_the_bits_are_the_same(
    tmp_path, unbroken, small_disk
):
    workdir = small_disk(400_000) / "run"

    def fill():
        for _ in range(100):  # until what was saved before has its name
            if (workdir / "checkpoints" / "3").exists():
                break
            time.sleep(0.1)
        with contextlib.suppress(OSError), (workdir / "other").open("wb") as file:
            for _ in range(4_000):
                file.write(bytes(100))
                file.flush()

    with pytest.raises(UserError, match=r"disk0/run/.*No space left on device.*room"):
        run(workdir, update=at_step(5, fill))
    (workdir / "other").unlink()
    assert saved_steps(workdir) == [3]
    assert bits(run(workdir)) == unbroken[0]
    assert losses(workdir) == unbroken[1]


@pytest.mark.parametrize("log_every", [0, 2, 3, STEPS])
def test_a_stop_between_two_lines_of_metrics_changes_none(tmp_path, log_every):
    config = LoopConfig(num_steps=STEPS, log_every=log_every, eval_every=1)
    run(tmp_path / "unbroken", config=config)

    def stops(after):
        def evaluate(state, step):
            if step == after:
                terminate()
            return {}

        with pytest.raises(Preempted):
            run(tmp_path / "stopped", config=config, evaluate=evaluate)
        assert saved_steps(tmp_path / "stopped") == [after + 1]

    stops(2)  # twice within the same two lines, if they are far apart
    stops(4)
    run(tmp_path / "stopped", config=config)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "unbroken")
