"""The five models of Fig. 1 on held-out customers' prompts (paper §3.6, §4.1).

    python -m instructgpt.main --config=configs/evaluate.py:mini \
        --workdir=runs/mini/evaluate

Temperature 1 for InstructGPT models and 0.7 for GPT, as App. F says of its samples.

`judges` and `evaluators` may name classes of your own, see evals/interface.py: a file
that takes this config and adds `config.judges.brief = dict(name="my_judges:Brief")`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="evaluate", name="evaluate", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    gpt = dict(init=dict(path=common.base(variant)), temperature=0.7)
    config.models = dict(
        gpt=dict(label="GPT", **gpt),
        gpt_prompted=dict(label="GPT (prompted)", prompted=True, **gpt),
        sft=dict(label="SFT", init=dict(path="../sft", selected_by="../select")),
        # The averaged weights are evaluated, as C.4's EMA suggests.
        ppo=dict(label="PPO", init=dict(path="../ppo", part="ema")),
        ppo_ptx=dict(label="PPO-ptx", init=dict(path="../ppo_ptx", part="ema")),
    )
    config.rl_init = dict(path="../rl_init")
    # Who measures the models, and who judges their answers: see evals/interface.py.
    config.evaluators = dict(pretrain_loss=dict(name="pretrain_loss"))
    config.judges = dict(reward=dict(name="reward"))
    if variant in ("smoke", "mini"):  # only the miniature world has this judge
        config.judges = dict(gold=dict(name="gold"), **config.judges)
    config.evaluate = dict(
        baseline="sft",
        reward="../reward",
        comparisons="../label",
        select="../select",
        max_responses=9,
        split="test",  # tune on valid, report test once
        curves=("../pretrain", "../sft", "../reward", "../rl_init", "../ppo")
        + ("../ppo_ptx",),
        num_prompts={"smoke": 32, "mini": 500}.get(variant, 3196),
        batch_size=16 if variant == "smoke" else 100,
        num_samples=12,
        window=96 if variant in ("smoke", "mini") else 0,
    )
    return config
