"""Runs a stage: flags and a config file in, a workdir out.

    python -m instructgpt.main --config=configs/STAGE.py:VARIANT --workdir=DIR \
        [--config.block.key=value]

Kept short, so that everything it does can be called from a test or a notebook.
"""

import importlib

import sys
import warnings

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from instructgpt.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/STAGE.py:VARIANT", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps everything.")

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
    """Parses nothing more; hands over to `stages/STAGE.py`."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    absl_logging.set_verbosity(absl_logging.WARNING)
    warnings.filterwarnings("ignore", module="orbax")
    config = _CONFIG.value
    if config.stage not in STAGES:
        sys.exit(f"config.stage={config.stage!r} does not exist; known: {STAGES}")
    stage = importlib.import_module(f"instructgpt.stages.{config.stage}")
    try:
        stage.run(config, _WORKDIR.value)
    except UserError as error:
        sys.exit(f"error: {error}")


def entry_point() -> None:
    """Marks the flags that must be given, and runs."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)


if __name__ == "__main__":
    entry_point()
