"""Talk to models, side by side, with the reward model's score under each answer.

    python -m instructgpt.chat runs/mini/sft runs/mini/ppo_ptx
    python -m instructgpt.chat runs/mini/ppo_ptx --prompt "Where does Dela live?"

A workdir belongs to a stage or to an imported model. Each model remembers its own
answers. `/reset` begins a new conversation and `/quit`, Ctrl-D or Ctrl-C ends it. With
--prompt, or with a question on standard input, the answers are printed and the program
ends.
"""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from instructgpt.signals import stop_in_one_line

if __name__ == "__main__":  # before the slow imports below
    stop_in_one_line("")

import jax

from instructgpt.cli import keep_programs, silence_libraries
from instructgpt.errors import UserError
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.outputs import in_one_line

_COMMANDS = "/reset begins a new conversation, /quit ends"


class Answer(NamedTuple):
    """One model's answer and the reward model's score of it."""

    label: str
    text: str
    score: float | None


class Conversation:
    """A dialogue with several models at once, each with its own history.

    Args:
      models: Models by the names that are shown.
      reward: Reward model that scores the answers; None: no scores.
      temperature: Sampling temperature of all answers.
      max_response: Tokens of an answer; 0: each model's limit.
      seed: Seed of the sampling; another seed gives other answers.
    """

    def __init__(
        self,
        models: Mapping[str, LanguageModel],
        reward: RewardModel | None = None,
        *,
        temperature: float = 1.0,
        max_response: int = 0,
        seed: int = 0,
    ):
        self._models = models
        self._reward = reward
        self._temperature = temperature
        self._max_response = max_response
        self._key = jax.random.key(seed)
        self._turn = 0
        self.reset()

    def reset(self) -> None:
        """Begins a new conversation, with empty histories."""
        self._history: dict[str, list[str]] = {label: [] for label in self._models}

    def ask(self, prompt: str) -> list[Answer]:
        """Returns one answer of each model to the conversation so far and this prompt.

        Raises:
          UserError: the conversation is too long, and stays as it was; or a model's
            output is not finite.
        """
        records = {
            label: {"prompt": prompt, "history": history}
            for label, history in self._history.items()
        }
        for label, model in self._models.items():
            for other in (model, self._reward):
                _check_room(other, records[label], label)
        key = jax.random.fold_in(self._key, self._turn)
        answers = []
        for label, model in self._models.items():
            ((text,),) = model.generate(
                [records[label]],
                temperature=self._temperature,
                max_response=self._max_response,
                key=key,
            )
            text, score = text.strip("\n"), None
            if self._reward is not None:
                (found,) = self._reward.score([records[label]], [text])
                score = float(found)
            answers.append(Answer(label, text, score))
        self._turn += 1
        for answer in answers:
            self._history[answer.label] += [prompt, answer.text]
        return answers


def _check_room(
    model: LanguageModel | RewardModel | None, record: dict, label: str
) -> None:
    if model is None:
        return
    length, limit = model.prompt_length(record), model.text.max_prompt
    if length > limit:
        whose = "it" if isinstance(model, LanguageModel) else "the reward model"
        raise UserError(
            f"the conversation with {label} has {length} tokens, and {whose} reads at "
            f"most {limit}: ask for less, or begin a new conversation"
        )


def open_models(
    workdirs: Sequence[str], *, part: str = "", max_response: int = 0
) -> dict[str, LanguageModel]:
    """Opens models of workdirs; their names are the shortest that tell them apart.

    Args:
      workdirs: Workdirs of stages or of imported models.
      part: "params", "ema", or "" for the average where there is one.
      max_response: Tokens of an answer; 0: the limit in each workdir's config.

    Raises:
      UserError: a workdir is named twice, or has no such model.
    """
    paths = [Path(workdir).absolute() for workdir in workdirs]
    for workdir in workdirs:
        if workdirs.count(workdir) > 1:
            raise UserError(f"{workdir} is named twice; name each model once")
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(workdir) for workdir in workdirs]
    return {
        name: LanguageModel.open(
            path, part=part, max_prompt=-1, max_response=max_response
        )
        for name, path in zip(names, paths, strict=True)
    }


def find_reward_model(workdirs: Sequence[str]) -> str:
    """The workdir `reward` beside a model's workdir, as in a recipe; "" if none."""
    for workdir in workdirs:
        beside = Path(workdir).absolute().parent / "reward"
        if (beside / "checkpoints").is_dir():
            return str(beside)
    return ""


def show(answers: Sequence[Answer]) -> None:
    """Prints each model's name and answer, with the score below."""
    for answer in answers:
        print(f"\n{answer.label}")
        for line in (answer.text or "(nothing)").splitlines():
            print(f"  {line}")
        if answer.score is not None:
            print(f"  [score {answer.score:+.2f}]")
    print(flush=True)


def talk(conversation: Conversation) -> None:
    """Reads prompts from the terminal until the user ends the conversation."""
    print(_COMMANDS)
    while True:
        prompt = input("> ").strip()
        if prompt in ("/quit", "/exit"):
            return
        if prompt == "/reset":
            conversation.reset()
        elif prompt.startswith("/"):
            print(f"no such command; {_COMMANDS}")
        elif prompt:
            try:
                show(conversation.ask(prompt))
            except UserError as error:
                print(f"{error} ({_COMMANDS})")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="instructgpt.chat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="of a model")
    parser.add_argument(
        "--reward",
        metavar="WORKDIR",
        help="of the reward model; default: `reward` beside the models; none: no score",
    )
    parser.add_argument(
        "--part", default="", help="params or ema; default: ema where there is one"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    parser.add_argument(
        "--max_response",
        type=int,
        default=0,
        help="tokens of an answer; default: as the model was trained",
    )
    parser.add_argument("--prompt", help="one question, for scripts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Opens the models and talks; a user's mistake ends in one line."""
    args = parse(argv)
    silence_libraries()
    try:
        prompt = args.prompt
        if prompt is None and not sys.stdin.isatty():
            prompt = sys.stdin.read()
        if prompt is not None and not prompt.strip():
            raise UserError("the question is empty; give one as --prompt, or in a pipe")
        models = open_models(
            args.workdirs, part=args.part, max_response=args.max_response
        )
        path = find_reward_model(args.workdirs) if args.reward is None else args.reward
        scores = path not in ("", "none")
        reward = RewardModel.open(path, max_prompt=-1) if scores else None
        conversation = Conversation(
            models,
            reward,
            temperature=args.temperature,
            max_response=args.max_response,
            seed=args.seed,
        )
        if prompt is not None:
            show(conversation.ask(prompt.strip()))
            return
        # While a line is typed, Ctrl-C must first restore the terminal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        talk(conversation)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, args.workdirs[0])}")
    except EOFError:
        print("\nend of the conversation")
    except KeyboardInterrupt:
        print("\nend of the conversation")
        sys.exit(130)


if __name__ == "__main__":
    keep_programs()
    main()
