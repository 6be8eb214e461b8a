"""Untrained models and a small world, for stages that read what others have trained."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from instructgpt.checkpoints import Checkpoints
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from tests import tiny

# The world of `smoke`, with the fewest documents that make its tokenizer.
_DATA = dict(documents=(200, 8, 8), demonstrations=(64, 24, 0), prompts=(24, 8, 8))
_MODEL = ModelConfig(
    vocab_size=1280, context_length=192, num_layers=1, width=16, num_heads=2
)


def save_models(folder: Path) -> Path:
    """Saves language models as `pretrain` and `sft`, and a scalar one as `reward`."""
    kinds = {"pretrain": "language", "sft": "language", "reward": "scalar"}
    for seed, (name, kind) in enumerate(kinds.items()):
        model = (ScalarModel if kind == "scalar" else Transformer)(_MODEL)
        checkpoints = Checkpoints(folder / name / "checkpoints")
        meta = {"model": dataclasses.asdict(_MODEL), "kind": kind}
        checkpoints.save(1, {"params": tiny.params_of(model, seed=seed)}, meta)
        checkpoints.close()
    return folder


def on_one_device(config: ConfigDict) -> ConfigDict:
    """A stage's smoke config for these models, on the small world."""
    config.mesh.update(dict(data=-1, fsdp=1, tensor=1, cpu_devices=1))
    config.data.update(dict(_DATA, rm_prompts=(0, 0, 0)))
    for block in ("init", "reward_init"):
        if block in config:
            config[block].selected_by = ""
    return config
