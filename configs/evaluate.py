"""The five models of Fig. 1 on held-out customers' prompts (paper §3.6, §4.1).

    python -m instructgpt.main --config=configs/evaluate.py:mini \
        --workdir=runs/mini/evaluate

Temperature 1 for InstructGPT models and 0.7 for GPT, as App. F says of its samples.
The paper compares on 3,196 test prompts.

Cost: `mini` is a part of the recipe's 16 minutes on 2 CPU cores. It leaves the table
of README.md and `report.html`.

With `evaluate.suite` it runs benchmarks instead, of these models or of those that
`evaluate.models` names; see instructgpt/evals/README.md.

In the miniature world three more evaluators measure truthfulness (Fig. 6), toxicity
(Fig. 7) and tasks of language (Figs 28-29); see instructgpt/evals/README.md.

`judges` and `evaluators` may name classes of your own, see evals/interface.py: a file
that takes this config and adds `config.judges.brief = dict(name="my_judges:Brief")`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from instructgpt.stages.blocks import filled
from instructgpt.stages.compared import ModelEntry
from instructgpt.stages.loading import InitConfig

_IMPORTED: common.Values = {
    "models.gpt.init.path": "../base",
    "models.gpt_prompted.init.path": "../base",
}

# The examples that the reward model chose.
_CHOSEN: common.Values = {"models.gpt_prompted.prefix": "../prefix"}

VARIANTS: dict[str, common.Values] = {
    "smoke": {
        **_CHOSEN,
        "evaluators.world_truthful.questions": 4,
        "evaluators.world_toxicity.beginnings": 4,
        "evaluators.world_tasks.questions": 4,
        "evaluate.num_prompts": 32,
        "evaluate.batch_size": 16,
        "evaluate.window": 96,
    },
    "mini": {**_CHOSEN, "evaluate.num_prompts": 500, "evaluate.window": 96},
    "gpt2": _IMPORTED,
    "pythia-1b": _IMPORTED,
    "smollm2": _IMPORTED,
    "smollm2_cpu": _IMPORTED,
}


def get_config(variant: str = "mini") -> ConfigDict:
    config = common.start("evaluate")
    gpt = dict(path="../pretrain", temperature=0.7)
    config.models = dict(
        gpt=entry("GPT", **gpt),
        gpt_prompted=entry("GPT (prompted)", prompted=True, **gpt),
        sft=entry("SFT", path="../sft", selected_by="../select"),
        # The averaged weights are evaluated, as C.4's EMA suggests.
        ppo=entry("PPO", path="../ppo", part="ema"),
        ppo_ptx=entry("PPO-ptx", path="../ppo_ptx", part="ema"),
    )
    config.rl_init.path = "../rl_init"
    # The evaluators and judges of the models, see evals/interface.py.
    config.evaluators = dict(pretrain_loss=dict(name="pretrain_loss"))
    # The policies' own reward model is wanted here, beside a judge that is not theirs.
    config.judges = dict(reward=dict(name="reward", own_policies=True))
    if variant in ("smoke", "mini"):  # only the miniature world has these
        config.evaluators.world_truthful = dict(name="world_truthful", questions=0)
        config.evaluators.world_toxicity = dict(name="world_toxicity", beginnings=120)
        config.evaluators.world_tasks = dict(name="world_tasks", questions=100)
        config.judges.gold = dict(name="gold")
        config.judges.labelers = dict(name="labelers", number=2)
    config.evaluate.baseline = "sft"
    config.evaluate.reward = "../reward"
    config.evaluate.comparisons = "../label"
    config.evaluate.select = "../select"
    config.evaluate.max_responses = 9
    config.evaluate.split = "test"  # tune on valid, report test once
    stages = ("pretrain", "sft", "reward", "rl_init", "ppo", "ppo_ptx")
    config.evaluate.curves = tuple(f"../{name}" for name in stages)
    config.evaluate.num_prompts = 3196
    config.evaluate.batch_size = 100
    config.evaluate.num_samples = 60  # prompts shown side by side in the report
    config.evaluate.window = 0  # the model's context length
    common.apply(config, variant, VARIANTS)
    return config


def entry(
    label: str,
    *,
    temperature: float = 1.0,
    prompted: bool = False,
    **init: Any,
) -> ConfigDict:
    """A model of the comparison, from a stage's workdir."""
    return filled(
        ModelEntry,
        label=label,
        init=filled(InitConfig, **init),
        temperature=temperature,
        prompted=prompted,
    )
