"""Pretraining (Brown et al. 2020, Table 2.1 and App. B).

    python -m instructgpt.main --config=configs/pretrain.py:mini \
        --workdir=runs/mini/pretrain

Paper rows: XL 1.3B, 6.7B and 175B; 300B tokens, batches of 1M, 2M and 3.2M tokens.
The batch ramp of the first 4-12B tokens is not reproduced.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from instructgpt.models.config import GPT3_SIZES


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="pretrain", name="pretrain", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    if variant in common.PAPER:
        _paper(config, variant)
        return config
    smoke = variant == "smoke"
    config.model = dict(
        vocab_size=1024,
        context_length=240,  # 64 + 32, and 130 for the few-shot prefix of GPT
        num_layers=2 if smoke else 4,
        width=32 if smoke else 128,
        num_heads=4,
        remat="full",  # on a CPU fresh memory costs more than computing twice
    )
    config.optimizer = dict(
        learning_rate=3e-3,
        schedule="cosine",
        warmup_steps=2 if smoke else 40,
        weight_decay=0.1,
    )
    config.train = dict(
        batch_size=8,
        num_steps=6 if smoke else 1600,
        log_every=2 if smoke else 20,
        eval_every=0 if smoke else 400,
        checkpoint_every=2 if smoke else 400,
    )
    return config


def _paper(config: ConfigDict, variant: str) -> None:
    rate, tokens = {
        "1.3b": (2.0e-4, 1e6),
        "6b": (1.2e-4, 2e6),
        "175b": (0.6e-4, 3.2e6),
    }[variant]
    model = dataclasses.asdict(GPT3_SIZES[variant])
    config.model = {**model, "remat": "full"}
    # Whole windows of 2,048 tokens, in a multiple that large meshes divide.
    rows = round(tokens / model["context_length"] / 128) * 128
    per_step = rows * model["context_length"]
    config.optimizer = dict(
        learning_rate=rate,
        schedule="cosine",
        warmup_steps=round(375e6 / per_step),
        decay_steps=round(260e9 / per_step),  # then flat at 10 %
        weight_decay=0.1,
    )
    config.train = dict(
        batch_size=rows,
        num_steps=round(300e9 / per_step),
        microbatches=1,
        log_every=10,
        eval_every=1000,
        checkpoint_every=1000,
        keep=3,
    )
