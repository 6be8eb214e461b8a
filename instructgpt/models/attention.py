"""Softmax attention over segments: who sees what, and the ways to compute it.

Letters: B batch, K responses that share a prompt (1 for plain text), T query tokens,
S key tokens, H heads, G heads of keys and values, C channels a head, L layers.

Attention reads a list of segments: first the context (a prompt computed once, what
has been sampled so far), then the tokens themselves. A segment of keys [B, G, S, C]
is shared by the K rows of its prompt; [B, K, G, S, C] belongs to each row. All
segments share one softmax, so splitting a text over segments changes nothing. Heads
come before tokens, as the matrix products want them: a cache is read as it lies.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from instructgpt.models import splash
from instructgpt.models.products import row_dot

Array = jax.Array
SMALL = "small"  # names what all remat policies but `full` keep
# A text is cut into at most so many blocks of queries, of at least so many tokens.
_BLOCKS, _BLOCK = 8, 64


class KVSegment(NamedTuple):
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

    def write(self, keys: Array, values: Array, column: Array) -> "KVSegment":
        """Of one layer, with one token's [B, K, G, 1, C] at column int32[]."""

        def put(old: Array, x: Array) -> Array:
            x = x.reshape(*old.shape[:-2], 1, old.shape[-1])
            return jax.lax.dynamic_update_slice_in_dim(old, x, column, axis=-2)

        return self._replace(keys=put(self.keys, keys), values=put(self.values, values))


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


def rows_of_prompt(x: Array, prompt_index: Array) -> Array:
    """Rows [M b, ...] of contexts -> those [M N, ...] that each row reads.

    Args:
      x: M groups of b rows, one group after the other.
      prompt_index: int32[M, N], from 0 to b - 1. A group reads only its own
        rows, so groups may lie on different devices.
    """
    grouped = x.reshape(prompt_index.shape[0], -1, *x.shape[1:])
    taken = jax.vmap(lambda rows, numbers: rows[numbers])(grouped, prompt_index)
    return taken.reshape(-1, *x.shape[1:])


def attend(query: Array, segments: list[tuple[Array, Array, Array]]) -> Array:
    """Softmax attention over the joined segments, in float32.

    Query head h reads the keys and values of head h // (H / G). The backward pass is
    that of `attend_text`.

    Args:
      query: [B, K, H, T, C].
      segments: Of each, keys and values [B, (K,) G, S, C] and bool[B, K, T, S].

    Returns:
      [B, K, H, T, C] in the query's dtype. A query that sees nothing gets a mean of
      the values, never a NaN; such rows are padding.
    """
    fixed = jax.lax.stop_gradient((query, segments))
    out, log_sum = (checkpoint_name(x, SMALL) for x in _forward(*fixed))
    return _differentiable(query, segments, out, log_sum)


def _forward(
    query: Array, segments: list[tuple[Array, Array, Array]]
) -> tuple[Array, Array]:
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
        out = out + _product(
            weights[..., start:stop], values, over="keys", dtype=summed
        )
        start = stop
    out = (out / total).astype(query.dtype).reshape(query.shape)
    return out, (top + jnp.log(total))[..., 0]


@jax.custom_vjp
def _differentiable(
    query: Array,
    segments: list[tuple[Array, Array, Array]],
    out: Array,
    log_sum: Array,
) -> Array:
    """`out`, of which gradients go to the query, the keys and the values."""
    return out


def _backward(saved: Any, slope: Array):
    query, segments, out, log_sum = saved
    through = _Slope.of(slope, out, log_sum, segments[0][0].shape[-3]).through
    split = _grouped(query, segments[0][0].shape[-3])
    by_query, by_segments = jnp.zeros((), query.dtype), []
    for segment in segments:
        more, *by_segment = through(split, *segment)
        by_query = by_query + more
        by_segments.append((*(x.astype(query.dtype) for x in by_segment), None))
    return by_query.reshape(query.shape), by_segments, None, None


_differentiable.defvjp(lambda *saved: (saved[2], saved), _backward)


def _grouped(x: Array, groups: int) -> Array:
    """[B, K, H, ...] -> [B, K, G, q, ...]: which query heads share keys."""
    return x.reshape(*x.shape[:2], groups, -1, *x.shape[3:])


def _letters(keys: Array) -> str:
    """Of keys or values that K rows share, or that are each row's own."""
    return "bkgsc" if keys.ndim == 5 else "bgsc"


def _product(
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
    score = _product(query, keys, over="channels", dtype=jnp.float32)
    return score * query.shape[-1] ** -0.5 + _of_unseen(mask)[:, :, None, None]


def _of_unseen(mask: Array) -> Array:
    """What is added to scores: 0 for what is seen, else -1e30."""

    def once(mask: Array) -> Array:
        # XLA for CPUs makes cheap things again wherever they are read, here all that
        # the mask is made of, for every head. A logarithm it does not.
        return jnp.maximum(jnp.log(mask.astype(jnp.float32)), -1e30)

    def plain(mask: Array) -> Array:
        return jnp.where(mask, 0.0, -1e30)

    return jax.lax.platform_dependent(mask, cpu=once, default=plain)


class _Slope(NamedTuple):
    """The gradient by what some queries read, and what makes it that by scores."""

    out: Array  # [B, K, G, q, T, C]
    # float32[B, K, G, q, T], each row's weighted mean of gradients by its weights: the
    # output's product with its own gradient (Dao et al. 2022, B.2).
    mean: Array
    log_sum: Array  # float32[B, K, G, q, T] of the scores

    @classmethod
    def of(cls, slope: Array, out: Array, log_sum: Array, groups: int) -> "_Slope":
        """Of the gradient by `out`, both [B, K, H, T, C]."""
        mean = row_dot(slope.astype(jnp.float32), out.astype(jnp.float32))
        return cls(_grouped(slope, groups), _grouped(mean, groups), log_sum)

    def rows(self, first: int, stop: int) -> "_Slope":
        """Of the queries from `first` until `stop`."""
        out, mean, log_sum = self
        return _Slope(
            out[..., first:stop, :], mean[..., first:stop], log_sum[..., first:stop]
        )

    def through(
        self, query: Array, keys: Array, values: Array, mask: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients by the query, the keys and the values; makes the scores again.

        Those by keys and values are sums over queries, float32 whatever the query's
        dtype, so that they are rounded only once they are whole.
        """
        dtype, letters = query.dtype, _letters(keys)
        summed = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        weights = jnp.exp(_scores(query, keys, mask) - self.log_sum[..., None])
        by_weight = _product(self.out, values, over="channels", dtype=jnp.float32)
        by_score = weights * (by_weight - self.mean[..., None])
        by_score = (by_score * query.shape[-1] ** -0.5).astype(dtype)
        return (
            _product(by_score, keys, over="keys", dtype=dtype),
            summed(f"bkgqts,bkgqtc->{letters}", by_score, query),
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
    out, log_sum = (checkpoint_name(x, SMALL) for x in _text_forward(*fixed, column))
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
        near, far = keys[..., :end, :], values[..., :end, :]
        segment = near, far, mask[..., first:stop, :end]
        out, log_sum = _forward(query[..., first:stop, :], [segment])
        outs.append(out)
        log_sums.append(log_sum)
    return jnp.concatenate(outs, axis=3), jnp.concatenate(log_sums, axis=4)


def _text_backward(column: int, saved: tuple[Array, ...], slope: Array):
    query, keys, values, mask, out, log_sum = saved
    groups = keys.shape[2]
    slopes = _Slope.of(slope, out, log_sum, groups)
    split, blocks = _grouped(query, groups), _blocks(query.shape[3])
    ends = [0, *(column + stop for _, stop in blocks)]
    by_query = []
    # Of the keys that each block of queries is the first to read, what it and later
    # blocks add to their gradient.
    by_keys: list[Any] = [0.0] * len(blocks)
    by_values: list[Any] = [0.0] * len(blocks)
    for last, (first, stop) in enumerate(blocks):
        end = ends[last + 1]
        more, by_key, by_value = slopes.rows(first, stop).through(
            split[..., first:stop, :],
            keys[..., :end, :],
            values[..., :end, :],
            mask[..., first:stop, :end],
        )
        by_query.append(more)
        for i in range(last + 1):
            by_keys[i] += by_key[..., ends[i] : ends[i + 1], :]
            by_values[i] += by_value[..., ends[i] : ends[i + 1], :]
    unread = [(0, 0)] * 3 + [(0, keys.shape[3] - ends[-1]), (0, 0)]

    def joined(parts: list[Any]) -> Array:
        return jnp.pad(jnp.concatenate(parts, axis=3).astype(query.dtype), unread)

    return (
        jnp.concatenate(by_query, axis=4).reshape(query.shape),
        joined(by_keys),
        joined(by_values),
        None,
        None,
        None,
    )


_text.defvjp(lambda column, *saved: (saved[4], saved), _text_backward)


def attend_fused(
    query: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    ids: Array | None = None,
    banded: Array | None = None,
    *,
    band: int = 0,
) -> Array:
    """`attend_text` in the backend's own kernel, where it has one for these shapes.

    JAX's on a TPU, if 128 divides T; cuDNN's on a GPU, in half precision.

    Args:
      query: [B, K, H, T, C].
      keys: [B, K, G, T, C].
      values: As the keys.
      mask: bool[B, K, T, T], causal; None if it is no more than that.
      ids: int32[B, K, T], for a mask that lets a token see those before it of its own
        number; None for any other mask, which a TPU's kernel cannot take.
      banded: bool[], whether of those it sees the last `band` alone; None: it does not.
      band: See there.

    Returns:
      [B, K, H, T, C].
    """
    gpu = jax.default_backend() == "gpu"

    def general(query: Array, keys: Array, values: Array, *_: Any) -> Array:
        if gpu and query.dtype.itemsize == 2:
            return _attend_cudnn(query, keys, values, mask)
        length = query.shape[3]
        causal = jnp.tril(jnp.ones((length, length), bool))
        whole = jnp.broadcast_to(causal, (*query.shape[:2], length, length))
        return attend_text(query, keys, values, whole if mask is None else mask)

    untold = mask is not None and ids is None
    if gpu or untold or not splash.divides(query.shape[3]):
        return general(query, keys, values)

    def tpu(query: Array, keys: Array, values: Array, rest: Any) -> Array:
        return splash.attend_splash(
            query, keys, values, *rest, band=band, keep_as=SMALL
        )

    # Which one is known when the program is lowered, for chips that may be elsewhere.
    return jax.lax.platform_dependent(
        query, keys, values, (ids, banded), tpu=tpu, default=general
    )


def _attend_cudnn(
    query: Array, keys: Array, values: Array, mask: Array | None
) -> Array:
    def rows(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:]).swapaxes(1, 2)

    out = jax.nn.dot_product_attention(
        rows(query),
        rows(keys),
        rows(values),
        mask=None if mask is None else mask.reshape(-1, 1, *mask.shape[2:]),
        is_causal=True,  # what it rules out the kernel skips, with a mask as well
        implementation="cudnn",
    )
    return out.swapaxes(1, 2).reshape(query.shape)
