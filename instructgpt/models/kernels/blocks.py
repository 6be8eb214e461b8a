"""Attention in blocks of queries, with a custom backward pass.

No scores are kept: the backward pass recomputes them (Dao et al. 2022). A text attends
to itself in blocks of queries, and each block reads only the keys up to its last
query, so that most of what the causal mask rules out is never computed.

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

from instructgpt.arrays import Array, Bool, Float
from instructgpt.models.kernels.interface import platform
from instructgpt.models.kernels.linear import row_dot
from instructgpt.models.kernels.reference import NEVER, MaskedSegment
from instructgpt.models.remat import KEPT

# Largest number of blocks that a text is cut into, and the least tokens of a block.
_BLOCKS, _BLOCK = 8, 64


def attend(
    query: Float[Array, "B K H T C"], segments: Sequence[MaskedSegment]
) -> Float[Array, "B K H T C"]:
    """Fast version of `reference.masked_attention`; stores no scores.

    The product with the values is summed in float32 where there is one segment.

    Args:
      query: Queries.
      segments: Keys and values [B, (K,) G, S, C] of each, and its mask [B, K, T, S].

    Returns:
      Outputs in the query's dtype. A query that sees nothing gets a mean of the values,
      never a NaN; such rows are padding.
    """
    segments = list(segments)
    fixed = jax.lax.stop_gradient((query, segments))
    out, log_sum = (checkpoint_name(x, KEPT) for x in _forward(*fixed))
    return _differentiable(query, segments, out, log_sum)


def _forward(query: Array, segments: Sequence[MaskedSegment]) -> tuple[Array, Array]:
    """The output [B, K, H, T, C], and float32[B, K, G, q, T] log-sum-exp of scores."""
    split = _grouped(query, segments[0][0].shape[-3])
    scores = [_scores(split, keys, mask) for keys, _, mask in segments]
    joined = jnp.concatenate(scores, axis=-1) if len(scores) > 1 else scores[0]
    top = joined.max(axis=-1, keepdims=True)
    weights = jnp.exp(joined - top)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(query.dtype)
    # XLA on CPUs cannot sum bfloat16 products in float32 for every shape.
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
    """Returns `out`, and sends its gradients to the query, keys and values."""
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
    """[B, K, H, ...] -> [B, K, G, q, ...]: groups the query heads that share keys."""
    return x.reshape(*x.shape[:2], groups, -1, *x.shape[3:])


def _letters(keys: Array) -> str:
    """Einsum letters of keys or values, which the K rows share or have one each."""
    return "bkgsc" if keys.ndim == 5 else "bgsc"


def _dot(
    x: Array, keys: Array, *, over: Literal["keys", "channels"], dtype: Any
) -> Array:
    """x [B, K, G, q, T, n] times keys or values, summed over n, which is S or C.

    An einsum would put shared keys first, and a CPU would then take much longer for
    the product of K rows' weights with the values that they share.
    """
    shared = keys.ndim == 4
    axis = keys.ndim - (2 if over == "keys" else 1)
    rows = ((0, 2), (0, 1)) if shared else ((0, 1, 2), (0, 1, 2))
    out = jax.lax.dot_general(
        x, keys, (((5,), (axis,)), rows), preferred_element_type=dtype
    )
    return out.transpose(0, 2, 1, 3, 4, 5) if shared else out


def _scores(query: Array, keys: Array, mask: Array) -> Array:
    """Masked float32[B, K, G, q, T, S] scores of queries [B, K, G, q, T, C]."""
    score = _dot(query, keys, over="channels", dtype=jnp.float32)
    return score * query.shape[-1] ** -0.5 + _of_unseen(mask)[:, :, None, None]


def _of_unseen(mask: Array) -> Array:
    """The term added to scores: 0 where the mask is True, else -1e30."""
    if platform() == "cpu":
        # XLA on CPUs recomputes cheap operations wherever they are read, here the whole
        # mask for every head. It does not recompute a logarithm.
        return jnp.maximum(jnp.log(mask.astype(jnp.float32)), NEVER)
    return jnp.where(mask, 0.0, NEVER)


class _OutputGradient(NamedTuple):
    """The gradient of attention's output, with what the gradient of scores needs."""

    out: Array  # [B, K, G, q, T, C]
    # float32[B, K, G, q, T], the mean over keys of the gradient with respect to the
    # attention weights, weighted by these. It equals the dot product of the output
    # with its gradient (Dao et al. 2022, B.2).
    mean: Array
    log_sum: Array  # float32[B, K, G, q, T], log-sum-exp of the scores

    @classmethod
    def grouped(
        cls, grad_out: Array, out: Array, log_sum: Array, groups: int
    ) -> "_OutputGradient":
        """The gradient from arrays [B, K, H, T, C], whose heads are not grouped."""
        mean = row_dot(grad_out.astype(jnp.float32), out.astype(jnp.float32))
        return cls(_grouped(grad_out, groups), _grouped(mean, groups), log_sum)

    def rows(self, first: int, stop: int) -> "_OutputGradient":
        """The part that belongs to queries [first, stop)."""
        out, mean, log_sum = self
        return _OutputGradient(
            out[..., first:stop, :], mean[..., first:stop], log_sum[..., first:stop]
        )

    def backward(
        self, query: Array, keys: Array, values: Array, mask: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients of the query, the keys and the values; recomputes the scores.

        Gradients of keys and values are sums over queries. They are always float32,
        so that they are rounded only after all queries are added.
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
    query: Float[Array, "B K H T C"],
    keys: Float[Array, "B K G S C"],
    values: Float[Array, "B K G S C"],
    mask: Bool[Array, "B K T S"],
    column: int = 0,
) -> Float[Array, "B K H T C"]:
    """Attention of tokens to their own text, without most keys that the mask hides.

    A block of queries reads the keys up to its last query, so that with many blocks
    half of all scores are computed. The backward pass recomputes the scores.

    Args:
      query: Queries of the text's tokens, or of those from a column on.
      keys: Keys of all the text's tokens.
      values: Values of all the text's tokens.
      mask: The keys that each token sees, none of which is in a later column.
      column: The key column of the first query's token.

    Returns:
      Outputs in the query's dtype.
    """
    fixed = jax.lax.stop_gradient((query, keys, values, mask))
    # Named outside of the custom gradient, where remat policies can see the names.
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
    """Returns `out`, and sends its gradients to the query, keys and values."""
    return out


def _blocks(length: int) -> list[tuple[int, int]]:
    """Query range [first, stop) of each block."""
    size = max(_BLOCK, -(-length // _BLOCKS))
    return [(i, min(i + size, length)) for i in range(0, length, size)]


def _text_forward(
    query: Array, keys: Array, values: Array, mask: Array, column: int
) -> tuple[Array, Array]:
    """Computes `_forward` for one block of queries after the other."""
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
    # Entry i sums the gradients of the keys that block i is the first to read, from
    # block i and all later blocks.
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
