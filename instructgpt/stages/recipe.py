"""The whole recipe: every stage in its own folder of one workdir, in order.

Stages that are finished are opened and left as they are, so the same command
resumes wherever it was stopped, and ends at once when all is done.
"""

import json
import time
from pathlib import Path

from ml_collections import ConfigDict

from instructgpt.stages import (
    common,
    evaluate,
    label,
    ppo,
    pretrain,
    reward,
    select,
    sft,
)

_RUN = {
    "pretrain": pretrain.run,
    "sft": sft.run,
    "label": label.run,
    "reward": reward.run,
    "select": select.run,
    "ppo": ppo.run,
    "evaluate": evaluate.run,
}


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Runs `config.stages` in order; the seed of all is `config.seed`."""
    workdir = Path(workdir).absolute()
    for name in config.order:
        run_stage(config, workdir, name)
    evaluate.show(workdir / config.order[-1])


def run_stage(config: ConfigDict, workdir: str | Path, name: str) -> Path:
    """Runs one stage of the recipe, unless it is done; returns its workdir."""
    workdir = Path(workdir).absolute()
    minutes_path = workdir / "minutes.json"
    minutes: dict[str, float] = {}
    if minutes_path.exists():
        minutes = json.loads(minutes_path.read_text())
    if name in minutes:
        common.announce(f"{name}: done ({minutes[name]:.1f} min)")
        return workdir / name
    common.announce(f"\n=== {name} ===")
    stage = stage_config(config, name)
    began = time.monotonic()
    _RUN[stage.stage](stage, workdir / name)
    minutes[name] = round((time.monotonic() - began) / 60, 2)
    common.write_json(minutes_path, minutes)
    return workdir / name


def stage_config(config: ConfigDict, name: str) -> ConfigDict:
    """A stage's own config, with the seed of the recipe."""
    stage = ConfigDict(config.stages[name])
    stage.seed = config.seed
    stage.data.world_seed = config.seed
    return stage
