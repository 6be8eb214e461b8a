"""Cross-validation of the reward model over groups of labelers (paper §4.1, E.2).

    python -m instructgpt.main --config=configs/folds.py:mini \
        --workdir=runs/mini/folds

The labelers of the training rankings are cut into five groups, and five times three
reward models are trained, each on four groups. The paper's 6B models are right on
72.4 ± 0.4 % of the pairs of labelers in the training groups, and on 69.6 ± 0.9 % of
those of the group left out.

The rankings are those of the stage `label`, one labeler each, or one's own, with a
`labeler` each. A training that was stopped goes on, and one that is measured is not
repeated. Its model is then deleted, unless `folds.keep_models` is true.

Cost: `mini` takes 5,000 of the 20,000 rankings, and so about three times as long as
its stage `reward`. It leaves a table, `results.json` and `folds.png`.
"""

from ml_collections import ConfigDict

from configs import common, reward
from instructgpt.stages.blocks import filled
from instructgpt.stages.folds import FoldsConfig

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        "folds.num_folds": 3,
        "folds.num_seeds": 2,
        "folds.measured": 0.2,
    },
    "mini": {"folds.num_rankings": 5000},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = reward.get_config(variant)
    config.stage = config.name = "folds"
    config.folds = filled(FoldsConfig)
    config.folds.num_folds = 5
    config.folds.num_seeds = 3
    config.folds.measured = 0.1  # share of the prompts; the paper does not say
    config.folds.num_rankings = 0  # all
    config.folds.keep_models = False
    common.apply(config, variant, common.FINE_TUNED, reward.VARIANTS, VARIANTS)
    return config
