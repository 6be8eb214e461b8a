"""Pretraining (Brown et al. 2020, Table 2.1 and App. B).

    python -m instructgpt.main --config=configs/pretrain.py:mini \
        --workdir=runs/mini/pretrain

Paper rows: XL 1.3B, 6.7B and 175B; 300B tokens, batches of 1M, 2M and 3.2M tokens.
The batch ramp of the first 4-12B tokens is not reproduced.

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores; 1.3B, 6B and 175B are
planned at 29.4, 144 and 3,687 PF/s-days. `mini` reaches a held-out loss of 0.835 nats.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from instructgpt.models.config import GPT3_SIZES, PUBLIC_SIZES

_MINIATURE: common.Values = {
    "model.vocab_size": 1280,
    "model.context_length": 192,  # 40 + 24, and room for the few-shot prefix of GPT
    "model.attention_band": 24,
    # With sines a small model learns to look back sooner than with noise.
    "model.position_init": "sinusoidal",
    "model.position_std": 0.02,
    "model.remat": "elementwise",
    "model.fused_attention": False,
    "pretrain.window": 96,
    "optimizer.learning_rate": 4e-3,
    "optimizer.final_fraction": 0.0,  # a short run gains most as it ends
    "train.keep": 1,
}
# Training from scratch on your own text, with half a million tokens per step.
_OWN_TEXT: common.Values = {
    "model.remat": "full",
    "model.compute_dtype": "bfloat16",
    "model.fused_attention": True,
    "optimizer.learning_rate": 6e-4,
    "optimizer.warmup_steps": 1000,
    "pretrain.window": 2048,
    "train.batch_size": 256,
    "train.num_steps": 20_000,
    "train.microbatches": 16,
}

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        **_MINIATURE,
        "model.num_layers": 2,
        "model.width": 32,
        "model.num_heads": 4,
        "model.product_dtype": "compute",  # the same numbers on every CPU
        "optimizer.warmup_steps": 2,
        "train.batch_size": 8,
        "train.num_steps": 6,
        "train.log_every": 2,
        "train.eval_every": 0,
        "train.checkpoint_every": 2,
    },
    "mini": {
        **_MINIATURE,
        "model.num_layers": 3,
        "model.width": 128,
        # Heads as wide as GPT-3's narrowest: narrow heads are slow to learn to copy.
        "model.num_heads": 2,
        "model.product_dtype": "auto",
        "optimizer.warmup_steps": 100,
        # Batches are small because copying a name from the prompt is learnt late and
        # suddenly, after a number of updates rather than of tokens.
        "train.batch_size": 4,
        "train.num_steps": 8000,
        "train.log_every": 100,
        "train.eval_every": 1600,
        "train.checkpoint_every": 1600,
    },
    # From nothing on a CPU, on text of one's own: 3.1 million parameters besides the
    # embeddings, and 1.2 million tokens.
    "small": {
        "model.vocab_size": 0,  # the tokenizer's
        "model.context_length": 256,
        "model.num_layers": 4,
        "model.width": 256,
        "model.num_heads": 4,
        "model.product_dtype": "auto",
        "model.position_init": "sinusoidal",
        "model.position_std": 0.02,
        "model.remat": "none",
        "model.fused_attention": False,
        "pretrain.window": 128,
        "optimizer.learning_rate": 2e-3,
        "optimizer.warmup_steps": 50,
        "optimizer.final_fraction": 0.0,
        "train.batch_size": 8,
        "train.num_steps": 1200,
        "train.log_every": 50,
        "train.eval_every": 200,
        "train.checkpoint_every": 200,
        "train.keep": 1,
    },
    # Batches are whole windows of 2,048 tokens, in a multiple of 128, which large
    # meshes divide; steps are 300B tokens, warmup 375M, and the decay ends at 260B.
    "1.3b": {
        "optimizer.learning_rate": 2.0e-4,
        "optimizer.warmup_steps": 358,
        "optimizer.decay_steps": 247_955,
        "train.batch_size": 512,
        "train.num_steps": 286_102,
    },
    "6b": {
        "optimizer.learning_rate": 1.2e-4,
        "optimizer.warmup_steps": 179,
        "optimizer.decay_steps": 123_978,
        "train.batch_size": 1024,
        "train.num_steps": 143_051,
    },
    "175b": {
        "model.sequence_parallel": True,
        "optimizer.learning_rate": 0.6e-4,
        "optimizer.warmup_steps": 119,
        "optimizer.decay_steps": 82_652,
        "train.batch_size": 1536,
        "train.num_steps": 95_367,
    },
    "gpt2": {**_OWN_TEXT, "pretrain.window": 1024, "train.batch_size": 512},
    "pythia-1b": {**_OWN_TEXT, "optimizer.learning_rate": 3e-4},
    "smollm2": _OWN_TEXT,
    "smollm2_cpu": _OWN_TEXT,
}
# Variants whose model is another's.
_SIZES = {"smollm2_cpu": "smollm2"}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("pretrain")
    size = _SIZES.get(variant, variant)
    if size in GPT3_SIZES | PUBLIC_SIZES:
        config.model.update(dataclasses.asdict((GPT3_SIZES | PUBLIC_SIZES)[size]))
    config.model.remat = "full"
    config.model.fused_attention = True
    config.pretrain.window = 0  # the model's context length
    config.optimizer.schedule = "cosine"  # ends at 10 % and stays there
    config.optimizer.weight_decay = 0.1
    config.train.log_every = 10
    config.train.eval_every = 1000
    config.train.checkpoint_every = 1000
    config.train.keep = 3
    common.apply(config, variant, VARIANTS)
    return config
