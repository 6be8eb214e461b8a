"""Describes a stage by the arrays that it always holds and the functions it calls."""

from types import ModuleType
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.stages import find
from instructgpt.stages.blocks import check_config
from instructgpt.stages.programs import Models, Program


class Work(NamedTuple):
    """The arrays that a stage holds, and its programs."""

    held: dict[str, Any]  # abstract trees that are always in memory, by name
    programs: dict[str, Program]
    iterations: int  # 0: unknown, because the config counts epochs of the data

    @property
    def update(self) -> str:
        """The program that microbatches make smaller; "" if there is none."""
        names = (name for name, p in self.programs.items() if p.microbatches)
        return next(names, "")


def check_planned(config: ConfigDict) -> ModuleType:
    """The module of a stage that can be planned.

    Raises:
      UserError: the stage does not describe its programs.
    """
    stage = find(config.stage).exports
    if not hasattr(stage, "programs"):
        raise UserError(
            f"config.stage={config.stage!r} has no plan: {stage.__name__} exports no "
            "function programs(config, mesh, models); a recipe is planned stage by "
            "stage, such as --config=configs/sft.py:6b"
        )
    return stage


def describe(config: ConfigDict, models: Models, mesh: Mesh) -> Work:
    """Describes a stage's work on a mesh; must be called under `jax.set_mesh`.

    Args:
      config: The stage's config.
      models: Configs of the models in the checkpoints that it starts from, by block.
      mesh: The mesh, whose devices need not exist.

    Raises:
      UserError: the stage does not describe its programs, or a size does not divide.
    """
    stage = check_planned(config)
    blocks = check_config(config, mesh)
    programs = stage.programs(config, mesh, models)
    held: dict[str, Any] = {}
    for program in programs.values():
        held |= program.held
    iterations = blocks["train"].num_steps if "train" in blocks else 0
    return Work(held, programs, iterations)
