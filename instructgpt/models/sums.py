"""Sums over rows and over columns, in the form that each backend does fast.

XLA for CPUs sums rows several times slower than it multiplies them by ones, and lays
out anew the left operand of a product over first axes; other backends do neither.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def row_sum(x: Array) -> Array:
    """float32[..., D] -> [..., 1], the sums; not to be differentiated by itself."""

    def plain(x: Array) -> Array:
        return x.sum(axis=-1, keepdims=True)

    def product(x: Array) -> Array:
        return jnp.einsum("...d,de->...e", x, jnp.ones((x.shape[-1], 1), x.dtype))

    return jax.lax.platform_dependent(x, cpu=product, default=plain)


def summed_outer(x: Array, y: Array, *, dtype: Any) -> Array:
    """Sum over rows of x_i y_j, as gradients of kernels are.

    A CPU lays the left operand's rows side by side before it multiplies, so the narrow
    one stands there, and the (small) product is transposed.

    Args:
      x: [N, in...].
      y: [N, out...].
      dtype: Of the sum.

    Returns:
      [in..., out...].
    """

    def straight(x: Array, y: Array) -> Array:
        return jax.lax.dot_general(
            x, y, (((0,), (0,)), ((), ())), preferred_element_type=dtype
        )

    def turned(x: Array, y: Array) -> Array:
        # Else XLA sees a transposed product and turns it back.
        product = jax.lax.optimization_barrier(straight(y, x))
        first = y.ndim - 1
        axes = *range(first, product.ndim), *range(first)
        return product.transpose(axes)

    if math.prod(x.shape[1:]) <= math.prod(y.shape[1:]):
        return straight(x, y)
    return jax.lax.platform_dependent(x, y, cpu=turned, default=straight)
