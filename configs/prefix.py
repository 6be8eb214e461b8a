"""Chooses the examples before the prompts of GPT (prompted) (paper §3.6, footnote 6).

    python -m instructgpt.main --config=configs/prefix.py:mini \
        --workdir=runs/mini/prefix

Answers after each candidate are scored by the reward model on validation prompts; the
paper chose among four, written by two people within an hour each. In the miniature
world the candidates are two draws of one, two and three solved examples. With your own
data they are in a text file, --config.prefix.file=FILE, with {prompt} where
the prompt stands and a line of --- between two; the stage evaluate then takes
--config.models.gpt_prompted.prefix=WORKDIR.

Cost: `mini` answers at most 700 times, a small part of its stage `label`. It leaves the
choice, `prefix.json`, with the score of every candidate.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        "prefix.examples": (2,),
        "prefix.num_prompts": 8,
        "prefix.batch_size": 8,
    },
    **{name: {"init.path": "../base"} for name in common.PUBLIC},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("prefix")
    config.init.path = "../pretrain"
    config.reward_init.path = "../reward"
    config.prefix.file = ""  # the miniature world's examples
    config.prefix.examples = (1, 2, 3)
    config.prefix.draws = 2
    config.prefix.num_prompts = 100
    config.prefix.temperature = 0.7  # that of GPT in configs/evaluate.py
    config.prefix.batch_size = 100
    common.apply(config, variant, VARIANTS)
    return config
