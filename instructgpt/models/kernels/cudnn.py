"""Attention of whole texts to themselves in cuDNN's kernel, which stores no scores.

Letters: B batch, K responses that share a prompt (1 for plain text), T tokens, H heads,
G heads of keys and values, C channels a head.
"""

import jax

from instructgpt.arrays import Array, Bool, Float
from instructgpt.models.kernels.interface import platform


def has_kernel(query: Float[Array, "B K H T C"]) -> bool:
    """Whether the kernel exists for the platform and the query's dtype."""
    return platform() == "gpu" and query.dtype.itemsize == 2


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
