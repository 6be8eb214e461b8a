"""Adam with the paper's schedules, made from a frozen config."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from instructgpt.errors import UserError
from instructgpt.ranges import NonNegativeInt

Schedule = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam (b1 0.9, b2 0.95 for all of the paper's models, App. C)."""

    learning_rate: float  # peak
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0  # linear, before the peak
    warmup_from: float = 0.0  # first rate as a fraction of the peak
    final_fraction: float = 0.1  # where the cosine ends, as a fraction of the peak
    # Steps that the cosine takes in all; 0: to the end of the run.
    decay_steps: NonNegativeInt = 0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0  # decoupled, on matrices only
    clip_norm: float = 1.0  # global gradient norm; 0: no clipping

    def __post_init__(self):
        if self.schedule not in ("constant", "cosine"):
            raise UserError(
                f"config.optimizer.schedule={self.schedule!r}: use constant or cosine"
            )


def make_schedule(config: OptimizerConfig, num_steps: int) -> Schedule:
    """Learning rate by step: warmup, then constant or cosine to `final_fraction`."""
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
    """Clip by global norm, Adam, decoupled weight decay on matrices, schedule."""
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_matrices))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, num_steps)))
    return optax.chain(*parts)


def _matrices(params: Any) -> Any:
    """True for kernels and embeddings, False for biases and LayerNorm scales."""

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        name = str(getattr(path[-1], "key", path[-1]))
        # Boxed parameters carry one more path element than bare ones.
        if name == "value" and len(path) > 1:
            name = str(getattr(path[-2], "key", path[-2]))
        return name == "kernel" or name.endswith("embedding")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def global_norm(tree: Any) -> jax.Array:
    """L2 norm over all leaves, in float32."""
    squares = [jnp.square(x.astype(jnp.float32)).sum() for x in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros(())))
