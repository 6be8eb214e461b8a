"""Runs a stage: flags and a config file in, a workdir out.

    python -m instructgpt.main --config=configs/STAGE.py:VARIANT --workdir=DIR \
        [--config.block.key=value]

On several machines each runs the same line with --coordinator, see distributed.py.

Paths on the command line are relative to the current folder; paths in a config's
defaults are relative to the stage's workdir.

This module is short, so that tests and notebooks can call everything that it does.
"""

import sys
from pathlib import Path

from instructgpt.signals import stop_in_one_line

if __name__ == "__main__":  # before the slow imports below
    stop_in_one_line()

import jax
from absl import app, flags
from ml_collections import config_flags

from instructgpt import distributed
from instructgpt.cli import (
    keep_memory,
    keep_programs,
    parse_flags,
    silence_libraries,
    unused_accelerator,
)
from instructgpt.errors import UserError
from instructgpt.identity import is_finished
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
    """Runs the stage that `config.stage` names; a user's mistake ends in one line.

    So do errors of the system, such as a full disk or a workdir that is a file.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    silence_libraries()
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
        # Imported here because it takes seconds, which `--help` should not wait for.
        from instructgpt.stages.common import announce, take_typed

        take_typed(config, typed, workdir)
        if note := unused_accelerator(jax.default_backend()):
            announce(note)
        if is_finished(Path(workdir)):
            announce(
                f"{workdir} was finished before: it is checked, and stays as it is"
            )
        stage.run(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, _WORKDIR.value)}")
    except Exception as error:  # JAX has several types for a lost process
        lost = distributed.lost_contact(error)
        if not lost:
            raise
        sys.exit(
            f"error: another process of this run has ended ({lost}); start the same "
            "line again in all of them: it goes on from the last checkpoint"
        )


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a mistake ends in one line."""
    return parse_flags(_CONFIG, argv)


def entry_point() -> None:
    """Marks the required flags and runs `main`."""
    keep_memory()
    keep_programs()
    flags.mark_flags_as_required(["config", "workdir"])
    stop_in_one_line()  # also if this is called from another module
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry_point()
