"""Activations times weights, with gradients of the weights as float32 sums.

The arguments are float32 master weights, which are rounded here. Their gradients are
sums over all tokens and are therefore float32 from the start: in float16 they would
overflow beyond 65,504, and in bfloat16 they would keep 8 bits.

Letters: B batch, K responses per prompt, T tokens, D width, H heads, C channels a head,
N rows.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from instructgpt.arrays import Array, Float
from instructgpt.models.kernels.interface import platform
from instructgpt.models.remat import KEPT
from instructgpt.models.structures import Weights, unsqueezed_to
from instructgpt.sharding import constrain


def linear(
    equation: str, x: Float[Array, "..."], weights: Weights, *, dtype: str
) -> Float[Array, "..."]:
    """`reference.linear` whose weight gradients are summed in the weights' dtype."""
    letters, kernel_letters = equation.split("->")[0].split(",")
    contract = len(set(letters) & set(kernel_letters))
    if letters[-contract:] != kernel_letters[:contract]:
        raise ValueError(
            f"{equation}: x must end in the letters that the kernel begins"
        )
    y = matmul(x, weights.kernel, contract=contract, dtype=dtype)
    return y if weights.bias is None else add_bias(y, weights.bias)


def project_heads(
    x: Float[Array, "B K T D"], weights: Sequence[Weights], *, dtype: str
) -> tuple[Float[Array, "B K T _ C"], ...]:
    """`reference.project_heads`, as one product where all weights have the same shape.

    With one token a row the weights stay apart: stacking would cost more than it saves.
    """
    alike = len({each.kernel.shape for each in weights}) == 1
    if len(weights) == 1 or not alike or x.shape[2] == 1:
        return tuple(
            linear("BKTD,DHC->BKTHC", x, each, dtype=dtype) for each in weights
        )
    kernels, biases = zip(*weights, strict=True)
    # Stacked along a new axis, so that the heads may be sharded over devices.
    bias = None if biases[0] is None else jnp.stack(biases)
    stacked = Weights(jnp.stack(kernels, axis=1), bias)
    y = linear("BKTD,DnHC->BKTnHC", x, stacked, dtype=dtype)
    y = constrain(y, "batch", None, None, None, "heads", None)
    # The gradient of a split is a concatenation, not a sum of padded parts.
    parts = jax.lax.split(y, (1,) * len(weights), axis=3)
    return tuple(part.squeeze(3) for part in parts)


def matmul(x: Array, kernel: Array, *, contract: int, dtype: str) -> Array:
    """x . kernel, summed over the last `contract` axes of x and the kernel's first.

    Args:
      x: [N..., in...] in the compute dtype.
      kernel: float32[in..., out...], or a copy in the compute dtype; its gradient is
        summed in the kernel's own dtype.
      contract: Number of `in` axes.
      dtype: The dtype that operands are rounded to before they are multiplied, in the
        product and in the gradient of x. Sums are in the compute dtype.

    Returns:
      [N..., out...] in the compute dtype.
    """
    y = _matmul(x, kernel, contract, dtype, kernel.dtype.name)
    return checkpoint_name(y, KEPT)


# The gradient is custom because JAX computes the kernel's gradient as [out..., in...]
# and then transposes it, which is slow on a CPU.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _matmul(x: Array, kernel: Array, contract: int, dtype: str, sums: str) -> Array:
    lead = x.ndim - contract
    axes = tuple(range(lead, x.ndim)), tuple(range(contract))
    return _rounded_matmul(x, kernel.astype(x.dtype), axes, dtype)


def _forward(x: Array, kernel: Array, contract: int, dtype: str, sums: str):
    kernel = kernel.astype(x.dtype)
    return _matmul(x, kernel, contract, dtype, sums), (x, kernel)


def _backward(
    contract: int, dtype: str, sums: str, saved: tuple[Array, Array], grad_out: Array
):
    x, kernel = saved
    lead = x.ndim - contract
    axes = tuple(range(lead, grad_out.ndim)), tuple(range(contract, kernel.ndim))
    grad_x = _rounded_matmul(grad_out, kernel, axes, dtype)
    # These operands are not rounded: a CPU needs pairs of bfloat16 rows side by side,
    # and bringing x into that layout takes as long as the product would save.
    x, grad_out = (y.reshape(-1, *y.shape[lead:]) for y in (x, grad_out))
    return grad_x, summed_outer(x, grad_out, dtype=sums)


_matmul.defvjp(_forward, _backward)


def _rounded_matmul(x: Array, y: Array, axes: Any, dtype: str) -> Array:
    """The product of rounded operands, summed in the dtype of the argument x."""
    return jax.lax.dot_general(
        x.astype(dtype),
        y.astype(dtype),
        (axes, ((), ())),
        preferred_element_type=x.dtype,
    )


def add_bias(y: Array, bias: Array) -> Array:
    """The sum y + bias, whose bias gradient is summed in the bias's dtype.

    Args:
      y: [N..., out...] in the compute dtype.
      bias: float32[out...], or a copy in the compute dtype.

    Returns:
      [N..., out...] in the compute dtype.
    """
    if bias.dtype == y.dtype:
        return y + unsqueezed_to(bias, y.ndim)
    return _add_master(y, bias, y.ndim - bias.ndim)


# The gradient is custom because JAX sums the tokens' gradients in the dtype of y.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _add_master(y: Array, bias: Array, lead: int) -> Array:
    return y + unsqueezed_to(bias.astype(y.dtype), y.ndim)


def _add_forward(y: Array, bias: Array, lead: int) -> tuple[Array, None]:
    return _add_master(y, bias, lead), None


def _add_backward(lead: int, saved: None, grad_out: Array) -> tuple[Array, Array]:
    return grad_out, grad_out.sum(axis=tuple(range(lead)), dtype=jnp.float32)


_add_master.defvjp(_add_forward, _add_backward)


def summed_outer(x: Array, y: Array, *, dtype: Any) -> Array:
    """Sum over rows of x_i y_j, which is the form of a kernel's gradient.

    A CPU rearranges the left operand before it multiplies, so the narrower operand is
    put on the left and the (small) product is transposed if necessary.

    Args:
      x: [N, in...].
      y: [N, out...].
      dtype: The dtype of the sum.

    Returns:
      [in..., out...].
    """

    def straight(x: Array, y: Array) -> Array:
        return jax.lax.dot_general(
            x, y, (((0,), (0,)), ((), ())), preferred_element_type=dtype
        )

    def widened(x: Array, y: Array) -> Array:
        # XLA on CPUs cannot sum bfloat16 products in float32 for every shape.
        return straight(x.astype(dtype), y.astype(dtype))

    def turned(x: Array, y: Array) -> Array:
        # Without the barrier XLA would transpose the product back.
        product = jax.lax.optimization_barrier(widened(y, x))
        first = y.ndim - 1
        axes = *range(first, product.ndim), *range(first)
        return product.transpose(axes)

    if platform() != "cpu":
        return straight(x, y)
    narrow_first = math.prod(x.shape[1:]) <= math.prod(y.shape[1:])
    return widened(x, y) if narrow_first else turned(x, y)


def row_dot(x: Array, y: Array) -> Array:
    """The dot product of each row of x with the same row of y.

    On a CPU it is written as a batch of matrix products, one a row: XLA's reduction of
    elementwise products takes many times as long there.

    Args:
      x: float32[..., D].
      y: float32[..., D].

    Returns:
      float32[...].
    """
    if platform() != "cpu":
        return (x * y).sum(axis=-1)
    rows, last = tuple(range(x.ndim - 1)), (x.ndim - 1,)
    return jax.lax.dot_general(x, y, ((last, last), (rows, rows)))
