"""The initial policy of RL, which is also the KL reference (paper C.3, E.8).

    python -m instructgpt.main --config=configs/rl_init.py:mini \
        --workdir=runs/mini/rl_init

2 epochs of the demonstrations with 10 % pretraining data mixed in, cosine to 10 %.
Not the 16-epoch SFT model.
"""

from ml_collections import ConfigDict

from configs import common, sft


def get_config(variant: str = "mini") -> ConfigDict:
    config = sft.get_config(variant)
    config.name = "rl_init"
    config.model = common.fine_tuning_model(variant)
    config.sft.pretrain_fraction = 0.1
    # The paper does not say of what. 10 % of the rows would be 82 % of a loss with one
    # mean over its targets at 1.3B and 6B, 86 % at 175B: a row of text has 2,047
    # targets and the paper's mean demonstration 45.
    config.sft.pretrain_share_of = "loss"
    rate = {"1.3b": 5e-6, "6b": 1.04e-5, "175b": 2.45e-6}.get(variant, 2e-3)
    if variant in common.PUBLIC:
        rate = 5e-6 if variant == "pythia-1b" else 2e-5
    config.optimizer.learning_rate = rate
    config.sft.pack_length = 0  # rows of text are mixed in
    if variant == "smoke":
        config.train.batch_size = 16
    if variant == "mini":
        config.train.batch_size = 10  # 9 demonstrations and one row of text
        config.train.microbatches = 1
    config.train.num_epochs = 2
    config.train.keep = 1
    return config
