"""The whole recipe in one run: every stage in its own folder of the workdir.

    python -m instructgpt.main --config=configs/recipe.py:mini --workdir=runs/mini

Change a stage's key with --config.stages.STAGE.block.key=value; the seeds are shared:
--config.seed is that of training and sampling, --config.world_seed draws another world.

The paper's policies of 1.3B and 175B have its 6B reward model: their recipes train none
and ask for the workdir of one, --config.reward_model=WORKDIR.
"""

from ml_collections import ConfigDict

from configs import (
    common,
    evaluate,
    label,
    ppo,
    ppo_ptx,
    pretrain,
    reward,
    rl_init,
    select,
    sft,
)

_STAGES = dict(
    pretrain=pretrain,
    sft=sft,
    rl_init=rl_init,
    label=label,
    reward=reward,
    select=select,
    ppo=ppo,
    ppo_ptx=ppo_ptx,
    evaluate=evaluate,
)


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    stages = {name: module.get_config(variant) for name, module in _STAGES.items()}
    # On a CPU these two run at once, each on its own cores.
    together = ("ppo", "ppo_ptx") if variant == "mini" else ()
    order = tuple(_STAGES)
    if variant in ("1.3b", "175b"):
        order = tuple(name for name in order if name not in ("label", "reward"))
    if variant in common.PUBLIC:
        # The model is imported and people have ranked; only the world has a judge.
        order = ("sft", "rl_init", "reward", "select", "ppo_ptx")
    return ConfigDict(
        dict(
            stage="recipe",
            seed=0,
            world_seed=0,
            # A finished reward stage's workdir, for the reward, the choice of the SFT
            # epoch and the start of the value net; "" trains one.
            reward_model="",
            order=order,
            together=together,
            stages=stages,
        )
    )
