"""Adam with the paper's schedules from a frozen config, and float16's loss scale."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from instructgpt.arrays import Params
from instructgpt.ranges import (
    Fraction,
    FractionBelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
)

Schedule = Callable[[Any], Any]

# Float16's first loss scale. A loss is a sum over tokens, so gradients with respect to
# a token's activations do not depend on the batch. At the initial state of GPT-3 125M
# all scales from 2^-4 to 2^10 give float32's gradients to 0.2 %; at 2^11 they overflow,
# and at 2^-7 (2^-10) small ones are lost: 2 % (23 %) of the worst array.
_FIRST_SCALE = 2.0**7
_LEAST_SCALE = 2.0**-7
_GROWTH_INTERVAL = 2000  # number of finite steps in a row that doubles the scale


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam (b1 0.9, b2 0.95 for all of the paper's models, App. C)."""

    learning_rate: NonNegativeFloat  # peak of the schedule
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0  # steps of linear warmup before the peak
    warmup_from: Fraction = 0.0  # first rate as a fraction of the peak
    final_fraction: Fraction = 0.1  # last rate of the cosine, as a fraction of the peak
    # Total number of steps of the cosine; 0: until the end of the run.
    decay_steps: NonNegativeInt = 0
    b1: FractionBelowOne = 0.9
    b2: FractionBelowOne = 0.95
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0  # decoupled, on matrices only
    clip_norm: NonNegativeFloat = 1.0  # global gradient norm; 0: no clipping


def make_schedule(config: OptimizerConfig, num_steps: int) -> Schedule:
    """Learning rate per step: warmup, then constant or cosine to `final_fraction`."""
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        total = config.decay_steps or num_steps
        after = optax.cosine_decay_schedule(
            peak, max(total - warmup, 1), alpha=config.final_fraction
        )
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    ramp = optax.linear_schedule(peak * config.warmup_from, peak, warmup)
    return optax.join_schedules([ramp, after], [warmup])


def make_optimizer(
    config: OptimizerConfig, num_steps: int
) -> optax.GradientTransformation:
    """Builds clipping by global norm, Adam, decoupled weight decay and the schedule."""
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_matrices))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, num_steps)))
    return optax.chain(*parts)


def _matrices(params: Params) -> Any:
    """True for kernels and embeddings, False for biases and LayerNorm scales."""

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        name = str(getattr(path[-1], "key", path[-1]))
        # The path of a boxed parameter has one more element than that of a bare one.
        if name == "value" and len(path) > 1:
            name = str(getattr(path[-2], "key", path[-2]))
        return name == "kernel" or name.endswith("embedding")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def global_norm(tree: Any) -> jax.Array:
    """L2 norm over all leaves, in float32."""
    squares = [jnp.square(x.astype(jnp.float32)).sum() for x in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros(())))


@struct.dataclass
class LossScale:
    """The dynamic factor of a loss that makes its gradients fit float16.

    The paper's models have float16 weights and activations and float32 master weights
    (App. C). A step whose gradients are not finite is skipped and the scale is halved;
    after many finite steps in a row it is doubled (Micikevicius et al. 2018, §3.2).
    """

    scale: jax.Array  # float32[], a power of two
    good_steps: jax.Array  # int32[], finite steps since the scale last changed
    skipped: jax.Array  # int32[], skipped steps of the whole run

    @classmethod
    def fresh(cls) -> "LossScale":
        """The loss scale at the start of a run."""
        counts = (jnp.zeros((), jnp.int32) for _ in range(2))
        return cls(jnp.float32(_FIRST_SCALE), *counts)

    @property
    def exhausted(self) -> jax.Array:
        """bool[]: the scale can be halved no further, so overflow is now an error."""
        return self.scale <= _LEAST_SCALE

    def after(self, finite: jax.Array) -> "LossScale":
        """The loss scale after a step whose gradients were finite or not, bool[]."""
        good = self.good_steps + 1
        grows = finite & (good >= _GROWTH_INTERVAL)
        less = jnp.maximum(0.5 * self.scale, _LEAST_SCALE)
        more = jnp.where(grows, 2.0 * self.scale, self.scale)
        return LossScale(
            scale=jnp.where(finite, more, less),
            good_steps=jnp.where(finite & ~grows, good, 0),
            skipped=self.skipped + (~finite).astype(jnp.int32),
        )
