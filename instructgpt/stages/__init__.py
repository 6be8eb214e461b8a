"""The table of stages: the values of `config.stage`, and each stage's properties.

A stage is one module that exports `run` and, optionally, the other functions:

    run(config, workdir)             does the work and leaves its results in the workdir
    programs(config, mesh, models)   its jitted functions with abstract arguments, for
                                     `instructgpt.plan`
    check(config, blocks, mesh)      what must hold between its blocks
    show(workdir)                    prints its results, if it is a recipe's last stage

A stage that is not part of the package needs no line here: `config.stage` gives the
dotted name of its module, which also exports its own entry:

    BLOCKS = {**TRAINED, "init": INIT, "optimizer": OPTIMIZER, "dpo": DPOConfig}
    STAGE = Stage(__name__, BLOCKS, models={"init": "model"})

The module may be beside the config file or on Python's path. This file imports nothing
slow; the modules and classes that it names are imported when they are needed.
"""

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from instructgpt.errors import UserError

# Blocks of every stage's config -> their dataclasses, as "module:Class".
SHARED: dict[str, str | type] = {
    "data": "instructgpt.data.datasets:DataConfig",
    "mesh": "instructgpt.sharding:MeshConfig",
    "checkpoints": "instructgpt.stages.blocks:CheckpointsConfig",
}
TRAINED: dict[str, str | type] = {
    **SHARED,
    "resume": "instructgpt.stages.blocks:ResumeConfig",
    "model": "instructgpt.models.config:ModelConfig",
    "train": "instructgpt.stages.blocks:TrainConfig",
}
OPTIMIZER = "instructgpt.optim:OptimizerConfig"
INIT = "instructgpt.stages.loading:InitConfig"
OPTIONAL_INIT = "instructgpt.stages.loading:OptionalInitConfig"


@dataclasses.dataclass(frozen=True)
class Stage:
    """The properties of a stage that are known without running it."""

    module: str
    blocks: Mapping[str, str | type] = dataclasses.field(default_factory=dict)
    # Blocks, or keys, that name checkpoints to start from -> the size of their model,
    # "model" or "reward_model", for a plan, which has no checkpoints. In such a stage
    # the block `model` holds only changes to the checkpoint's model.
    models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Blocks that hold several named entries of one dataclass, whose field `init` is one
    # of INIT.
    entries: Mapping[str, str | type] = dataclasses.field(default_factory=dict)
    # Blocks whose entries name a class; the class's fields are given beside `name`.
    named_classes: tuple[str, ...] = ()
    # For a recipe that is given a reward model: the keys that are set to its workdir,
    # the keys that are emptied, and the stage's product, "rankings" or "reward_model",
    # which makes the stage superfluous.
    reward_keys: tuple[str, ...] = ()
    label_keys: tuple[str, ...] = ()
    gives: str = ""

    @property
    def exports(self) -> ModuleType:
        """The stage's module, which is imported here."""
        return importlib.import_module(self.module)

    def classes(self) -> dict[str, type]:
        """The dataclass of each block."""
        return {name: _resolved(cls) for name, cls in self.blocks.items()}

    def classes_in(self, config: Mapping[str, Any]) -> dict[str, type]:
        """`classes`, with the entries of a config added, such as "models.sft"."""
        found = self.classes()
        for block, cls in self.entries.items():
            for name, entry in config.get(block, {}).items():
                found[f"{block}.{name}"] = _resolved(cls)
                if "init" in entry:
                    found[f"{block}.{name}.init"] = _resolved(INIT)
        return found


STAGES: dict[str, Stage] = {
    "pretrain": Stage(
        "instructgpt.stages.pretrain",
        {
            **TRAINED,
            "optimizer": OPTIMIZER,
            "pretrain": "instructgpt.stages.pretrain:PretrainConfig",
        },
    ),
    "sft": Stage(
        "instructgpt.stages.sft",
        {
            **TRAINED,
            "optimizer": OPTIMIZER,
            "init": INIT,
            "sft": "instructgpt.stages.sft:SFTConfig",
        },
        models={"init": "model"},
    ),
    "label": Stage(
        "instructgpt.stages.label",
        {**SHARED, "label": "instructgpt.stages.label:LabelConfig"},
        models={"label.policies": "model"},
        gives="rankings",
    ),
    "reward": Stage(
        "instructgpt.stages.reward",
        {
            **TRAINED,
            "optimizer": OPTIMIZER,
            "init": INIT,
            "reward": "instructgpt.stages.rankings:RewardConfig",
        },
        models={"init": "reward_model"},
        gives="reward_model",
    ),
    "select": Stage(
        "instructgpt.stages.select",
        {**SHARED, "select": "instructgpt.stages.select:SelectConfig"},
        models={"select.candidates": "model", "select.reward": "reward_model"},
        reward_keys=("select.reward",),
    ),
    "ppo": Stage(
        "instructgpt.stages.ppo",
        {
            **TRAINED,
            "policy_optimizer": OPTIMIZER,
            "value_optimizer": OPTIMIZER,
            "init": INIT,
            "reward_init": INIT,
            "value_init": OPTIONAL_INIT,
            "reference_init": OPTIONAL_INIT,
            "reward_function": "instructgpt.stages.ppo_models:RewardFunctionConfig",
            "ppo": "instructgpt.steps.ppo:PPOConfig",
            "rollout": "instructgpt.stages.ppo_episodes:RolloutConfig",
        },
        models={
            "init": "model",
            "reward_init": "reward_model",
            "value_init": "reward_model",
            "reference_init": "model",
        },
        reward_keys=("reward_init.path",),
    ),
    "prefix": Stage(
        "instructgpt.stages.prefix",
        {
            **SHARED,
            "init": INIT,
            "reward_init": INIT,
            "prefix": "instructgpt.stages.prefix:PrefixConfig",
        },
        models={"init": "model", "reward_init": "reward_model"},
        reward_keys=("reward_init.path",),
    ),
    "evaluate": Stage(
        "instructgpt.stages.evaluate",
        {
            **SHARED,
            "rl_init": INIT,
            "evaluate": "instructgpt.stages.comparison:EvaluateConfig",
        },
        models={"models": "model", "evaluate.reward": "reward_model"},
        entries={"models": "instructgpt.stages.compared:ModelEntry"},
        named_classes=("evaluators", "judges"),
        reward_keys=("evaluate.reward",),
        label_keys=("evaluate.comparisons",),
    ),
    "best_of": Stage(
        "instructgpt.stages.best_of",
        {
            **SHARED,
            "init": INIT,
            "reward_init": INIT,
            "best_of": "instructgpt.stages.best_of:BestOfConfig",
        },
        models={"init": "model", "reward_init": "reward_model"},
        reward_keys=("reward_init.path",),
    ),
    "folds": Stage(
        "instructgpt.stages.folds",
        {
            **TRAINED,
            "optimizer": OPTIMIZER,
            "init": INIT,
            "reward": "instructgpt.stages.rankings:RewardConfig",
            "folds": "instructgpt.stages.folds:FoldsConfig",
        },
        models={"init": "reward_model"},
    ),
    # Runs the stages above, or others that its config names, in one workdir.
    "recipe": Stage("instructgpt.stages.recipe"),
    # Runs one of them, or several, for each of some values.
    "sweep": Stage(
        "instructgpt.stages.sweep",
        {
            **SHARED,
            "sweep": "instructgpt.stages.sweep_values:SweepConfig",
            "measure": "instructgpt.stages.sweep_models:MeasureConfig",
        },
    ),
}


@functools.cache
def find(name: str) -> Stage:
    """The stage that `config.stage` names: an entry of the table, or a user's module.

    Raises:
      UserError: there is no such entry or module, or the module has no function `run`.
    """
    if name in STAGES:
        return STAGES[name]
    if not all(part.isidentifier() for part in name.split(".")):
        raise _unknown(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            raise _unknown(name) from error
        raise  # the module exists, but an import inside it fails
    if not callable(getattr(module, "run", None)):
        raise UserError(
            f"config.stage={name!r}: {getattr(module, '__file__', name)} exports no "
            "function run(config, workdir)"
        )
    return getattr(module, "STAGE", Stage(name))


def _unknown(name: str) -> UserError:
    return UserError(
        f"config.stage={name!r}; known stages: {', '.join(STAGES)}; or name a module "
        "of yours that lies beside the config file or on PYTHONPATH"
    )


def _resolved(cls: str | type) -> Any:
    if isinstance(cls, type):
        return cls
    module, _, name = cls.partition(":")
    return getattr(importlib.import_module(module), name)
