"""Attention of one new token to a cache, in a kernel that reads each key once.

It is for GPUs, where plain matrix products leave half of the bandwidth unused. The
kernel (Pallas, from JAX) reads one span of columns; this module joins the spans of
several segments into one softmax.

Letters: B batch, K samples of a prompt, S key tokens, H heads, G heads of keys and
values, C channels a head.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from instructgpt.arrays import Array, Float
from instructgpt.models.kernels.interface import platform
from instructgpt.models.structures import KVSegment
from instructgpt.sharding import spec

_BLOCKS = (128, 64, 32, 16)  # keys that the kernel reads at a time; must divide S
_PROGRAMS = 256  # with fewer programs a large GPU has idle processors


class _Part(NamedTuple):
    """Softmax attention to some of the keys, before the division by the sum."""

    out: Array  # float32[B, K, H, C]
    sum: Array  # float32[B, K, H] of exp(score - max)
    max: Array  # float32[B, K, H]


def has_kernel(query: Array) -> bool:
    """Whether the kernel exists for the platform and the query's dtype."""
    return platform() == "gpu" and query.dtype.itemsize == 2


def fits(
    query: Float[Array, "B K H T C"], context: Sequence[KVSegment], band: int = 0
) -> bool:
    """Whether the kernel can read this context.

    Args:
      query: The new tokens' queries; T must be 1.
      context: The context's segments; each must list its valid spans.
      band: Width of locally banded attention, which it cannot do; 0: dense.
    """
    spans = all(s.spans and _block(s.keys.shape[-2]) for s in context)
    return not band and query.shape[3] == 1 and spans and has_kernel(query)


def attend_cached(
    query: Float[Array, "B K H 1 C"], context: Sequence[KVSegment]
) -> Float[Array, "B K H 1 C"]:
    """Attention of one new token per row to the valid spans of its context.

    Args:
      query: The new tokens' queries.
      context: Segments of one layer, keys and values [B, (K,) G, S, C]; one of them
        already holds the new tokens.
    """
    context = tuple(context)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _attend(query, context)
    # A kernel runs on one device, so each device calls it on its own rows and heads.
    rows = spec("batch", None, "heads", None, None)
    groups = spec("batch", None, "kv_heads", None, None)
    shared = spec("batch", "kv_heads", None, None)

    def layout(x: Array) -> PartitionSpec:
        return {5: groups, 4: shared}.get(x.ndim, spec("batch"))

    return jax.shard_map(
        _attend,
        mesh=mesh,
        in_specs=(rows, jax.tree.map(layout, context)),
        out_specs=rows,
        check_vma=False,
    )(query, context)


def _attend(query: Array, context: tuple[KVSegment, ...]) -> Array:
    query_heads = query[:, :, :, 0]
    parts = [
        _read(query_heads, segment, first, stop)
        for segment in context
        for first, stop in segment.spans
    ]
    top = jnp.stack([part.max for part in parts]).max(axis=0)
    scales = [jnp.exp(part.max - top) for part in parts]
    pairs = list(zip(parts, scales, strict=True))
    out = sum(part.out * scale[..., None] for part, scale in pairs)
    total = sum((part.sum * scale for part, scale in pairs), jnp.zeros_like(top))
    out = out / total[..., None]
    return out[:, :, :, None].astype(query.dtype)


def _read(query: Array, segment: KVSegment, first: Array, stop: Array) -> _Part:
    """Attention of queries [B, K, H, C] to columns [first, stop), int32[B, (K)]."""
    # Imported here because the import is slow and only this backend needs it.
    from jax.experimental.pallas.ops.gpu.decode_attention import mqa

    keys, values = segment.keys, segment.values
    shape, groups, length = query.shape, keys.shape[-3], keys.shape[-2]
    split = query.reshape(*shape[:2], groups, -1, shape[-1])
    shared = keys.ndim == 4
    if shared:  # the kernel sees the K samples of a prompt as heads that share keys
        split = split.swapaxes(1, 2)
    rows = split.reshape(first.size * groups, -1, shape[-1])
    first, stop = (jnp.repeat(x.reshape(-1), groups) for x in (first, stop))
    block = _block(length)
    out, (total, top) = mqa(
        rows,
        keys.reshape(-1, length, shape[-1]),
        values.reshape(-1, length, shape[-1]),
        first,
        stop,
        block_k=block,
        k_splits=_splits(rows.shape[0], length // block),
        num_warps=4,
        return_residuals=True,
        normalize_output=False,
        interpret=platform() != "gpu",
    )

    def back(x: Array) -> Array:
        if shared:
            x = x.reshape(shape[0], groups, shape[1], -1, *x.shape[2:]).swapaxes(1, 2)
        return x.reshape(*shape[:3], *x.shape[4 if shared else 2 :]).astype(jnp.float32)

    return _Part(back(out), back(total), back(top))


def _block(length: int) -> int:
    """Number of keys in a block, or 0 if no block size divides the length."""
    return next((block for block in _BLOCKS if length % block == 0), 0)


def _splits(rows: int, blocks: int) -> int:
    """Number of programs that a row's blocks of keys are split over."""
    splits = 1
    while rows * splits < _PROGRAMS and blocks % (2 * splits) == 0:
        splits *= 2
    return splits
