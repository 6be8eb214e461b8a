"""Sweeps: one stage once for each value of a key, from a finished recipe (App. E).

    python -m instructgpt.main --config=configs/sweep.py:beta \
        --workdir=runs/mini/sweeps/beta

    python -m instructgpt.main --config=configs/sweep.py \
        --workdir=runs/mini/sweeps/mine \
        --config.sweep.stage=ppo_ptx --config.sweep.key=ppo.clip \
        --config.sweep.grid=0.1,0.2,0.4

A variant is a sweep and, after an underscore, a size, by default `mini`: `beta_smoke`,
`gamma_1.3b`. `own`, the default, names nothing, see the second command. A sweep ends in
a table, `results.json`, `sweep.png` and `report.html`, from answers to validation
prompts; all else is in instructgpt/stages/sweep_values.py and sweep_models.py.

| sweep | paper | what it varies |
|---|---|---|
| gamma | Fig. 33 | the pretraining coefficient of PPO-ptx |
| beta | Figs 34, 36 | the KL coefficient, from 0; --config.sweep.stage=ppo is Fig. 34 |
| episodes | Fig. 35 | the length of PPO-ptx |
| rate | Fig. 38 | the policy's learning rate |
| size | Fig. 1 | the policy, from pretraining on, with one RM for all sizes |
| p3 | Fig. 13 | demonstrations of SFT, each seen once |

In Fig. 34 the KL is measured against GPT, not RL's initial policy:
`--config.stages.ppo.reference_init.path=RECIPE/pretrain` and
`--config.measure.reference=pretrain` do that.

Cost: `mini` is as many runs of a stage as it has values; the stage's part of the
recipe's 16 minutes is in configs/recipe.py.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs import common, recipe
from instructgpt.stages.blocks import filled
from instructgpt.stages.sweep_models import MeasureConfig
from instructgpt.stages.sweep_values import SweepConfig


class _Values(NamedTuple):
    """A sweep's values at two scales: the miniature world's and the paper's."""

    settings: dict[str, str]
    mini: str
    paper: str


# 10^(1+2k/9) for k = -6, -3, 0, 2 and 5, of those in Fig. 33. The limit of the gradient
# grows with gamma, see configs/ppo_ptx.py.
_GAMMAS = "0.464/1,2.15/2.15,10/10,27.8/27.8,129/129"
_SIZE_KEYS = "model.num_layers,model.width,model.num_heads"

SWEEPS: dict[str, _Values] = {
    "own": _Values({}, "", ""),
    "gamma": _Values(
        dict(
            stage="ppo_ptx",
            key="ppo.ptx_coef,policy_optimizer.clip_norm",
            axis="pretraining coefficient γ / clip of the gradient",
        ),
        "0.03/1,0.1/1,0.3/1,1/1,3/3,10/10",
        _GAMMAS,
    ),
    "beta": _Values(
        dict(stage="ppo_ptx", key="ppo.kl_coef", axis="KL coefficient β"),
        "0,0.003,0.02,0.1,0.2,0.5,2",
        "0,7.4e-4,0.0104,0.02,0.03,0.145,2",
    ),
    "episodes": _Values(
        dict(stage="ppo_ptx", key="train.num_steps", axis="iterations of PPO-ptx"),
        "30,60,120,240",
        "125,250,500,1000",  # of 512 episodes: to 512k
    ),
    "rate": _Values(
        dict(
            stage="ppo_ptx",
            key="policy_optimizer.learning_rate",
            axis="learning rate of the policy",
        ),
        "1e-4,2e-4,5e-4,1e-3,2e-3,5e-3",
        "2.55e-6,3.74e-6,5.49e-6,8.05e-6,1.18e-5,1.73e-5,2.55e-5",
    ),
    "size": _Values(
        dict(
            stage="pretrain,sft,rl_init,ppo_ptx",
            key=",".join(f"pretrain.{key}" for key in _SIZE_KEYS.split(",")),
            measured="sft,ppo_ptx",
            axis="layers / width / heads",
        ),
        "1/64/1,2/96/2,3/128/2",
        "24/2048/16,32/4096/32,96/12288/96",
    ),
    "p3": _Values(
        dict(
            stage="sft", key="sft.num_demonstrations", axis="demonstrations, each once"
        ),
        "300,600,1200,2400,4800",
        "50000,100000,200000,400000,896000",
    ),
}
# Shorter lists for tests of seconds.
_SMOKE = {
    "gamma": "0.1/1,1/1",
    "beta": "0,0.2",
    "episodes": "1,2",
    "rate": "1e-4,1e-3",
    "size": "1/16/2,2/32/4",
    "p3": "32,64",
}


def get_config(variant: str = "own") -> ConfigDict:
    name, _, size = variant.partition("_")
    if name not in SWEEPS:
        raise ValueError(
            f"variant {variant!r} does not exist; give a sweep, {tuple(SWEEPS)}, and "
            f"after an underscore a size, one of {common.VARIANTS}"
        )
    size = size or "mini"
    config = recipe.get_config(size)
    config.stage, config.name = "sweep", f"sweep:{variant}"
    found = SWEEPS[name]
    config.sweep = filled(SweepConfig, **found.settings)
    config.sweep.grid = found.mini if size == "mini" else found.paper
    # Sampled answers to validation prompts; test prompts are for one last report.
    config.measure = filled(MeasureConfig)
    if size in ("smoke", "mini"):
        config.measure.window = 96
    if size == "smoke":
        config.sweep.grid = _SMOKE.get(name, "")
        config.measure.batch_size = 16
    if name == "p3":  # without repeats, as the paper's baselines were trained (C.5)
        config.stages.sft.train.num_epochs = 1
    return config
