"""Attention of whole texts to themselves in cuDNN's kernel, which stores no scores.

Letters: B batch, K responses that share a prompt (1 for plain text), T tokens, H heads,
G heads of keys and values, C channels a head.
"""

import jax

from instructgpt.arrays import Array, Bool, Float
from instructgpt.models.kernels.interface import platform


def fits(query: Float[Array, "B K H T C"], *, masked: bool) -> bool:
    """Whether the kernel can take these heads: half precision, and not too wide.

    Args:
      query: Its dtype and shape count.
      masked: Whether there is a mask besides the causal one, which in training needs an
        even number of tokens.
    """
    if platform() != "gpu" or query.dtype.itemsize != 2:
        return False
    # Hopper (9.0) and later have a kernel for wider heads.
    capability = float(jax.local_devices()[0].compute_capability)
    widest = 256 if capability >= 9.0 else 128
    length, channels = query.shape[-2:]
    even = length % 2 == 0 or not masked
    return channels <= widest and channels % 8 == 0 and even


def attend_cudnn(
    query: Float[Array, "B K H T C"],
    keys: Float[Array, "B K G T C"],
    values: Float[Array, "B K G T C"],
    mask: Bool[Array, "B K T T"] | None,
) -> Float[Array, "B K H T C"]:
    """Causal attention; a mask, if there is one, must itself be causal."""

    def rows(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:]).swapaxes(1, 2)

    out = jax.nn.dot_product_attention(
        rows(query),
        rows(keys),
        rows(values),
        mask=None if mask is None else mask.reshape(-1, 1, *mask.shape[2:]),
        is_causal=True,  # the kernel then skips hidden keys, also where there is a mask
        implementation="cudnn",
    )
    return out.swapaxes(1, 2).reshape(query.shape)
