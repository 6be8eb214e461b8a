"""Chooses the SFT epoch by reward-model score on validation prompts (paper C.1).

    python -m instructgpt.main --config=configs/select.py:mini \
        --workdir=runs/mini/select

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores. It leaves the choice,
`selected.json`, with the score and the validation loss of every epoch.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS: dict[str, common.Values] = {
    "smoke": {"select.num_prompts": 16, "select.batch_size": 16},
    "mini": {"select.num_prompts": 400},
    "small": {"select.num_prompts": 100},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("select")
    config.select.candidates = "../sft"
    config.select.reward = "../reward"
    config.select.num_prompts = 0  # all validation prompts
    config.select.every = 1
    config.select.temperature = 1.0
    config.select.batch_size = 100
    common.apply(config, variant, VARIANTS)
    return config
