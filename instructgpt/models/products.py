"""Products of activations with weights: what they multiply in, and their gradients.

Weights come in as float32 masters and are cast here, so that the gradients of masters,
which are sums over all tokens, are float32 from the start: in float16 they would
overflow beyond 65,504, and in bfloat16 they would keep 8 bits.
"""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from instructgpt.models.config import ModelConfig

Array = jax.Array
PRODUCT = "product"  # names what remat policies keep that keep products
_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_bfloat16_units(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the CPU multiplies bfloat16 faster: has AMX, or AVX-512's products."""
    try:
        flags = cpu_info.read_text().split()
    except OSError:
        return False  # not Linux
    return "amx_bf16" in flags or "avx512_bf16" in flags


def product_dtype(config: ModelConfig) -> str:
    """The dtype that a model's products multiply in on this machine."""
    wanted = config.product_dtype
    if wanted == "auto":
        units = jax.default_backend() == "cpu" and has_bfloat16_units()
        wanted = "bfloat16" if units else "compute"
    rounded = wanted == "bfloat16" and config.compute_dtype == "float32"
    return "bfloat16" if rounded else config.compute_dtype


def product(x: Array, kernel: Array, *, contract: int, dtype: str) -> Array:
    """x . kernel over the last `contract` axes of x and the first of the kernel.

    Args:
      x: [N..., in...] in the compute dtype.
      kernel: float32[in..., out...], or a copy in the compute dtype; its gradient is a
        sum in the dtype that it has here.
      contract: How many axes `in` is.
      dtype: What both are rounded to before they are multiplied, in the product and in
        the gradient by x. Sums are in the compute dtype.

    Returns:
      [N..., out...] in the compute dtype.
    """
    y = _product(x, kernel, contract, dtype, kernel.dtype.name)
    return checkpoint_name(y, PRODUCT)


# Its own backward pass: JAX's gradient of the kernel is the product the other way
# round, [out..., in...], and a transpose after it, which is slow on a CPU.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(x: Array, kernel: Array, contract: int, dtype: str, sums: str) -> Array:
    lead = x.ndim - contract
    dims = tuple(range(lead, x.ndim)), tuple(range(contract))
    return _multiplied(x, kernel.astype(x.dtype), dims, dtype)


def _forward(x: Array, kernel: Array, contract: int, dtype: str, sums: str):
    kernel = kernel.astype(x.dtype)
    return _product(x, kernel, contract, dtype, sums), (x, kernel)


def _backward(
    contract: int, dtype: str, sums: str, saved: tuple[Array, Array], slope: Array
):
    x, kernel = saved
    lead = x.ndim - contract
    dims = tuple(range(lead, slope.ndim)), tuple(range(contract, kernel.ndim))
    by_x = _multiplied(slope, kernel, dims, dtype)
    # Not rounded: a CPU wants pairs of rows of bfloat16 side by side, and to lay x out
    # so takes as long as is saved.
    x, slope = (y.reshape(-1, *y.shape[lead:]) for y in (x, slope))
    return by_x, summed_outer(x, slope, dtype=sums)


_product.defvjp(_forward, _backward)


def add_bias(y: Array, bias: Array) -> Array:
    """y + bias.

    Args:
      y: [N..., out...] in the compute dtype.
      bias: float32[out...], or a copy in the compute dtype; its gradient is a sum in
        the dtype that it has here.

    Returns:
      [N..., out...] in the compute dtype.
    """
    lead = y.ndim - bias.ndim
    if bias.dtype == y.dtype:
        return y + bias.reshape((1,) * lead + bias.shape)
    return _add_master(y, bias, lead)


# JAX's own backward pass adds up the tokens' gradients in the dtype of y.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _add_master(y: Array, bias: Array, lead: int) -> Array:
    return y + bias.astype(y.dtype).reshape((1,) * lead + bias.shape)


def _add_forward(y: Array, bias: Array, lead: int) -> tuple[Array, None]:
    return _add_master(y, bias, lead), None


def _add_backward(lead: int, saved: None, slope: Array) -> tuple[Array, Array]:
    return slope, slope.sum(axis=tuple(range(lead)), dtype=jnp.float32)


_add_master.defvjp(_add_forward, _add_backward)


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

    def widened(x: Array, y: Array) -> Array:
        # XLA for CPUs has no product of bfloat16 summed in float32 for every shape.
        return straight(x.astype(dtype), y.astype(dtype))

    def turned(x: Array, y: Array) -> Array:
        # Else XLA sees a transposed product and turns it back.
        product = jax.lax.optimization_barrier(widened(y, x))
        first = y.ndim - 1
        axes = *range(first, product.ndim), *range(first)
        return product.transpose(axes)

    narrow_first = math.prod(x.shape[1:]) <= math.prod(y.shape[1:])
    on_cpu = widened if narrow_first else turned
    return jax.lax.platform_dependent(x, y, cpu=on_cpu, default=straight)


def row_dot(x: Array, y: Array) -> Array:
    """Sum over the last axis of x y.

    For a CPU as a product of matrices, one of each row: XLA's code there for a sum of
    products takes many times as long.

    Args:
      x: float32[..., D].
      y: Of the same shape.

    Returns:
      float32[...].
    """

    def product(x: Array, y: Array) -> Array:
        rows = tuple(range(x.ndim - 1))
        last = (x.ndim - 1,)
        return jax.lax.dot_general(x, y, ((last, last), (rows, rows)))

    def summed(x: Array, y: Array) -> Array:
        return (x * y).sum(axis=-1)

    return jax.lax.platform_dependent(x, y, cpu=product, default=summed)


def _multiplied(x: Array, y: Array, dims, dtype) -> Array:
    """The product of rounded operands, summed in the dtype that x comes in."""
    rounded = x.astype(dtype), y.astype(dtype)
    return jax.lax.dot_general(
        *rounded, (dims, ((), ())), preferred_element_type=x.dtype
    )
