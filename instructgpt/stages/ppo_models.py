"""PPO's models: the policy, the value net, the KL reference and the reward.

The policy starts from `init`; the KL reference is the same model unless
`reference_init` names another. The reward is a reward model, `reward_init`, or a Python
function, `reward_function`, or both. The value net starts from the reward model (paper
C.4) unless `value_init` names another model. Without either it starts from the policy's
trunk with a new head.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from instructgpt.errors import UserError, about
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.rewards import (
    Decoder,
    RewardFn,
    find_function,
    make_host_reward,
    weighted_sum,
)
from instructgpt.stages import common, loading
from instructgpt.stages.blocks import block_of, overrides
from instructgpt.state import cast, scalar_params_from
from instructgpt.trained import Loaded

# Whether the checkpoint of a config block is a scalar model; None: either kind.
_SCALAR = {"reward_init": True, "value_init": None}


@dataclasses.dataclass(frozen=True)
class RewardFunctionConfig:
    """A reward by a Python function, alone or added to a reward model's score."""

    # A function of (records, responses) as module:name, see rewards.HostFunction; "":
    # only the reward model is used.
    name: str = ""
    weight: float = 1.0  # weight of the function's score
    # Weight of the reward model's score; with a function and 0, none is read. None: 1
    # without a function, 0 with one.
    model_weight: float | None = None

    def __post_init__(self):
        if not self.weight_of_model and not (self.name and self.weight):
            raise UserError(
                f"config.reward_function: name={self.name!r}, weight={self.weight} and "
                f"model_weight={self.model_weight} leave no reward; give one of the "
                "two a weight other than 0"
            )

    @property
    def weight_of_model(self) -> float:
        """The factor of the reward model's score."""
        if self.model_weight is None:
            return 0.0 if self.name else 1.0
        return self.model_weight

    @property
    def reads_model(self) -> bool:
        """Whether a reward model is read."""
        return not self.name or self.weight_of_model != 0.0


class Models(NamedTuple):
    """The models of an iteration, each with its own parameters."""

    policy: Loaded
    value: Loaded
    reference: Loaded  # frozen, in the compute dtype
    reward: Loaded | None  # the same; None: the reward is only a function

    @property
    def nets(self) -> "Nets":
        """The models' modules."""
        reward = None if self.reward is None else self.reward.model
        return Nets(self.policy.model, self.value.model, self.reference.model, reward)


class Nets(NamedTuple):
    """The modules of an iteration's models."""

    policy: Transformer
    value: ScalarModel
    reference: Transformer
    reward: ScalarModel | None  # None: the reward is only a function


def find_models(context: common.Context, config: ConfigDict) -> ModelConfig:
    """Checks everything that is loaded later, and returns the policy's config.

    Raises:
      UserError: a checkpoint or the reward function is missing or does not fit.
    """
    function = block_of(config, "reward_function", RewardFunctionConfig)
    if function.name:
        find_function(function.name)
    changed = overrides(config.model)
    found = {}
    for key, init in _inits(config).items():
        with about(f"config.{key}"):
            found[key] = loading.find(
                init, context, scalar=_SCALAR.get(key, False), overrides=changed
            )
    return found["init"]


def load_models(context: common.Context, config: ConfigDict) -> Models:
    """Loads the models; must be called under `jax.set_mesh`."""
    changed, inits = overrides(config.model), _inits(config)

    def load(key: str) -> Loaded:
        scalar = _SCALAR.get(key, False)
        return loading.load(inits[key], context, scalar=scalar, overrides=changed)

    policy = load("init")
    reference = load("reference_init") if "reference_init" in inits else policy
    reward = load("reward_init") if "reward_init" in inits else None
    # Frozen models are copies, because policy and value net take over loaded weights.
    frozen = _frozen(reference), None if reward is None else _frozen(reward)
    if "value_init" in inits:
        value = load("value_init")
        if not isinstance(value.model, ScalarModel):
            value = _with_fresh_head(context, value, value.params)
    elif reward is not None:
        value = reward
    else:
        trunk = jax.tree.map(jnp.copy, policy.params)
        value = _with_fresh_head(context, policy, trunk)
    return Models(policy, value, *frozen)


def _inits(config: ConfigDict) -> dict[str, loading.InitConfig]:
    """The checkpoints that are read, by the name of their config block."""
    function = block_of(config, "reward_function", RewardFunctionConfig)
    inits: dict[str, loading.InitConfig] = {
        "init": block_of(config, "init", loading.InitConfig)
    }
    if function.reads_model:
        inits["reward_init"] = block_of(config, "reward_init", loading.InitConfig)
    for key in ("value_init", "reference_init"):
        init = block_of(config, key, loading.OptionalInitConfig)
        if init.path:
            inits[key] = init
    return inits


def _frozen(loaded: Loaded) -> Loaded:
    dtype = loaded.model.config.compute_dtype
    return loaded._replace(params=cast(loaded.params, dtype))


def _with_fresh_head(context: common.Context, loaded: Loaded, trunk: Any) -> Loaded:
    """A scalar model from a language model's trunk and a new small head."""
    model = ScalarModel(loaded.model.config)
    params = scalar_params_from(trunk, model, context.key, context.mesh)
    return loaded._replace(model=model, params=params)


def make_reward(
    context: common.Context, config: ConfigDict, models: Models, scorer: Any
) -> RewardFn:
    """Builds the reward that PPO maximises.

    Args:
      context: The opened stage.
      config: The stage's config.
      models: The result of `load_models`.
      scorer: The result of `make_reward_scorer`; None without a reward model.
    """
    function = block_of(config, "reward_function", RewardFunctionConfig)
    parts: list[tuple[float, RewardFn]] = []
    if models.reward is not None:
        params = models.reward.params

        def by_model(prompts: Any, samples: Any) -> Any:
            return scorer(params, prompts, samples)

        parts.append((function.weight_of_model, by_model))
    if function.name:
        decoder = Decoder(
            context.data.source("prompts", "train"),
            context.data.prompt_format.response_text,
            context.mesh,
        )
        own = make_host_reward(
            find_function(function.name), decoder, name=function.name
        )
        parts.append((function.weight, own))
    return weighted_sum(parts)
