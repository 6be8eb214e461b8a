"""Products of activations with weights: what they multiply in, and their gradients."""

import functools
from pathlib import Path

import jax
from jax.ad_checkpoint import checkpoint_name

from instructgpt.models.config import ModelConfig
from instructgpt.models.sums import summed_outer

Array = jax.Array
PRODUCT = "product"  # names what remat policies keep that keep products
_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_bfloat16_units(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the CPU multiplies matrices of bfloat16 in units of their own (AMX)."""
    try:
        return "amx_bf16" in cpu_info.read_text().split()
    except OSError:
        return False  # not Linux


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
      kernel: [in..., out...] in the compute dtype.
      contract: How many axes `in` is.
      dtype: What both are rounded to before they are multiplied, in the product and in
        the gradient by x. Sums are in the compute dtype.

    Returns:
      [N..., out...] in the compute dtype.
    """
    return checkpoint_name(_product(x, kernel, contract, dtype), PRODUCT)


# Its own backward pass: JAX's gradient of the kernel is the product the other way
# round, [out..., in...], and a transpose after it, which is slow on a CPU.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x: Array, kernel: Array, contract: int, dtype: str) -> Array:
    lead = x.ndim - contract
    dims = tuple(range(lead, x.ndim)), tuple(range(contract))
    return _multiplied(x, kernel, dims, dtype)


def _forward(x: Array, kernel: Array, contract: int, dtype: str):
    return _product(x, kernel, contract, dtype), (x, kernel)


def _backward(contract: int, dtype: str, saved: tuple[Array, Array], slope: Array):
    x, kernel = saved
    lead = x.ndim - contract
    dims = tuple(range(lead, slope.ndim)), tuple(range(contract, kernel.ndim))
    by_x = _multiplied(slope, kernel, dims, dtype)
    # Not rounded: a CPU's units want the rows of what they multiply side by side, and
    # to lay x out so takes as long as they save.
    x, slope = (y.reshape(-1, *y.shape[lead:]) for y in (x, slope))
    return by_x, summed_outer(x, slope, dtype=x.dtype)


_product.defvjp(_forward, _backward)


def _multiplied(x: Array, y: Array, dims, dtype) -> Array:
    """The product of rounded operands, summed in the dtype that x comes in."""
    rounded = x.astype(dtype), y.astype(dtype)
    return jax.lax.dot_general(
        *rounded, (dims, ((), ())), preferred_element_type=x.dtype
    )
