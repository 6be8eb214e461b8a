"""Softmax attention over segments: who sees what, and the ways to compute it.

Letters: B batch, K responses that share a prompt (1 for plain text), T query tokens,
S key tokens, H heads, G heads of keys and values, C channels a head, L layers.

Attention reads a list of segments: first the context (a prompt computed once, what
has been sampled so far), then the tokens themselves. A segment of keys [B, G, S, C]
is shared by the K rows of its prompt; [B, K, G, S, C] belongs to each row. All
segments share one softmax, so splitting a text over segments changes nothing. Heads
come before tokens, as the matrix products want them: a cache is read as it lies.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
# A text is cut into at most so many blocks of queries, of at least so many tokens.
_BLOCKS, _BLOCK = 8, 64


class Segment(NamedTuple):
    """Keys and values computed earlier, to attend to. K is absent when shared."""

    # Compute dtype [L, B, (K,) G, S, C], keys rotated if positions are; a tuple of L
    # arrays where layers do not run in a loop, and one array within a layer.
    keys: Any
    values: Any
    positions: Array  # int32[B, (K,) S]
    valid: Array  # bool[B, (K,) S]
    # The valid columns again, as spans (first, stop) of int32[B, (K)], where they are
    # known to be spans.
    spans: tuple[tuple[Array, Array], ...] = ()


def visible(
    positions: Array, segment_positions: Array, segment_valid: Array
) -> tuple[Array, Array]:
    """Which keys a query may see, and how far back each lies.

    Args:
      positions: int32[B, K, T] of the queries.
      segment_positions: int32[B, S] or int32[B, K, S] of the keys.
      segment_valid: bool of the same shape; False on padding.

    Returns:
      (bool[B, K, T, S] causal and valid, int32[B, K, T, S] distance in tokens).
    """
    if segment_positions.ndim == 2:
        segment_positions = segment_positions[:, None]
        segment_valid = segment_valid[:, None]
    distance = positions[..., :, None] - segment_positions[..., None, :]
    return (distance >= 0) & segment_valid[..., None, :], distance


def of_owner(x: Array, owner: Array) -> Array:
    """Rows [M b, ...] of contexts -> those [M N, ...] that each row reads.

    Args:
      x: M groups of b rows, one group after the other.
      owner: int32[M, N], from 0 to b - 1. A group reads only its own rows, so groups
        may lie on different devices.
    """
    grouped = x.reshape(owner.shape[0], -1, *x.shape[1:])
    taken = jax.vmap(lambda rows, numbers: rows[numbers])(grouped, owner)
    return taken.reshape(-1, *x.shape[1:])


def attend(query: Array, segments: list[tuple[Array, Array, Array]]) -> Array:
    """Softmax attention over the joined segments, in float32.

    Query head h reads the keys and values of head h // (H / G).

    Args:
      query: [B, K, H, T, C].
      segments: Of each, keys and values [B, (K,) G, S, C] and bool[B, K, T, S].

    Returns:
      [B, K, H, T, C] in the query's dtype. A query that sees nothing gets a mean of
      the values, never a NaN; such rows are padding.
    """
    shape, heads, groups = query.shape, query.shape[2], segments[0][0].shape[-3]
    # q: the query heads that share a head of keys and values, if there are several.
    q = "q" if heads > groups else ""
    if q:
        query = query.reshape(*shape[:2], groups, heads // groups, *shape[3:])
    scores = []
    for keys, _, mask in segments:
        k = "k" if keys.ndim == 5 else ""
        score = jnp.einsum(
            f"bkg{q}tc,b{k}gsc->bkg{q}ts",
            query,
            keys,
            preferred_element_type=jnp.float32,
        )
        mask = jnp.expand_dims(mask, (2, 3) if q else 2)
        scores.append(jnp.where(mask, score * shape[-1] ** -0.5, -1e30))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    weights = weights.astype(query.dtype)
    out, start = jnp.zeros((), query.dtype), 0
    for keys, values, _ in segments:
        k, stop = "k" if keys.ndim == 5 else "", start + keys.shape[-2]
        pattern = f"bkg{q}ts,b{k}gsc->bkg{q}tc"
        out = out + jnp.einsum(pattern, weights[..., start:stop], values)
        start = stop
    return out.reshape(shape)


def attend_text(query: Array, keys: Array, values: Array, mask: Array) -> Array:
    """`attend` of tokens to themselves, without most of what a causal mask rules out.

    A block of queries reads the keys up to its own last one: half of all scores where
    blocks are many.

    Args:
      query: [B, K, H, T, C].
      keys: [B, K, G, T, C].
      values: As the keys.
      mask: bool[B, K, T, T], no token seeing one of a later column.

    Returns:
      [B, K, H, T, C].
    """
    length = query.shape[3]
    size = max(_BLOCK, -(-length // _BLOCKS))
    out = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        block = mask[..., start:stop, :stop]
        seen = keys[..., :stop, :], values[..., :stop, :], block
        out.append(attend(query[..., start:stop, :], [seen]))
    return jnp.concatenate(out, axis=3) if len(out) > 1 else out[0]


def attend_fused(query: Array, keys: Array, values: Array, mask: Array | None) -> Array:
    """`attend` of tokens to themselves in one kernel, which stores no scores.

    cuDNN's on a GPU, in half precision; elsewhere XLA makes of it what it can.

    Args:
      query: [B, K, H, T, C].
      keys: [B, K, G, T, C].
      values: As the keys.
      mask: bool[B, K, T, T], causal; None if it is no more than that.

    Returns:
      [B, K, H, T, C].
    """

    def rows(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:]).swapaxes(1, 2)

    cudnn = jax.default_backend() == "gpu" and query.dtype.itemsize == 2
    out = jax.nn.dot_product_attention(
        rows(query),
        rows(keys),
        rows(values),
        mask=None if mask is None else mask.reshape(-1, 1, *mask.shape[2:]),
        is_causal=True,  # what it rules out the kernel skips, with a mask as well
        implementation="cudnn" if cudnn else "xla",
    )
    return out.swapaxes(1, 2).reshape(query.shape)
