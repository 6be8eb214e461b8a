"""The whole recipe: every stage in its own folder of one workdir, in order.

Stages that are finished are opened and left as they are, so the same command
resumes wherever it was stopped, and ends at once when all is done.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from instructgpt.data.datasets import DataConfig
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.optim import OptimizerConfig
from instructgpt.ranges import check_integers
from instructgpt.sharding import MeshConfig
from instructgpt.stages import (
    common,
    evaluate,
    label,
    ppo,
    pretrain,
    reward,
    select,
    sft,
    side_by_side,
)
from instructgpt.steps.ppo import PPOConfig

_RUN = {
    "pretrain": pretrain.run,
    "sft": sft.run,
    "label": label.run,
    "reward": reward.run,
    "select": select.run,
    "ppo": ppo.run,
    "evaluate": evaluate.run,
}

# The blocks of the stages' configs and what they become.
_BLOCKS: dict[str, type] = {
    "data": DataConfig,
    "evaluate": evaluate.EvaluateConfig,
    "init": common.InitConfig,
    "label": label.LabelConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "policy_optimizer": OptimizerConfig,
    "ppo": PPOConfig,
    "pretrain": pretrain.PretrainConfig,
    "reward": reward.RewardConfig,
    "reward_init": common.InitConfig,
    "rl_init": common.InitConfig,
    "rollout": ppo.RolloutConfig,
    "select": select.SelectConfig,
    "sft": sft.SFTConfig,
    "train": common.TrainConfig,
    "value_optimizer": OptimizerConfig,
}

_READ_REWARD_MODEL = {"select", "ppo", "ppo_ptx", "evaluate"}


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Runs `config.stages` in order.

    `config.seed` is the seed of all training and sampling, `config.world_seed` that of
    the miniature world. A finished reward model's workdir, `config.reward_model`, takes
    the place of the stages label and reward.

    The stages of `config.together` run side by side where a CPU has cores for each;
    they share the minutes that this takes.

    Raises:
      UserError: `config.together` names what is not a stage of the order, or a
        stage's block has a mistake.
    """
    workdir = Path(workdir).absolute()
    for name in config.together:
        if name not in config.order:
            raise UserError(
                f"config.together: {name!r} is not in config.order={config.order}"
            )
    _check_reward_model(config)
    order = stage_order(config)
    for name in order:
        check_blocks(stage_config(config, name), where=f"config.stages.{name}")
    if "evaluate" in set(config.order) - set(order):
        common.announce(
            "evaluate: left out, as only the miniature world has a gold judge; the "
            "stage select compares models of your own data by reward score"
        )
    for name in order:
        if name in config.together:
            _run_together(config, workdir, config.together)
        run_stage(config, workdir, name)
    if order[-1] == "evaluate":
        evaluate.show(workdir / "evaluate")


def stage_order(config: ConfigDict) -> tuple[str, ...]:
    """The stages to run.

    None makes a reward model where one is given, and none judges data of one's own.
    """
    left_out = {"label", "reward"} if config.reward_model else set()
    if config.stages.evaluate.data.jsonl:
        left_out.add("evaluate")
    return tuple(name for name in config.order if name not in left_out)


def _check_reward_model(config: ConfigDict) -> None:
    """Raises UserError if a reward model is needed and neither given nor trained."""
    given = config.reward_model
    if given and not (Path(given).expanduser() / "checkpoints").is_dir():
        raise UserError(
            f"config.reward_model={given}: holds no checkpoints; name the workdir of a "
            "finished reward stage"
        )
    needed = _READ_REWARD_MODEL & set(config.order)
    if needed and not given and "reward" not in config.order:
        raise UserError(
            "config.reward_model is not set. The paper has one 6B reward model for the "
            "policies of every size: run --config=configs/recipe.py:6b up to its stage "
            "reward, and name that stage's workdir here"
        )


def check_blocks(stage: ConfigDict, *, where: str) -> None:
    """Checks the keys and whole numbers of a stage's config before any stage runs.

    Raises:
      UserError: a block has a key that does not exist, or a number out of its range.
    """
    for key, cls in _BLOCKS.items():
        if key in stage:
            common.build(cls, stage[key], where=f"{where}.{key}")
    if "model" in stage:  # of which fine-tuning stages give a part
        values = stage.model.to_dict()
        check_integers(ModelConfig, values, where=f"{where}.model")


def run_stage(config: ConfigDict, workdir: str | Path, name: str) -> Path:
    """Runs one stage of the recipe, unless it is done; returns its workdir."""
    workdir = Path(workdir).absolute()
    minutes = _minutes(workdir)
    if name in minutes:
        common.announce(f"{name}: done ({minutes[name]:.1f} min)")
        return workdir / name
    common.announce(f"\n=== {name} ===")
    began = time.monotonic()
    _run_one(stage_config(config, name).to_dict(), workdir / name)
    _add_minutes(workdir, [name], time.monotonic() - began)
    return workdir / name


def _run_one(stage: dict[str, Any], workdir: Path) -> None:
    _RUN[stage["stage"]](ConfigDict(stage), workdir)


def _run_on_share(stage: dict[str, Any], workdir: Path) -> None:
    """In a process of its own, with no more devices than cores if the mesh is free."""
    cores = len(os.sched_getaffinity(0))
    if (
        -1 in stage["mesh"].values()
        and jax.config.values["jax_num_cpu_devices"] > cores
    ):
        jax.config.update("jax_num_cpu_devices", cores)
    _run_one(stage, workdir)


def _run_together(config: ConfigDict, workdir: Path, names: Sequence[str]) -> None:
    """Runs those that are not done, if there are several and each has a core."""
    left = [name for name in names if name not in _minutes(workdir)]
    cores = side_by_side.shares(len(left)) if len(left) > 1 else []
    if not cores:
        return
    common.announce(f"\n=== {' and '.join(left)}, side by side ===")
    began = time.monotonic()
    calls: dict[str, side_by_side.Call] = {
        name: (_run_on_share, (stage_config(config, name).to_dict(), workdir / name))
        for name in left
    }
    side_by_side.run(calls, cores)
    _add_minutes(workdir, left, time.monotonic() - began)


def _minutes(workdir: Path) -> dict[str, float]:
    """The minutes that each finished stage took."""
    path = workdir / "minutes.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _add_minutes(workdir: Path, names: Sequence[str], seconds: float) -> None:
    share = round(seconds / 60 / len(names), 2)
    minutes = _minutes(workdir) | dict.fromkeys(names, share)
    common.write_json(workdir / "minutes.json", minutes)


def stage_config(config: ConfigDict, name: str) -> ConfigDict:
    """A stage's own config, with the seeds and the reward model of the recipe."""
    stage = ConfigDict(config.stages[name])
    stage.seed = config.seed
    stage.data.world_seed = config.world_seed
    if config.reward_model:
        path = str(Path(config.reward_model).expanduser().absolute())
        if "reward_init" in stage:
            stage.reward_init.path = path
        if stage.stage in ("select", "evaluate"):
            stage[stage.stage].reward = path
        if stage.stage == "evaluate":
            stage.evaluate.comparisons = ""
    return stage
