"""Runs a stage: flags and a config file in, a workdir out.

    python -m instructgpt.main --config=configs/STAGE.py:VARIANT --workdir=DIR \
        [--config.block.key=value]

On several machines each starts the same line, and --coordinator says who they are: see
distributed.py.

Kept short, so that everything it does can be called from a test or a notebook.
"""

import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from instructgpt import distributed
from instructgpt.cli import keep_memory, parse_flags
from instructgpt.errors import UserError
from instructgpt.outputs import in_one_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/STAGE.py:VARIANT", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps everything.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "auto, or HOST:PORT of process 0; empty: one process."
)
_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many, with HOST:PORT.")
_PROCESS = flags.DEFINE_integer("process_id", -1, "Which one, with HOST:PORT.")

STAGES = (
    "pretrain",
    "sft",
    "label",
    "reward",
    "select",
    "ppo",
    "evaluate",
    "recipe",
)


def main(argv: list[str]) -> None:
    """Hands over to `stages/STAGE.py`; a user's mistake ends in one line.

    So does what the system refuses: a disk that is full, a workdir that is a file.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    if not _WORKDIR.value:
        sys.exit("error: --workdir= is empty; name a folder, such as runs/mini")
    # Orbax warns of checkpoint parts that it reads well all the same, and what goes
    # wrong in its threads it prints there besides raising it here.
    absl_logging.set_verbosity(absl_logging.FATAL)
    config = _CONFIG.value
    if config.stage not in STAGES:
        sys.exit(f"error: config.stage={config.stage!r}; known stages: {STAGES}")
    try:
        distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        stage = importlib.import_module(f"instructgpt.stages.{config.stage}")
        stage.run(config, _WORKDIR.value)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, _WORKDIR.value)}")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, where Python knows of Ctrl-C alone."""


@contextlib.contextmanager
def stopping_in_one_line() -> Iterator[None]:
    """Ends the program on Ctrl-C and SIGTERM, where no loop saves before it ends."""

    def terminate(number: int, _: object) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as asked:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends at once
        name = "SIGTERM" if isinstance(asked, _Terminated) else "SIGINT"
        print(
            f"stopped by {name}; what is whole is kept: start the same line again to "
            "go on",
            file=sys.stderr,
        )
        sys.exit(128 + signal.Signals[name])


def parse(argv: list[str]) -> list[str]:
    """The flags; a mistake is one clear line."""
    return parse_flags(_CONFIG, argv)


def entry_point() -> None:
    """Marks the flags that must be given, and runs."""
    keep_memory()
    flags.mark_flags_as_required(["config", "workdir"])
    with stopping_in_one_line():
        app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry_point()
