"""Shared parts of the stages' configs: each calls `start` and applies a variant.

Variants: `smoke` (seconds, for tests), `mini` (the miniature world, minutes on a
CPU), the paper's sizes `1.3b`, `6b`, `175b` with the paper's numbers, and the public
models `gpt2`, `pythia-1b` and `smollm2` for one GPU of 80 GB or a v5e-8: imported by
`python -m instructgpt.convert import NAME WORKDIR/base`, with data of one's own.
Two more need only a CPU and data of one's own: `small` trains a model of a few million
parameters from nothing, and `smollm2_cpu` takes a few short steps from SmolLM2.

A file gives the changes of each variant by flag, and then the paper's numbers. A config
holds every field of every block of its stage, also fields that no file sets.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from instructgpt.stages.blocks import default_config

PAPER = ("1.3b", "6b", "175b")
PUBLIC = ("gpt2", "pythia-1b", "smollm2", "smollm2_cpu")
VARIANTS = ("smoke", "mini", "small", *PAPER, *PUBLIC)

Values = Mapping[str, Any]  # values by flag, such as "train.batch_size"

_WORLD: Values = {
    "data.jsonl": "",
    "data.max_prompt": 40,
    "data.max_response": 24,
    "data.vocab_size": 1280,
    "mesh.data": -1,
    "mesh.fsdp": 1,
}
_IMPORTED: Values = {"data.tokenizer": "../base/tokenizer"}
# For a CPU: limits that people's questions and short answers fit.
_SHORT: Values = {"data.max_prompt": 96, "data.max_response": 128}
# The large sizes verify only arrays, which all devices sum up, and not files, which the
# first process reads alone. `tests/benchmarks/verify.py` measures both.
_LARGE: Values = {"checkpoints.verify": "arrays"}

# Changes of a variant in every stage. Sizes are those of the training, validation and
# test splits.
ALL_STAGES: dict[str, Values] = {
    "smoke": {
        **_WORLD,
        "data.documents": (400, 60, 60),
        "data.demonstrations": (96, 16, 0),
        "data.prompts": (128, 32, 32),
        "data.rm_prompts": (64, 24, 0),
        "data.gpt_prompts": (0, 16, 16),
    },
    "mini": {
        **_WORLD,
        "data.documents": (48000, 500, 500),
        "data.demonstrations": (4800, 120, 0),
        "data.prompts": (15500, 500, 500),
        "data.rm_prompts": (20000, 300, 0),
        "data.gpt_prompts": (0, 200, 200),
    },
    "6b": _LARGE,
    "175b": {**_LARGE, "mesh.tensor": 8},
    # GPT-2's context has 1,024 tokens.
    "gpt2": {**_IMPORTED, "data.max_prompt": 640, "data.max_response": 384},
    "pythia-1b": _IMPORTED,
    "smollm2": {**_IMPORTED, "data.template": "chatml"},
    "smollm2_cpu": {**_IMPORTED, "data.template": "chatml", **_SHORT},
    "small": {**_SHORT, "mesh.data": -1, "mesh.fsdp": 1},
}

_FULL: Values = {"model.remat": "full", "model.fused_attention": True}
# The compute dtype on GPUs and TPUs; imported configs have float32.
_ON_GPU: Values = {**_FULL, "model.compute_dtype": "bfloat16"}

# Changes of a variant to the model that a fine-tuning stage starts from.
FINE_TUNED: dict[str, Values] = {
    "mini": {
        "model.product_dtype": "auto",
        "model.scan_layers": False,  # faster, and few layers compile quickly
        "model.remat": "none",  # takes no more memory on a CPU without scan_layers
    },
    # True shards tokens over `tensor` between layers, where that axis is used.
    "1.3b": {**_FULL, "model.sequence_parallel": False},
    "6b": {**_FULL, "model.sequence_parallel": False},
    "175b": {**_FULL, "model.sequence_parallel": True},
    "gpt2": {**_ON_GPU, "model.sequence_parallel": False},
    "pythia-1b": {**_ON_GPU, "model.sequence_parallel": False},
    "smollm2": {**_ON_GPU, "model.sequence_parallel": False},
    "smollm2_cpu": {"model.remat": "elementwise"},
    "small": {"model.product_dtype": "auto", "model.remat": "none"},
}
# Twelve updates on demonstrations.
FEW_STEPS: Values = {
    "train.batch_size": 8,
    "train.num_epochs": 0,
    "train.num_steps": 12,
    "train.log_every": 1,
    "train.eval_every": 0,
    "train.checkpoint_every": 0,
    "train.keep": 1,
}
# Path of the pretrained model, if it was imported.
FROM_BASE: dict[str, Values] = {name: {"init.path": "../base"} for name in PUBLIC}


def start(stage: str, name: str = "") -> ConfigDict:
    """A stage's config with the settings that all stages share.

    Args:
      stage: Name of the stage in the table of `instructgpt/stages`.
      name: Name of the run; "": the stage's.
    """
    config = default_config(stage, name=name or stage)
    # The data are beside the stages, so that a run moves with its data.
    config.data.dir = "../data"
    # Your KIND.SPLIT.jsonl files and, for your own model, a tokenizer; `dir` holds the
    # sets made of them. --config.data.jsonl names another folder.
    config.data.jsonl = "../records"
    config.data.max_prompt = 1024  # App. C: 1k + 1k tokens
    config.data.max_response = 1024
    config.mesh.data = 1
    config.mesh.fsdp = -1  # all devices that remain
    return config


def apply(config: ConfigDict, variant: str, *tables: Mapping[str, Values]) -> None:
    """Applies a variant's changes: those of every stage, then those of each table.

    Raises:
      ValueError: there is no such variant.
    """
    check(variant)
    for table in (ALL_STAGES, *tables):
        config.update_from_flattened_dict(table.get(variant, {}))


def check(variant: str) -> str:
    """Returns the variant, or raises an error that names the existing ones."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} does not exist; known: {VARIANTS}")
    return variant
