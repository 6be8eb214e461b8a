"""PPO-ptx, the models called InstructGPT (paper §3.5, Eq. 2, C.4, E.6).

    python -m instructgpt.main --config=configs/ppo_ptx.py:mini \
        --workdir=runs/mini/ppo_ptx

As PPO, with gamma = 27.8 and 8 pretraining windows of 2,048 tokens per episode; gamma
multiplies the mean loss per token. `mini` takes 1, chosen on validation prompts (world
and seed 0, commit 05a64d9, 2026-11-29): at 0.25, 0.5 and 1 the win rate was 0.604,
0.604 and 0.603, the pretraining loss 1.021, 0.973 and 0.939 (RL-init's: 1.238).
"""

from ml_collections import ConfigDict

from configs import common, ppo


def get_config(variant: str = "mini") -> ConfigDict:
    config = ppo.get_config(variant)
    config.name = "ppo_ptx"
    paper, mini = variant in common.PAPER, variant == "mini"
    config.ppo.ptx_coef = 27.8 if paper else 1.0
    config.rollout.ptx_per_episode = 8.0 if paper else 0.25 if mini else 0.5
    # GPT-3 clips a pretraining gradient at norm 1. Here gamma of them are most of the
    # gradient, and a limit of 1 would bind in every update.
    config.policy_optimizer.clip_norm = max(1.0, config.ppo.ptx_coef)
    if variant in ("1.3b", "6b", "pythia-1b"):
        config.policy_optimizer.learning_rate = 1.18e-5
    return config
