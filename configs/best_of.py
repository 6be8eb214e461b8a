"""Best-of-n sampling by the reward model, against the KL from the policy.

    python -m instructgpt.main --config=configs/best_of.py:mini \
        --workdir=runs/mini/best_of

The baseline of RL that trains nothing: of n answers the one that the reward model
scores highest. The paper has no such row; Nakano et al. 2021 and Gao et al. 2023 do,
with n up to 64. Other policies are points with their measured KL, for example PPO's
beside the best of n of RL-init, from which they started:

    python -m instructgpt.main --config=configs/best_of.py:mini \
        --workdir=runs/mini/best_of_rl --config.init.path=runs/mini/rl_init \
        --config.init.selected_by= \
        --config.best_of.policies=ppo=runs/mini/ppo,ppo_ptx=runs/mini/ppo_ptx

Cost: `mini` answers 32,000 times, about as often as a fifth of its stage `label`. It
leaves a table, `results.json`, `best_of.png` and all answers with their scores.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        "best_of.num_prompts": 8,
        "best_of.num_answers": 8,
        "best_of.batch_size": 4,
    },
    "mini": {"best_of.num_prompts": 500},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("best_of")
    config.init.path = "../sft"
    config.init.selected_by = "../select"  # "" takes the newest checkpoint
    config.reward_init.path = "../reward"
    config.best_of.split = "valid"  # report test once
    config.best_of.num_prompts = 500
    config.best_of.num_answers = 64
    config.best_of.temperature = 1.0
    config.best_of.batch_size = 8  # prompts, with 64 answers each
    config.best_of.policies = ""  # points beside the curve: LABEL=WORKDIR,...
    common.apply(config, variant, VARIANTS)
    return config
