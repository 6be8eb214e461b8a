"""A FLAN/T0-like baseline: SFT on public NLP tasks (paper §3.5, §4.1, C.5).

    python -m instructgpt.main --config=configs/flan.py:mini --workdir=runs/mini/flan
    python -m instructgpt.main --config=configs/select.py:mini \
        --workdir=runs/mini/flan_select --config.select.candidates=runs/mini/flan

`--config=configs/recipe.py:mini+flan` does both and adds the model to the comparison.

The paper tunes the 175B GPT-3 on 1.2M examples of FLAN, and on 1M of T0++, without
repeats: cosine to 10 %, batch 64, rates 4e-6 and 6e-6. Of both it takes 4e-6 after 896k
examples, by the score of the 6B reward model on validation prompts. The checkpoints
here are 128k examples apart, of which 896k is the seventh.

In the miniature world the tasks are demonstrations of four categories, those with a
right answer or a given text, without customers' own words. There are few of them, so
that they are repeated. For public models they are P3 records, the data of T0, which

    python -m instructgpt.prepare runs/smollm2/p3 \
        --demonstrations=p3:t0_train_50k.jsonl.xz --valid=0 --test=0 --tokenizer=none

makes of a file with the rows {"prompt", "completion", "template"}. They have no valid
split, because the choice is by RM score on the recipe's own validation prompts.

Cost: `mini` makes the world's sets anew, with five times the demonstrations, and takes
about a tenth as many steps as its stage `sft`.
"""

from ml_collections import ConfigDict

from configs import common, evaluate, select, sft

_TASKS = ("classification", "closed_qa", "extract", "summarization")
_WORLD: common.Values = {
    "sft.categories": _TASKS,
    "sft.styles": ("plain", "few_shot"),
    "train.checkpoint_every": -1,  # an epoch
}
_P3: common.Values = {
    "data.jsonl": "../p3",
    "optimizer.learning_rate": 2e-5,
    "train.batch_size": 16,  # packed rows
    "train.checkpoint_every": 200,
}

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        **_WORLD,
        "data.demonstrations": (480, 48, 0),
        "train.batch_size": 8,
        "train.num_epochs": 2,
    },
    "mini": {
        **_WORLD,
        "data.demonstrations": (24000, 120, 0),
        "train.batch_size": 12,
        # The reward model chose the first epoch of 12 (world and seed 0).
        "train.num_epochs": 4,
    },
    "gpt2": _P3,
    "pythia-1b": _P3,
    "smollm2": _P3,
    "smollm2_cpu": {"data.jsonl": "../p3", **common.FEW_STEPS},
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = sft.get_config(variant)
    config.name = "flan"
    config.sft.categories = config.sft.styles = ()  # all
    config.optimizer.learning_rate = 4e-6
    config.train.batch_size = 64
    config.train.num_epochs = 1  # no repeats
    config.train.num_steps = 0
    config.train.eval_every = -1
    config.train.checkpoint_every = 2000
    config.train.keep = 0
    # Rates, rows and sizes that are not the paper's are those of the stage sft.
    small = {k: v for k, v in sft.VARIANTS.items() if k not in common.PAPER}
    common.apply(config, variant, common.FINE_TUNED, common.FROM_BASE, small, VARIANTS)
    return config


def add_to(recipe: ConfigDict, variant: str) -> None:
    """Adds the baseline to a recipe: its stages, after `reward`, and its model."""
    chosen = select.get_config(variant)
    chosen.name, chosen.select.candidates = "flan_select", "../flan"
    recipe.stages.flan, recipe.stages.flan_select = get_config(variant), chosen
    place = recipe.order.index("rl_init") + 1
    while any(name in recipe.order[place:] for name in ("label", "reward")):
        place += 1
    stages = ("flan", "flan_select")
    recipe.order = (*recipe.order[:place], *stages, *recipe.order[place:])
    recipe.stages.evaluate.models.flan = evaluate.entry(
        "FLAN", path="../flan", selected_by="../flan_select"
    )
