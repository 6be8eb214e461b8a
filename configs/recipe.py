"""The whole recipe in one run: every stage in its own folder of the workdir.

    python -m instructgpt.main --config=configs/recipe.py:mini --workdir=runs/mini

Change a stage's key with --config.stages.STAGE.block.key=value. The keys of `data`,
`model` and `mesh` can be given for all stages at once: --config.data.jsonl=FOLDER,
--config.model.num_layers=6, --config.mesh.fsdp=8. The seeds are shared: --config.seed
is that of training and sampling, --config.world_seed draws another world.

The paper's policies of 1.3B and 175B have its 6B reward model: their recipes train none
and ask for the workdir of one, --config.reward_model=WORKDIR.

`mini+flan` also trains the FLAN/T0-like baseline of configs/flan.py, chooses its
checkpoint by RM score, and compares it with the other models; so do other variants.

Cost: `mini` took 16 minutes on 2 CPU cores (Intel Xeon, other work beside; commit
5cf0571, 2026-11-30) and reaches the table of README.md. On slow ones it took 36,
`small` 20 and `smollm2_cpu` 23 (launch/README.md). The paper's sizes have been planned,
not run (instructgpt/plan/README.md).
"""

from ml_collections import ConfigDict

from configs import (
    common,
    evaluate,
    flan,
    label,
    ppo,
    ppo_ptx,
    prefix,
    pretrain,
    reward,
    rl_init,
    select,
    sft,
)
from instructgpt.data.datasets import DataConfig
from instructgpt.models.config import ModelConfig
from instructgpt.sharding import MeshConfig
from instructgpt.stages.blocks import filled

_STAGES = dict(
    pretrain=pretrain,
    sft=sft,
    rl_init=rl_init,
    label=label,
    reward=reward,
    select=select,
    ppo=ppo,
    ppo_ptx=ppo_ptx,
    prefix=prefix,
    evaluate=evaluate,
)


# On a CPU these two stages run at the same time, each on its own cores.
_TOGETHER = {"mini": ("ppo", "ppo_ptx")}

_ALL = tuple(_STAGES)
# Only the miniature world has prefixes of its own to choose among.
_PAPER = tuple(name for name in _ALL if name != "prefix")
_WITH_A_GIVEN_REWARD_MODEL = tuple(n for n in _PAPER if n not in ("label", "reward"))
# The model is imported and the rankings are people's, in the data's folder.
_IMPORTED = ("sft", "rl_init", "reward", "select", "ppo_ptx")
_ORDER = {
    "6b": _PAPER,
    "1.3b": _WITH_A_GIVEN_REWARD_MODEL,
    "175b": _WITH_A_GIVEN_REWARD_MODEL,
    "gpt2": _IMPORTED,
    "pythia-1b": _IMPORTED,
    "smollm2": _IMPORTED,
    "smollm2_cpu": ("sft", "rl_init", "reward", "ppo_ptx"),
    "small": ("pretrain", *_IMPORTED),
}
# Minutes of the stages where they were measured, which are printed before each.
_MINUTES: dict[str, dict[str, float]] = {
    "mini": dict(
        pretrain=3.2,
        sft=1.8,
        rl_init=0.6,
        label=1.5,
        reward=3.7,
        select=0.2,
        ppo=1.6,
        ppo_ptx=1.6,
        prefix=0.3,
        evaluate=0.9,
    ),
}
_MINUTES_ON = "2 cores of an Intel Xeon (commit 5cf0571, 2026-11-30)"


def get_config(variant: str = "mini") -> ConfigDict:
    name = f"recipe:{variant}"
    variant, *added = variant.split("+")
    common.check(variant)
    if added not in ([], ["flan"]):
        raise ValueError(f"{name}: {'+'.join(added)!r} cannot be added; known: 'flan'")
    config = ConfigDict(dict(stage="recipe", name=name, seed=0, world_seed=0))
    # A finished reward stage's workdir, for the reward, the choice of the SFT epoch and
    # the start of the value net; "" trains one.
    config.reward_model = ""
    # What is set here holds for every stage that has the key.
    config.data = filled(DataConfig, partial=True)
    config.model = filled(ModelConfig, partial=True)
    config.mesh = filled(MeshConfig, partial=True)
    # Where all stages show their metrics: tensorboard, wandb, module:Class, or several
    # of them, separated by commas.
    config.trackers = "tensorboard"
    config.minutes = _MINUTES.get(variant, {})
    config.minutes_on = _MINUTES_ON
    # Names of `config.stages`, which may also hold your own: see configs/README.md.
    config.order = _ORDER.get(variant, _ALL)
    config.together = _TOGETHER.get(variant, ())
    config.stages = {
        name: module.get_config(variant) for name, module in _STAGES.items()
    }
    if added:
        flan.add_to(config, variant)
    return config
