"""A stage as what is in memory all the time, and the functions that it calls."""

from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.stages import find
from instructgpt.stages.blocks import check_config
from instructgpt.stages.programs import Models, Program


class Work(NamedTuple):
    """What a stage holds and does."""

    held: dict[str, Any]  # abstract trees by name
    programs: dict[str, Program]
    iterations: int  # 0: the config counts epochs of data that is not here

    @property
    def update(self) -> str:
        """The program that microbatches make smaller; "" if there is none."""
        names = (name for name, p in self.programs.items() if p.microbatches)
        return next(names, "")


def describe(config: ConfigDict, models: Models, mesh: Mesh) -> Work:
    """The work of a stage's config on a mesh, under `jax.set_mesh`.

    Args:
      config: The stage's.
      models: Those of the checkpoints that it starts from, by block.
      mesh: Its devices need not be there.

    Raises:
      UserError: the stage says nothing of its programs, or a size does not divide.
    """
    stage = find(config.stage).exports
    if not hasattr(stage, "programs"):
        raise UserError(
            f"config.stage={config.stage!r} has no plan: {stage.__name__} exports no "
            "function programs(config, mesh, models)"
        )
    blocks = check_config(config, mesh)
    programs = stage.programs(config, mesh, models)
    held: dict[str, Any] = {}
    for program in programs.values():
        held |= program.held
    iterations = blocks["train"].num_steps if "train" in blocks else 0
    return Work(held, programs, iterations)
