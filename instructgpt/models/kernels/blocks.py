"""Attention with a backward pass of its own, in blocks of queries.

No scores are kept for the backward pass, which makes them again (Dao et al. 2022). A
text attends to itself in blocks of queries, each of which reads the keys up to its own
last one, so that about half of what a causal mask rules out is never computed.

Letters: B batch, K responses that share a prompt (1 for plain text), T query tokens,
S key tokens, H query heads, G heads of keys and values, q = H / G query heads that
share one, C channels a head.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from instructgpt.arrays import Array
from instructgpt.models.kernels.interface import platform
from instructgpt.models.kernels.linear import row_dot
from instructgpt.models.kernels.reference import NEVER, MaskedSegment
from instructgpt.models.remat import KEPT

# A text is cut into at most so many blocks of queries, of at least so many tokens.
_BLOCKS, _BLOCK = 8, 64


def attend(query: Array, segments: Sequence[MaskedSegment]) -> Array:
    """Softmax attention over the joined segments, in float32.

    Query head h reads the keys and values of head h // (H / G). The backward pass is
    that of `attend_text`.

    Args:
      query: [B, K, H, T, C].
      segments: Keys and values [B, (K,) G, S, C] of each, and bool[B, K, T, S].

    Returns:
      [B, K, H, T, C] in the query's dtype. A query that sees nothing gets a mean of
      the values, never a NaN; such rows are padding.
    """
    segments = list(segments)
    fixed = jax.lax.stop_gradient((query, segments))
    out, log_sum = (checkpoint_name(x, KEPT) for x in _forward(*fixed))
    return _differentiable(query, segments, out, log_sum)


def _forward(query: Array, segments: Sequence[MaskedSegment]) -> tuple[Array, Array]:
    """What is read [B, K, H, T, C], and log-sums of scores float32[B, K, G, q, T]."""
    split = _grouped(query, segments[0][0].shape[-3])
    scores = [_scores(split, keys, mask) for keys, _, mask in segments]
    joined = jnp.concatenate(scores, axis=-1) if len(scores) > 1 else scores[0]
    top = joined.max(axis=-1, keepdims=True)
    weights = jnp.exp(joined - top)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(query.dtype)
    # XLA for CPUs has no product of bfloat16 summed in float32 for every shape.
    summed = jnp.float32 if len(segments) == 1 else query.dtype
    out, start = jnp.zeros((), jnp.float32), 0
    for _, values, _ in segments:
        stop = start + values.shape[-2]
        out = out + _dot(weights[..., start:stop], values, over="keys", dtype=summed)
        start = stop
    out = (out / total).astype(query.dtype).reshape(query.shape)
    return out, (top + jnp.log(total))[..., 0]


@jax.custom_vjp
def _differentiable(
    query: Array,
    segments: Sequence[MaskedSegment],
    out: Array,
    log_sum: Array,
) -> Array:
    """`out`, of which gradients go to the query, the keys and the values."""
    return out


def _backward(saved: Any, grad_out: Array):
    query, segments, out, log_sum = saved
    groups = segments[0][0].shape[-3]
    split = _grouped(query, groups)
    gradient = _OutputGradient.grouped(grad_out, out, log_sum, groups)
    grad_query, grad_segments = jnp.zeros((), query.dtype), []
    for segment in segments:
        more, *grad_segment = gradient.backward(split, *segment)
        grad_query = grad_query + more
        grad_segments.append((*(x.astype(query.dtype) for x in grad_segment), None))
    return grad_query.reshape(query.shape), grad_segments, None, None


_differentiable.defvjp(lambda *saved: (saved[2], saved), _backward)


def _grouped(x: Array, groups: int) -> Array:
    """[B, K, H, ...] -> [B, K, G, q, ...]: which query heads share keys."""
    return x.reshape(*x.shape[:2], groups, -1, *x.shape[3:])


def _letters(keys: Array) -> str:
    """Einsum letters of keys or values that K rows share, or that each row has."""
    return "bkgsc" if keys.ndim == 5 else "bgsc"


def _dot(
    x: Array, keys: Array, *, over: Literal["keys", "channels"], dtype: Any
) -> Array:
    """x [B, K, G, q, T, n] times keys or values, summed over n: their S or their C.

    Not an einsum, which puts shared keys first: then a CPU takes much longer for the
    product of K rows' weights with the values that they share.
    """
    shared = keys.ndim == 4
    axis = keys.ndim - (2 if over == "keys" else 1)
    rows = ((0, 2), (0, 1)) if shared else ((0, 1, 2), (0, 1, 2))
    out = jax.lax.dot_general(
        x, keys, (((5,), (axis,)), rows), preferred_element_type=dtype
    )
    return out.transpose(0, 2, 1, 3, 4, 5) if shared else out


def _scores(query: Array, keys: Array, mask: Array) -> Array:
    """Masked scores float32[B, K, G, q, T, S] of [B, K, G, q, T, C]."""
    score = _dot(query, keys, over="channels", dtype=jnp.float32)
    return score * query.shape[-1] ** -0.5 + _of_unseen(mask)[:, :, None, None]


def _of_unseen(mask: Array) -> Array:
    """What is added to scores: 0 for what is seen, else -1e30."""
    if platform() == "cpu":
        # XLA for CPUs makes cheap things again wherever they are read, here all that
        # the mask is made of, for every head. A logarithm it does not.
        return jnp.maximum(jnp.log(mask.astype(jnp.float32)), NEVER)
    return jnp.where(mask, 0.0, NEVER)


class _OutputGradient(NamedTuple):
    """The gradient of what some queries read, and what turns it into that of scores."""

    out: Array  # [B, K, G, q, T, C]
    # float32[B, K, G, q, T], each row's weighted mean of gradients by its weights: the
    # output's product with its own gradient (Dao et al. 2022, B.2).
    mean: Array
    log_sum: Array  # float32[B, K, G, q, T] of the scores

    @classmethod
    def grouped(
        cls, grad_out: Array, out: Array, log_sum: Array, groups: int
    ) -> "_OutputGradient":
        """The same of heads [B, K, H, T, C] as they are."""
        mean = row_dot(grad_out.astype(jnp.float32), out.astype(jnp.float32))
        return cls(_grouped(grad_out, groups), _grouped(mean, groups), log_sum)

    def rows(self, first: int, stop: int) -> "_OutputGradient":
        """The part of the queries from `first` until `stop`."""
        out, mean, log_sum = self
        return _OutputGradient(
            out[..., first:stop, :], mean[..., first:stop], log_sum[..., first:stop]
        )

    def backward(
        self, query: Array, keys: Array, values: Array, mask: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients of the query, the keys and the values; makes the scores again.

        Those of keys and values are sums over queries, float32 whatever the query's
        dtype, so that they are rounded only once they are whole.
        """
        dtype, letters = query.dtype, _letters(keys)
        summed = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        weights = jnp.exp(_scores(query, keys, mask) - self.log_sum[..., None])
        grad_weights = _dot(self.out, values, over="channels", dtype=jnp.float32)
        grad_scores = weights * (grad_weights - self.mean[..., None])
        grad_scores = (grad_scores * query.shape[-1] ** -0.5).astype(dtype)
        return (
            _dot(grad_scores, keys, over="keys", dtype=dtype),
            summed(f"bkgqts,bkgqtc->{letters}", grad_scores, query),
            summed(f"bkgqts,bkgqtc->{letters}", weights.astype(dtype), self.out),
        )


def attend_text(
    query: Array, keys: Array, values: Array, mask: Array, column: int = 0
) -> Array:
    """`attend` of tokens to their own text, less most of what a causal mask rules out.

    A block of queries reads the keys up to its own last one: half of all scores where
    blocks are many. The backward pass makes the scores again, so none are stored.

    Args:
      query: [B, K, H, T, C].
      keys: [B, K, G, S, C].
      values: As the keys.
      mask: bool[B, K, T, S], no token seeing one of a later column.
      column: Of the keys, where the first query's own is.

    Returns:
      [B, K, H, T, C] in the query's dtype.
    """
    fixed = jax.lax.stop_gradient((query, keys, values, mask))
    # Outside of what is differentiated by hand, where remat policies see names.
    out, log_sum = (checkpoint_name(x, KEPT) for x in _text_forward(*fixed, column))
    return _text(column, query, keys, values, mask, out, log_sum)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _text(
    column: int,
    query: Array,
    keys: Array,
    values: Array,
    mask: Array,
    out: Array,
    log_sum: Array,
) -> Array:
    """`out`, of which gradients go to the query, the keys and the values."""
    return out


def _blocks(length: int) -> list[tuple[int, int]]:
    """(first, stop) of the queries of each block."""
    size = max(_BLOCK, -(-length // _BLOCKS))
    return [(i, min(i + size, length)) for i in range(0, length, size)]


def _text_forward(
    query: Array, keys: Array, values: Array, mask: Array, column: int
) -> tuple[Array, Array]:
    """As `_forward`, one block of queries after the other."""
    outs, log_sums = [], []
    for first, stop in _blocks(query.shape[3]):
        end = column + stop
        segment = keys[..., :end, :], values[..., :end, :], mask[..., first:stop, :end]
        out, log_sum = _forward(query[..., first:stop, :], [segment])
        outs.append(out)
        log_sums.append(log_sum)
    return jnp.concatenate(outs, axis=3), jnp.concatenate(log_sums, axis=4)


def _text_backward(column: int, saved: tuple[Array, ...], grad_out: Array):
    query, keys, values, mask, out, log_sum = saved
    groups = keys.shape[2]
    gradient = _OutputGradient.grouped(grad_out, out, log_sum, groups)
    split, blocks = _grouped(query, groups), _blocks(query.shape[3])
    ends = [0, *(column + stop for _, stop in blocks)]
    grad_query = []
    # Of the keys that each block of queries is the first to read, what it and later
    # blocks add to their gradient.
    grad_keys: list[Any] = [0.0] * len(blocks)
    grad_values: list[Any] = [0.0] * len(blocks)
    for last, (first, stop) in enumerate(blocks):
        end = ends[last + 1]
        more, grad_key, grad_value = gradient.rows(first, stop).backward(
            split[..., first:stop, :],
            keys[..., :end, :],
            values[..., :end, :],
            mask[..., first:stop, :end],
        )
        grad_query.append(more)
        for i in range(last + 1):
            grad_keys[i] += grad_key[..., ends[i] : ends[i + 1], :]
            grad_values[i] += grad_value[..., ends[i] : ends[i + 1], :]
    unread = [(0, 0)] * 3 + [(0, keys.shape[3] - ends[-1]), (0, 0)]

    def joined(parts: list[Any]) -> Array:
        return jnp.pad(jnp.concatenate(parts, axis=3).astype(query.dtype), unread)

    return (
        jnp.concatenate(grad_query, axis=4).reshape(query.shape),
        joined(grad_keys),
        joined(grad_values),
        None,
        None,
        None,
    )


_text.defvjp(lambda column, *saved: (saved[4], saved), _text_backward)
