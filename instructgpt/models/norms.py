"""LayerNorm and RMSNorm, with a backward pass of their own.

Letters: D width.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.models.config import ModelConfig
from instructgpt.models.products import row_dot

Array = jax.Array


class Norm(nn.Module):
    """LayerNorm or RMSNorm, in float32 whatever the compute dtype."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises [..., D]; returns the compute dtype."""
        width, lead = x.shape[-1], (1,) * (x.ndim - 1)
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        axes = ("norm",)
        centered = self.config.norm == "layer_norm"
        scale = self.param("scale", nn.with_logical_partitioning(ones, axes), (width,))
        x = normalized(centered, self.config.norm_eps, x.astype(jnp.float32))
        x = x * scale.reshape(*lead, width)
        if centered:
            boxed = nn.with_logical_partitioning(zeros, axes)
            x = x + self.param("bias", boxed, (width,)).reshape(*lead, width)
        return x.astype(self.config.compute_dtype)


# JAX's own backward pass goes through the mean and the variance one after the other,
# with sums of products that a CPU is slow at (see `row_dot`).
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def normalized(centered: bool, eps: float, x: Array) -> Array:
    """Rows of mean square 1, and of mean 0 if they are centered.

    Args:
      centered: Whether the mean is taken off first.
      eps: Added to the variance.
      x: float32[..., D].
    """
    return _forward(centered, eps, x)[0]


def _forward(centered: bool, eps: float, x: Array):
    x = x - x.mean(axis=-1, keepdims=True) if centered else x
    variance = jnp.square(x).mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + eps)
    x = x * inverse
    return x, (x, inverse)


def _backward(centered: bool, eps: float, saved: tuple[Array, Array], slope: Array):
    # A change along the row only scales it, and one of all its numbers only shifts it:
    # the norm takes both back.
    x, inverse = saved
    along = row_dot(slope, x)[..., None] / x.shape[-1]
    out = slope - x * along
    if centered:
        out = out - slope.mean(axis=-1, keepdims=True)
    return (out * inverse,)


normalized.defvjp(_forward, _backward)
