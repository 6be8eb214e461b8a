"""Gathers the functions that all stages use: `common.start`, `common.build`, ...

blocks.py turns blocks of a config into dataclasses, opening.py opens and finishes a
workdir, and inputs.py checks that models and data fit each other.
"""

from instructgpt.identity import write_json
from instructgpt.stages.blocks import (
    CheckpointsConfig,
    TrainConfig,
    block_of,
    build,
    check_resume,
    check_train,
    default_config,
    filled,
    overrides,
)
from instructgpt.stages.inputs import (
    check_model,
    count_valid,
    model_config,
    text_windows,
    to_device,
    valid_windows,
)
from instructgpt.stages.opening import (
    Context,
    announce,
    data_of,
    finish,
    identity_of,
    may_differ,
    named_as_before,
    refuse,
    start,
    take_typed,
    unsaid,
)

__all__ = [
    "CheckpointsConfig",
    "Context",
    "TrainConfig",
    "announce",
    "block_of",
    "build",
    "check_model",
    "check_resume",
    "check_train",
    "count_valid",
    "data_of",
    "default_config",
    "filled",
    "finish",
    "identity_of",
    "may_differ",
    "model_config",
    "named_as_before",
    "overrides",
    "refuse",
    "start",
    "take_typed",
    "text_windows",
    "to_device",
    "unsaid",
    "valid_windows",
    "write_json",
]
