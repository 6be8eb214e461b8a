"""Samples answers and ranks them, K = 4 to 9 per prompt (paper §3.4, §3.5, A.3).

    python -m instructgpt.main --config=configs/label.py:mini --workdir=runs/mini/label

In `mini` K is 8, of which two answer other prompts (`misplaced` in stages/label.py).
One labeler ranks a training prompt, as in the paper. For as many rankings, 20,000, the
reward model was right on 0.670 [0.655, 0.684] of held-out labelers' pairs about
validation prompts; with 10,000 prompts and the mean of two labelers on 0.660
[0.645, 0.675], with 6,667 and three on 0.647 [0.632, 0.662] (world and seed 0, commit
637d4e7, 2026-11-29).

The paper's set has 33,207 training and 17,887 validation prompts. Only the miniature
world has simulated labelers; elsewhere `ranked_by` is "people", for whom the answers
are written out.

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores. Its labelers agree on
71 (training) and 73 % (held out) of the pairs that two of them leave untied (commit
d4f8d3c, 2026-12-01).
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        "label.train_prompts": 32,
        "label.valid_prompts": 16,
        "label.misplaced": 2,
        "label.ranked_by": "world",
        "label.batch_size": 16,
    },
    "mini": {
        "label.train_prompts": 20000,
        "label.valid_prompts": 300,
        "label.min_responses": 8,
        "label.max_responses": 8,
        "label.misplaced": 2,
        "label.ranked_by": "world",
    },
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("label")
    # The initial policy of PPO answers too, so that the reward model sees its answers.
    config.label.policies = ("../sft", "../rl_init")
    config.label.fractions = (0.25, 1.0)
    config.label.train_prompts = 33207
    config.label.valid_prompts = 17887
    config.label.min_responses = 4
    config.label.max_responses = 9
    config.label.misplaced = 0
    config.label.train_labelers = 1
    config.label.labelers_per_prompt = 3
    config.label.ranked_by = "people"
    config.label.temperature = 1.0
    config.label.batch_size = 48
    common.apply(config, variant, VARIANTS)
    return config
