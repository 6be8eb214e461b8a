"""The language-model head in chunks of tokens, so that not all logits exist at once.

Logits are as wide as the vocabulary, so they are computed for one chunk of tokens at a
time and discarded. Two functions have custom gradients:

- `token_log_probs` recomputes a chunk's logits for the gradient, because the gradient
  of its output (by a clipped ratio, say) is known only then: four table products.
- `weighted_nll`, whose weights are known, computes the gradient along with the loss:
  three products with the table.

Letters: N tokens, D width, V rows of the table, c tokens of a chunk, W devices that
rows are sharded over.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Float, Int
from instructgpt.models.kernels.interface import HeadOptions, platform
from instructgpt.models.kernels.linear import summed_outer
from instructgpt.models.kernels.reference import NEVER
from instructgpt.models.structures import TokenLogProbs, unsqueezed_to
from instructgpt.sharding import constrain, current_ways

_FEW_ROWS = 64


def logits(
    head: HeadOptions, hidden: Float[Array, "*N D"], table: Float[Array, "V D"]
) -> Float[Array, "*N V"]:
    """Fast version of `reference.logits`."""
    out = _product(hidden.astype(head.dtype), table.astype(head.dtype))
    if head.temperature != 1.0:
        out = out / head.temperature
    if table.shape[0] == head.vocab_size:
        return out
    known = jnp.arange(table.shape[0]) < head.vocab_size
    return jnp.where(unsqueezed_to(known, out.ndim), out, NEVER)


def _product(hidden: Array, table: Array) -> Array:
    """Product of states [..., D] with a table [V, D]: float32[..., V]."""
    few = math.prod(hidden.shape[:-1]) <= _FEW_ROWS * current_ways()
    if platform() != "cpu" or not few:
        return jnp.einsum(
            "...d,vd->...v", hidden, table, preferred_element_type=jnp.float32
        )
    # With few rows a CPU spends most of the time on reading the table, which is fastest
    # row by row. Without the barrier XLA would transpose the product back.
    rows = jnp.einsum(
        "vd,...d->v...", table, hidden, preferred_element_type=jnp.float32
    )
    return jnp.moveaxis(jax.lax.optimization_barrier(rows), 0, -1)


def _gradients(
    head: HeadOptions, hidden: Array, table: Array, grad_logits: Array, *, dtype: Any
) -> tuple[Array, Array]:
    """Gradients of states and table, given the gradient of a chunk's logits.

    Args:
      head: See HeadOptions.
      hidden: [c, D].
      table: [V, D].
      grad_logits: float32[c, V], with respect to logits divided by the temperature.
      dtype: The dtype in which the gradient of hidden is summed.

    Returns:
      (gradient of hidden [c, D], gradient of the table float32[W, V, D], one for the
      rows of each device).
    """
    grad_logits = grad_logits / head.temperature
    grad_hidden = jnp.einsum(
        "cv,vd->cd",
        grad_logits.astype(head.dtype),
        table.astype(head.dtype),
        preferred_element_type=dtype,
    )
    # Each device sums its own rows; the devices' sums are added once, after all chunks.
    grad_rows, rows = (
        x.reshape(_parts(x), -1, x.shape[1])
        for x in (grad_logits.astype(hidden.dtype), hidden)
    )
    outer = functools.partial(summed_outer, dtype=jnp.float32)
    grad_table = jax.vmap(outer)(grad_rows, rows)
    return grad_hidden, constrain(grad_table, "batch", "vocab", None)


def _normaliser(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Log-sum-exp of the logits [c], and the targets' log-probs [c]."""
    log_z = jax.nn.logsumexp(logits, axis=-1)
    taken = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return log_z, taken - log_z


def _softmax_minus_one_hot(probs: Array, targets: Array) -> Array:
    """The gradient of -log p(target) with respect to the logits."""
    hit = jnp.arange(probs.shape[-1])[None] == targets[:, None]
    return probs - hit.astype(probs.dtype)


def _whole(head: HeadOptions, table: Array) -> Array:
    """The table in the form that all chunks read: gathered once, and cast once."""
    return constrain(table.astype(head.dtype), "vocab", None)


def _parts(rows: Array) -> int:
    """W, the number of devices that the rows of a chunk are sharded over."""
    ways = current_ways()
    return 1 if rows.shape[0] % ways else ways


def _zeros(table: Array, chunks: Array) -> Array:
    """A zero gradient [W, V, D] in which each device sums its own rows."""
    zeros = jnp.zeros((_parts(chunks[0]), *table.shape), table.dtype)
    return constrain(zeros, "batch", "vocab", None)


def _added_up(grad_table: Array) -> Array:
    """Sums the devices' gradients: [W, V, D] -> [V, D], sharded like the table."""
    return constrain(grad_table.sum(axis=0), "vocab", "embed")


def _chunk_logits(head: HeadOptions, hidden: Array, table: Array) -> Array:
    """The logits of a chunk, whose rows stay on their devices."""
    hidden = constrain(hidden, "batch", None)
    return constrain(logits(head, hidden, table), "batch", "vocab")


def _chunks(x: Array, size: int) -> Array:
    """[N, ...] -> [N / c, c, ...], padded, strided so that rows keep their device."""
    padding = -x.shape[0] % size
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    x = x.reshape(size, -1, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x, None, "batch", *[None] * (x.ndim - 2))


def _joined(x: Array, count: int) -> Array:
    """The inverse of `_chunks`."""
    x = constrain(x, None, "batch", *[None] * (x.ndim - 2))
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:count]


def _split(head: HeadOptions, *arrays: Array) -> tuple[Array, ...]:
    size = min(head.chunk * current_ways(), arrays[0].shape[0])
    return tuple(_chunks(x, size) for x in arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def token_log_probs(
    head: HeadOptions,
    hidden: Float[Array, "N D"],
    table: Float[Array, "V D"],
    targets: Int[Array, " N"],
) -> TokenLogProbs:
    """Chunked version of `reference.token_log_probs`."""
    return _token_log_probs_fwd(head, hidden, table, targets)[0]


def _token_log_probs_fwd(
    head: HeadOptions, hidden: Array, whole: Array, targets: Array
):
    table = _whole(head, whole)

    def one(args: tuple[Array, Array]):
        scores = _chunk_logits(head, args[0], table)
        log_z, log_prob = _normaliser(scores, args[1])
        # E[log p] = E[logit] - log Z; ids that are never predicted have probability 0.
        mean = (jnp.exp(scores - log_z[:, None]) * scores).sum(axis=-1)
        return log_prob, log_z - mean, log_z

    out = jax.lax.map(one, _split(head, hidden, targets))
    log_prob, entropy, log_z = (_joined(x, hidden.shape[0]) for x in out)
    return TokenLogProbs(log_prob, entropy), (hidden, whole, targets, log_z)


def _token_log_probs_bwd(head: HeadOptions, saved: Any, grad_out: TokenLogProbs):
    hidden, whole, targets, log_z = saved
    table = _whole(head, whole)

    def one(grad_table: Array, args: tuple[Array, ...]):
        hidden, targets, log_z, grad_log_prob = args
        probs = jnp.exp(_chunk_logits(head, hidden, table) - log_z[:, None])
        grad_logits = -grad_log_prob[:, None] * _softmax_minus_one_hot(probs, targets)
        grad_hidden, more = _gradients(
            head, hidden, table, grad_logits, dtype=hidden.dtype
        )
        return grad_table + more, grad_hidden

    xs = _split(head, hidden, targets, log_z, grad_out.log_probs)
    grad_table, grad_hidden = jax.lax.scan(one, _zeros(whole, xs[0]), xs)
    return _joined(grad_hidden, hidden.shape[0]), _added_up(grad_table), None


token_log_probs.defvjp(_token_log_probs_fwd, _token_log_probs_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_nll(
    head: HeadOptions,
    hidden: Float[Array, "N D"],
    table: Float[Array, "V D"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
) -> Float[Array, ""]:
    """Chunked version of `reference.weighted_nll`."""
    table = _whole(head, table)

    def one(args: tuple[Array, Array]):
        return _normaliser(_chunk_logits(head, args[0], table), args[1])[1]

    log_probs = jax.lax.map(one, _split(head, hidden, targets))
    # `where` is needed: padding may hold an infinity, and inf * 0 is a NaN.
    nll = -_joined(log_probs, hidden.shape[0])
    return jnp.where(weights != 0, nll * weights, 0.0).sum()


def _weighted_nll_fwd(
    head: HeadOptions, hidden: Array, table: Array, targets: Array, weights: Array
):
    xs = _split(head, hidden, targets, weights)
    start = jnp.zeros((), jnp.float32), _zeros(table, xs[0])
    table = _whole(head, table)
    # Float16 gradients stay float32 until the backward pass applies the loss scale.
    kept = jnp.float32 if head.dtype == "float16" else hidden.dtype

    def one(carry: tuple[Array, Array], args: tuple[Array, ...]):
        total, grad_table = carry
        hidden, targets, weights = args
        scores = _chunk_logits(head, hidden, table)
        log_z, log_prob = _normaliser(scores, targets)
        counts = weights != 0
        total = total - jnp.where(counts, log_prob * weights, 0.0).sum()
        probs = jnp.exp(scores - log_z[:, None])
        grad_logits = weights[:, None] * _softmax_minus_one_hot(probs, targets)
        grad_logits = jnp.where(counts[:, None], grad_logits, 0.0)
        grad_hidden, more = _gradients(head, hidden, table, grad_logits, dtype=kept)
        return (total, grad_table + more), grad_hidden

    (total, grad_table), grad_hidden = jax.lax.scan(one, start, xs)
    return total, (_joined(grad_hidden, hidden.shape[0]), _added_up(grad_table))


def _weighted_nll_bwd(head: HeadOptions, saved: Any, grad_out: Array):
    grad_hidden, grad_table = saved
    dtype = head.dtype if head.dtype == "float16" else grad_hidden.dtype
    grad_hidden = (grad_hidden.astype(jnp.float32) * grad_out).astype(dtype)
    return grad_hidden, grad_table * grad_out, None, None


weighted_nll.defvjp(_weighted_nll_fwd, _weighted_nll_bwd)
