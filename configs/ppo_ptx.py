"""PPO-ptx, the models called InstructGPT (paper §3.5, Eq. 2, C.4, E.6).

    python -m instructgpt.main --config=configs/ppo_ptx.py:mini \
        --workdir=runs/mini/ppo_ptx

As PPO, with gamma = 27.8 and 8 pretraining windows of 2,048 tokens per episode; gamma
multiplies the mean loss per token. `mini` takes 1, chosen on validation prompts (world
and seed 0, commit 05a64d9, 2026-11-29): at 0.25, 0.5 and 1 the win rate was 0.604,
0.604 and 0.603, the pretraining loss 1.021, 0.973 and 0.939 (RL-init's: 1.238).

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores, beside PPO. Planned
(instructgpt/plan/README.md) are 4.2 hours at best for 1.3B on 32 chips of v5e, 6.5 for
6B on 64, and 27 for 175B on 128 of v5p: 62.7 PF/s-days, where the paper says 60. `mini`
reaches win rates of 0.57 to 0.68 against SFT in the five runs, and a pretraining loss
0.08 to 0.09 above GPT's.
"""

from ml_collections import ConfigDict

from configs import common, ppo

_SMALL: common.Values = {
    "ppo.ptx_coef": 1.0,
    "rollout.ptx_per_episode": 0.5,
    "policy_optimizer.clip_norm": 1.0,
}

VARIANTS: dict[str, common.Values] = {
    "smoke": _SMALL,
    "mini": {**_SMALL, "rollout.ptx_per_episode": 0.25},
    "small": {**_SMALL, "rollout.ptx_per_episode": 0.25},
    "1.3b": {"policy_optimizer.learning_rate": 1.18e-5},
    "6b": {"policy_optimizer.learning_rate": 1.18e-5},
    "gpt2": _SMALL,
    "pythia-1b": {**_SMALL, "policy_optimizer.learning_rate": 1.18e-5},
    "smollm2": _SMALL,
    "smollm2_cpu": {**_SMALL, "rollout.ptx_per_episode": 0.25},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = ppo.get_config(variant)
    config.name = "ppo_ptx"
    config.ppo.ptx_coef = 27.8
    config.rollout.ptx_per_episode = 8.0
    # GPT-3 clips a pretraining gradient at norm 1. Here gamma times such a gradient is
    # most of the sum, so a limit of 1 would bind in every update.
    config.policy_optimizer.clip_norm = 27.8
    common.apply(config, variant, VARIANTS)
    return config
