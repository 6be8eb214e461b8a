"""PPO-ptx, the models called InstructGPT (paper §3.5, Eq. 2, C.4, E.6).

    python -m instructgpt.main --config=configs/ppo_ptx.py:mini \
        --workdir=runs/mini/ppo_ptx

As PPO, with gamma = 27.8 and 8 pretraining windows of 2,048 tokens per episode; gamma
multiplies the mean loss per token.
"""

from ml_collections import ConfigDict

from configs import common, ppo


def get_config(variant: str = "mini") -> ConfigDict:
    config = ppo.get_config(variant)
    config.name = "ppo_ptx"
    paper = variant in common.PAPER
    config.ppo.ptx_coef = 27.8 if paper else 1.0
    config.rollout.ptx_per_episode = (
        8.0 if paper else 0.25 if variant == "mini" else 0.5
    )
    if variant in ("1.3b", "6b", "pythia-1b"):
        config.policy_optimizer.learning_rate = 1.18e-5
    return config
