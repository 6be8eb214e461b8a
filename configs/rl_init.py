"""The initial policy of RL, which is also the KL reference (paper C.3, E.8).

    python -m instructgpt.main --config=configs/rl_init.py:mini \
        --workdir=runs/mini/rl_init

2 epochs of the demonstrations with 10 % pretraining data mixed in, cosine to 10 %.
Not the 16-epoch SFT model.

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores. There its pretraining
loss is 1.19 to 1.30 in the five runs, 0.37 to 0.40 above that of GPT.
"""

from ml_collections import ConfigDict

from configs import common, sft

_OWN_ROWS: common.Values = {"sft.pack_length": 0}  # rows of text are mixed in
_IMPORTED: common.Values = {**_OWN_ROWS, "optimizer.learning_rate": 2e-5}

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        **_OWN_ROWS,
        "optimizer.learning_rate": 2e-3,
        "train.batch_size": 16,
    },
    "mini": {
        **_OWN_ROWS,
        "optimizer.learning_rate": 2e-3,
        "train.batch_size": 10,  # 9 demonstrations and one row of text
    },
    "small": {
        **_OWN_ROWS,
        "optimizer.learning_rate": 5e-4,
        "train.batch_size": 10,
        "train.num_epochs": 0,
        "train.num_steps": 160,
    },
    "1.3b": {"optimizer.learning_rate": 5e-6},
    "6b": {"optimizer.learning_rate": 1.04e-5},
    "175b": {"optimizer.learning_rate": 2.45e-6},
    "gpt2": _IMPORTED,
    "pythia-1b": {**_IMPORTED, "optimizer.learning_rate": 5e-6},
    "smollm2": _IMPORTED,
    "smollm2_cpu": {**_IMPORTED, **common.FEW_STEPS},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = sft.get_config(variant)
    config.name = "rl_init"
    config.model.residual_dropout = 0.0  # the paper gives no value for this stage
    config.sft.pretrain_fraction = 0.1
    # The paper does not say what the 10 % are a share of. As a share of rows they would
    # be 82 % of a loss that is one mean over targets at 1.3B and 6B, 86 % at 175B: a
    # row of text has 2,047 targets and the paper's mean demonstration 45.
    config.sft.pretrain_share_of = "loss"
    config.train.num_epochs = 2
    config.train.keep = 1
    common.apply(config, variant, VARIANTS)
    return config
