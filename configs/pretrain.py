"""Pretraining (Brown et al. 2020, Table 2.1 and App. B).

    python -m instructgpt.main --config=configs/pretrain.py:mini \
        --workdir=runs/mini/pretrain

Paper rows: XL 1.3B, 6.7B and 175B; 300B tokens, batches of 1M, 2M and 3.2M tokens.
The batch ramp of the first 4-12B tokens is not reproduced.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from instructgpt.models.config import GPT3_SIZES, PUBLIC_SIZES


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="pretrain", name="pretrain", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    config.resume = common.resume()
    if variant in common.PAPER:
        _paper(config, variant)
        return config
    if variant in common.PUBLIC:
        _public(config, variant)
        return config
    smoke = variant == "smoke"
    config.model = dict(
        vocab_size=1280,
        context_length=192,  # 40 + 24, and room for the few-shot prefix of GPT
        num_layers=2 if smoke else 3,
        width=32 if smoke else 128,
        # Heads as wide as GPT-3's narrowest: narrow heads are slow to learn to copy.
        num_heads=4 if smoke else 2,
        attention_band=24,
        # A small model in a hurry: sines let it look back sooner than noise does.
        position_init="sinusoidal",
        position_std=0.02,
        remat="elementwise",
        # `smoke` gives the same numbers on every CPU.
        product_dtype="compute" if smoke else "auto",
    )
    # Small batches: to copy a name from the prompt is learnt late and all at once,
    # after a number of updates rather than of tokens.
    config.pretrain = dict(window=96)
    config.optimizer = dict(
        learning_rate=4e-3,
        schedule="cosine",
        warmup_steps=2 if smoke else 100,
        final_fraction=0.0,  # a short run gains most as it ends
        weight_decay=0.1,
    )
    config.train = dict(
        batch_size=8 if smoke else 4,
        num_steps=6 if smoke else 8000,
        log_every=2 if smoke else 100,
        eval_every=0 if smoke else 1600,
        checkpoint_every=2 if smoke else 1600,
    )
    return config


def _paper(config: ConfigDict, variant: str) -> None:
    rate, tokens = {
        "1.3b": (2.0e-4, 1e6),
        "6b": (1.2e-4, 2e6),
        "175b": (0.6e-4, 3.2e6),
    }[variant]
    model = dataclasses.asdict(GPT3_SIZES[variant])
    cut = common.sequence_parallel(variant)
    fast = dict(remat="full", sequence_parallel=cut, fused_attention=True)
    config.model = {**model, **fast}
    config.pretrain = dict(window=0)
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


def _public(config: ConfigDict, variant: str) -> None:
    """From scratch on text of one's own, half a million tokens a step."""
    model = dataclasses.asdict(PUBLIC_SIZES[variant])
    fast = dict(remat="full", compute_dtype="bfloat16", fused_attention=True)
    config.model = {**model, **fast}
    window = min(model["context_length"], 2048)
    config.pretrain = dict(window=window)
    rate = {"pythia-1b": 3e-4}.get(variant, 6e-4)
    config.optimizer = dict(
        learning_rate=rate, schedule="cosine", warmup_steps=1000, weight_decay=0.1
    )
    config.train = dict(
        batch_size=2**19 // window,
        num_steps=20_000,
        microbatches=16,
        log_every=10,
        eval_every=1000,
        checkpoint_every=1000,
        keep=3,
    )
