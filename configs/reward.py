"""The reward model (paper §3.5, C.2).

    python -m instructgpt.main --config=configs/reward.py:mini \
        --workdir=runs/mini/reward

Exactly one epoch, lr 9e-6, cosine to 10 %, batches of 64 prompts, from the SFT model.
One 6B reward model serves every policy size: run the `6b` variant for all.

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores; an update of 6B with
nine answers of full length a prompt is planned at 26.8 PFLOPs. `mini` is right on 68 to
70 % of the pairs that two held-out labelers leave untied; they agree on 72 to 73 %.
"""

from ml_collections import ConfigDict

from configs import common

_IMPORTED: common.Values = {
    "reward.comparisons": "",  # uses the data's rankings, by people
    # Public models have large states, so that a scale of 1 gives large first scores.
    "reward.head_scale": 0.1,
    "train.batch_size": 16,
}

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        "optimizer.learning_rate": 5e-4,
        "train.batch_size": 8,
        "train.log_every": 2,
        "train.checkpoint_every": 2,
    },
    "mini": {
        # With two devices a step would read all weights twice, for few tokens each.
        "mesh.cpu_devices": 1,
        "reward.max_responses": 8,
        "optimizer.learning_rate": 5e-4,
        "train.batch_size": 4,
    },
    "small": {
        "optimizer.learning_rate": 1e-4,
        "train.batch_size": 4,
        "train.log_every": 5,
        "train.checkpoint_every": 20,
    },
    "gpt2": {**_IMPORTED, "optimizer.learning_rate": 2e-5},
    "pythia-1b": _IMPORTED,
    "smollm2": {**_IMPORTED, "optimizer.learning_rate": 2e-5},
    "smollm2_cpu": {
        **_IMPORTED,
        "optimizer.learning_rate": 5e-5,
        "train.batch_size": 4,
        "train.log_every": 1,
        "train.checkpoint_every": 20,
    },
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("reward")
    config.init.path = "../sft"
    config.model.residual_dropout = 0.0
    config.reward.comparisons = "../label"
    config.reward.max_responses = 9  # K of 4 to 9
    config.reward.head_scale = 1.0
    # Ties are dropped, so a prompt's mean is over its untied pairs.
    config.reward.divisor = "untied"
    config.optimizer.learning_rate = 9e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 0
    config.train.batch_size = 64  # prompts
    config.train.num_epochs = 1
    config.train.microbatches = 1
    config.train.log_every = 20
    config.train.eval_every = 0
    config.train.checkpoint_every = 250
    common.apply(config, variant, common.FINE_TUNED, VARIANTS)
    return config
