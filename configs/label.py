"""Sampled answers and their rankings, K = 4 to 9 a prompt (paper §3.4, §3.5, A.3).

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
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="label", name="label", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    train, valid = {"smoke": (32, 16), "mini": (20000, 300)}.get(
        variant, (33207, 17887)
    )
    config.label = dict(
        # The policy that PPO starts from answers too: the reward model judges its like.
        policies=("../sft", "../rl_init"),
        fractions=(0.25, 1.0),
        train_prompts=train,
        valid_prompts=valid,
        min_responses=8 if variant == "mini" else 4,
        max_responses=8 if variant == "mini" else 9,
        misplaced=2 if variant in ("smoke", "mini") else 0,
        train_labelers=1,
        labelers_per_prompt=3,
        ranked_by="world" if variant in ("smoke", "mini") else "people",
        temperature=1.0,
        batch_size=16 if variant == "smoke" else 48,
    )
    return config
