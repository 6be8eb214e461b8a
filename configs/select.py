"""Chooses the SFT epoch by reward-model score on validation prompts (paper C.1).

python -m instructgpt.main --config=configs/select.py:mini \
        --workdir=runs/mini/select
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="select", name="select", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    config.select = dict(
        candidates="../sft",
        reward="../reward",
        num_prompts={"smoke": 16, "mini": 400}.get(variant, 0),
        every=1,
        temperature=1.0,
        batch_size=16 if variant == "smoke" else 100,
    )
    return config
