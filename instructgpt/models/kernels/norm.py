"""The normalisation of LayerNorm and RMSNorm with a custom backward pass.

JAX's gradient goes through the mean and the variance one after the other, and its
sums of products are slow on a CPU (see `row_dot`).

Letters: D width.
"""

import functools

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Float
from instructgpt.models.kernels.linear import row_dot


def normalize(
    x: Float[Array, "*rows D"], *, center: bool, eps: float
) -> Float[Array, "*rows D"]:
    """`reference.normalize` with a custom backward pass."""
    return _normalize(center, eps, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalize(center: bool, eps: float, x: Array) -> Array:
    return _forward(center, eps, x)[0]


def _forward(center: bool, eps: float, x: Array):
    x = x - x.mean(axis=-1, keepdims=True) if center else x
    variance = jnp.square(x).mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + eps)
    x = x * inverse
    return x, (x, inverse)


def _backward(center: bool, eps: float, saved: tuple[Array, Array], grad_out: Array):
    # The norm undoes a rescaling of the row and a shift of all its numbers, so those
    # two directions are projected out of the gradient.
    x, inverse = saved
    along = row_dot(grad_out, x)[..., None] / x.shape[-1]
    grad_x = grad_out - x * along
    if center:
        grad_x = grad_x - grad_out.mean(axis=-1, keepdims=True)
    return (grad_x * inverse,)


_normalize.defvjp(_forward, _backward)
