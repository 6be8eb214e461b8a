"""The reward model (paper §3.5, C.2).

    python -m instructgpt.main --config=configs/reward.py:mini \
        --workdir=runs/mini/reward

Exactly one epoch, lr 9e-6, cosine to 10 %, batches of 64 prompts, from the SFT model.
One 6B reward model serves every policy size: run the `6b` variant for all.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="reward", name="reward", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.model = common.fine_tuning_model(variant)
    config.init = dict(path="../sft")
    config.reward = dict(
        comparisons="../label",
        max_responses=8 if variant == "mini" else 9,
        # With ties dropped, a prompt's mean is over the pairs that count.
        divisor="untied",
    )
    paper = variant in common.PAPER
    config.optimizer = dict(
        learning_rate=9e-6 if paper else 5e-4, schedule="cosine", warmup_steps=0
    )
    config.train = dict(
        batch_size=64 if paper else 4 if variant == "mini" else 8,
        num_epochs=1,
        microbatches=1,
        log_every=2 if variant == "smoke" else 20,
        eval_every=0,
        checkpoint_every=2 if variant == "smoke" else 250,
    )
    return config
