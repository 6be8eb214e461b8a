"""Tells which fields of the config classes a run never looked at."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from instructgpt.data.datasets import DataConfig
from instructgpt.loop import LoopConfig
from instructgpt.models.config import ModelConfig
from instructgpt.optim import OptimizerConfig
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import MeshConfig
from instructgpt.stages.common import TrainConfig
from instructgpt.stages.compared import ModelEntry
from instructgpt.stages.comparison import EvaluateConfig
from instructgpt.stages.label import LabelConfig
from instructgpt.stages.loading import InitConfig
from instructgpt.stages.ppo import RolloutConfig
from instructgpt.stages.rankings import RewardConfig
from instructgpt.stages.select import SelectConfig
from instructgpt.stages.sft import SFTConfig
from instructgpt.steps.ppo import PPOConfig

CONFIG_CLASSES = (
    DataConfig,
    EvaluateConfig,
    InitConfig,
    LabelConfig,
    LoopConfig,
    MeshConfig,
    ModelConfig,
    ModelEntry,
    OptimizerConfig,
    PPOConfig,
    RewardConfig,
    RolloutConfig,
    SFTConfig,
    SamplingConfig,
    SelectConfig,
    TrainConfig,
)
# Comparing, hashing, printing or checking a config is not using it.
_NOT_A_USE = {
    *("__eq__", "__hash__", "__repr__", "__post_init__"),
    *("_fill", "_check_rotary"),  # of __post_init__
}


@contextmanager
def reads_of_config_fields() -> Iterator[dict[str, set[str]]]:
    """Gives {class: its fields not read so far}, which empties while code runs."""
    unread = {
        cls.__name__: {field.name for field in dataclasses.fields(cls)}
        for cls in CONFIG_CLASSES
    }

    def spy(self: Any, name: str) -> Any:
        caller = sys._getframe(1)
        if (
            caller.f_code.co_name not in _NOT_A_USE
            and caller.f_globals.get("__name__") != "dataclasses"
        ):
            for cls in type(self).__mro__:  # a subclass reads fields of its parent
                unread.get(cls.__name__, set()).discard(name)
        return object.__getattribute__(self, name)

    with ExitStack() as stack:
        for cls in CONFIG_CLASSES:
            stack.enter_context(mock.patch.object(cls, "__getattribute__", spy))
        yield unread
