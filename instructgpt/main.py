"""Runs a stage: flags and a config file in, a workdir out.

    python -m instructgpt.main --config=configs/STAGE.py:VARIANT --workdir=DIR \
        [--config.block.key=value]

On several machines each starts the same line, and --coordinator says who they are: see
distributed.py.

All paths on the command line are relative to the current folder; those that a config
gives by default are relative to the stage's workdir.

Kept short, so that everything it does can be called from a test or a notebook.
"""

import sys

from instructgpt.signals import stop_in_one_line

if __name__ == "__main__":  # before the imports that take a second
    stop_in_one_line()

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from instructgpt import distributed
from instructgpt.cli import keep_memory, parse_flags
from instructgpt.errors import UserError
from instructgpt.outputs import in_one_line
from instructgpt.paths import from_shell
from instructgpt.stages import find

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/STAGE.py:VARIANT", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run keeps everything; from the current folder, as all."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "auto, or HOST:PORT of process 0; empty: one process."
)
_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many, with HOST:PORT.")
_PROCESS = flags.DEFINE_integer("process_id", -1, "Which one, with HOST:PORT.")


def main(argv: list[str]) -> None:
    """Hands over to what `config.stage` names; a user's mistake ends in one line.

    So does what the system refuses: a disk that is full, a workdir that is a file.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    # Orbax warns of checkpoint parts that it reads well all the same, and what goes
    # wrong in its threads it prints there besides raising it here.
    absl_logging.set_verbosity(absl_logging.FATAL)
    config = _CONFIG.value
    if not _WORKDIR.value:
        sys.exit("error: --workdir is empty; name a folder for what the run keeps")
    if "://" in _WORKDIR.value:
        sys.exit(
            f"error: --workdir={_WORKDIR.value}: a run keeps its files in a folder "
            "that all its processes share; mount the bucket, and name its folder"
        )
    workdir = from_shell(_WORKDIR.value)
    try:
        distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        typed = config_flags.get_override_values(flags.FLAGS["config"])
        stage = find(config.stage).exports
        # Only now: it takes seconds, which `--help` need not wait for.
        from instructgpt.stages.common import take_typed

        take_typed(config, typed, workdir)
        stage.run(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, _WORKDIR.value)}")
    except Exception as error:  # JAX has several for it
        lost = distributed.lost_contact(error)
        if not lost:
            raise
        sys.exit(
            f"error: another process of this run has ended ({lost}); start the same "
            "line again in all of them: it goes on from the last checkpoint"
        )


def parse(argv: list[str]) -> list[str]:
    """The flags; a mistake is one clear line."""
    return parse_flags(_CONFIG, argv)


def entry_point() -> None:
    """Marks the flags that must be given, and runs."""
    keep_memory()
    flags.mark_flags_as_required(["config", "workdir"])
    stop_in_one_line()  # again, for those who call this
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry_point()
