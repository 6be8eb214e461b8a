"""The language-model head: hidden states to log-probs, never all logits at once.

Logits are as wide as the vocabulary, so they are made for one chunk of tokens at a time
and thrown away. Two functions have gradients of their own:

- `token_log_probs` makes a chunk's logits again for the gradient, since what it is
  multiplied by is known only then (a clipped ratio, say): four products with the table.
- `weighted_nll`, whose weights are known, makes the gradient along with the loss:
  three products.

Letters: N tokens, D width, V rows of the table, c tokens of a chunk.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.models.products import summed_outer
from instructgpt.sharding import constrain, current_ways

Array = jax.Array
_FEW_ROWS = 64


class TokenLogProbs(NamedTuple):
    """What the language-model head says about given tokens."""

    log_probs: Array  # float32[N] of the target tokens
    entropy: Array  # float32[N] of the whole distribution, in nats; has no gradient


class Head(NamedTuple):
    """What the functions below share; static under jit."""

    vocab_size: int  # rows of the table from here on are never predicted
    dtype: str  # that the products multiply in
    chunk: int  # c, on each device that has rows of its own
    temperature: float = 1.0

    def logits(self, hidden: Array, table: Array) -> Array:
        """Hidden states [..., D] -> float32 logits [..., V] over the temperature.

        Args:
          hidden: In the compute dtype.
          table: [V, D].
        """
        logits = _product(hidden.astype(self.dtype), table.astype(self.dtype))
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if table.shape[0] == self.vocab_size:
            return logits
        known = jnp.arange(table.shape[0]) < self.vocab_size
        return jnp.where(known.reshape((1,) * (logits.ndim - 1) + (-1,)), logits, -1e30)

    def products(self, hidden: Array, table: Array, slope: Array, *, dtype: Any):
        """Gradients by hidden [c, D] and table float32[V, D], from those by logits.

        Args:
          hidden: [c, D].
          table: [V, D].
          slope: float32[c, V], of the logits over the temperature.
          dtype: Of the gradient by hidden.

        Returns:
          ([c, D], float32[W, V, D] of the rows of each of W devices).
        """
        slope = slope / self.temperature
        by_hidden = jnp.einsum(
            "cv,vd->cd",
            slope.astype(self.dtype),
            table.astype(self.dtype),
            preferred_element_type=dtype,
        )
        slope = slope.astype(hidden.dtype)
        # Of each device's rows by themselves: they are added up once, after all chunks.
        slope, hidden = (x.reshape(_parts(x), -1, x.shape[1]) for x in (slope, hidden))
        outer = functools.partial(summed_outer, dtype=jnp.float32)
        by_table = jax.vmap(outer)(slope, hidden)
        return by_hidden, constrain(by_table, "batch", "vocab", None)


def _product(hidden: Array, table: Array) -> Array:
    """[..., D] and [V, D] -> float32[..., V]."""

    def straight(hidden: Array, table: Array) -> Array:
        return jnp.einsum(
            "...d,vd->...v", hidden, table, preferred_element_type=jnp.float32
        )

    def turned(hidden: Array, table: Array) -> Array:
        # With few rows a CPU takes most of the time to read the table: fastest along
        # its own rows. Else XLA sees a transposed product and turns it back.
        rows = jnp.einsum(
            "vd,...d->v...", table, hidden, preferred_element_type=jnp.float32
        )
        return jnp.moveaxis(jax.lax.optimization_barrier(rows), 0, -1)

    few = math.prod(hidden.shape[:-1]) <= _FEW_ROWS * current_ways()
    cpu = turned if few else straight
    return jax.lax.platform_dependent(hidden, table, cpu=cpu, default=straight)


def _normaliser(logits: Array, targets: Array) -> tuple[Array, Array]:
    """log of the sum of exp [c], and the targets' log-probs [c]."""
    log_z = jax.nn.logsumexp(logits, axis=-1)
    taken = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return log_z, taken - log_z


def _above_target(probs: Array, targets: Array) -> Array:
    """The gradient of -log p(target) by the logits: p, and p - 1 at the target."""
    hit = jnp.arange(probs.shape[-1])[None] == targets[:, None]
    return probs - hit.astype(probs.dtype)


def _whole(head: Head, table: Array) -> Array:
    """The table as all chunks read it: gathered once, and cast once."""
    return constrain(table.astype(head.dtype), "vocab", None)


def _parts(rows: Array) -> int:
    """Over how many devices the rows of a chunk are cut: W."""
    ways = current_ways()
    return 1 if rows.shape[0] % ways else ways


def _zeros(table: Array, chunks: Array) -> Array:
    """A gradient to add to, of each device's rows by themselves: [W, V, D]."""
    zeros = jnp.zeros((_parts(chunks[0]), *table.shape), table.dtype)
    return constrain(zeros, "batch", "vocab", None)


def _added_up(by_table: Array) -> Array:
    """[W, V, D] -> [V, D], cut as the table is."""
    return constrain(by_table.sum(axis=0), "vocab", "embed")


def _logits(head: Head, hidden: Array, table: Array) -> Array:
    """Of a chunk, whose rows stay on their devices."""
    hidden = constrain(hidden, "batch", None)
    return constrain(head.logits(hidden, table), "batch", "vocab")


def _chunks(x: Array, size: int) -> Array:
    """[N, ...] -> [N / c, c, ...], padded, strided so that devices keep their rows."""
    padding = -x.shape[0] % size
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    x = x.reshape(size, -1, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x, None, "batch", *[None] * (x.ndim - 2))


def _joined(x: Array, count: int) -> Array:
    """The inverse of `_chunks`."""
    x = constrain(x, None, "batch", *[None] * (x.ndim - 2))
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:count]


def _split(head: Head, *arrays: Array) -> tuple[Array, ...]:
    size = min(head.chunk * current_ways(), arrays[0].shape[0])
    return tuple(_chunks(x, size) for x in arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def token_log_probs(
    head: Head, hidden: Array, table: Array, targets: Array
) -> TokenLogProbs:
    """Log-probs of given tokens.

    Args:
      head: See Head.
      hidden: [N, D] states that predict the targets, in the compute dtype.
      table: float32[V, D].
      targets: int32[N].
    """
    return _token_log_probs_fwd(head, hidden, table, targets)[0]


def _token_log_probs_fwd(head: Head, hidden: Array, whole: Array, targets: Array):
    table = _whole(head, whole)

    def one(args: tuple[Array, Array]):
        logits = _logits(head, args[0], table)
        log_z, log_prob = _normaliser(logits, args[1])
        # E[log p] = E[logit] - log Z; what is never predicted has probability 0.
        mean = (jnp.exp(logits - log_z[:, None]) * logits).sum(axis=-1)
        return log_prob, log_z - mean, log_z

    out = jax.lax.map(one, _split(head, hidden, targets))
    log_prob, entropy, log_z = (_joined(x, hidden.shape[0]) for x in out)
    return TokenLogProbs(log_prob, entropy), (hidden, whole, targets, log_z)


def _token_log_probs_bwd(head: Head, saved: Any, slopes: TokenLogProbs):
    hidden, whole, targets, log_z = saved
    table = _whole(head, whole)

    def one(by_table: Array, args: tuple[Array, ...]):
        hidden, targets, log_z, slope = args
        probs = jnp.exp(_logits(head, hidden, table) - log_z[:, None])
        slope = -slope[:, None] * _above_target(probs, targets)
        by_hidden, more = head.products(hidden, table, slope, dtype=hidden.dtype)
        return by_table + more, by_hidden

    xs = _split(head, hidden, targets, log_z, slopes.log_probs)
    by_table, by_hidden = jax.lax.scan(one, _zeros(whole, xs[0]), xs)
    return _joined(by_hidden, hidden.shape[0]), _added_up(by_table), None


token_log_probs.defvjp(_token_log_probs_fwd, _token_log_probs_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_nll(
    head: Head, hidden: Array, table: Array, targets: Array, weights: Array
) -> Array:
    """Sum over tokens of weight * -log p(target), in nats: float32[].

    Args:
      head: See Head.
      hidden: [N, D] states that predict the targets, in the compute dtype.
      table: float32[V, D].
      targets: int32[N].
      weights: float32[N]; has no gradient.
    """
    table = _whole(head, table)

    def one(args: tuple[Array, Array]):
        return _normaliser(_logits(head, args[0], table), args[1])[1]

    log_probs = jax.lax.map(one, _split(head, hidden, targets))
    # Not a bare product: padding may hold an infinity, and inf * 0 is a NaN.
    nll = -_joined(log_probs, hidden.shape[0])
    return jnp.where(weights != 0, nll * weights, 0.0).sum()


def _weighted_nll_fwd(
    head: Head, hidden: Array, table: Array, targets: Array, weights: Array
):
    xs = _split(head, hidden, targets, weights)
    start = jnp.zeros((), jnp.float32), _zeros(table, xs[0])
    table = _whole(head, table)
    # The loss scale, which float16 needs, comes in with the backward pass.
    kept = jnp.float32 if head.dtype == "float16" else hidden.dtype

    def one(carry: tuple[Array, Array], args: tuple[Array, ...]):
        total, by_table = carry
        hidden, targets, weights = args
        logits = _logits(head, hidden, table)
        log_z, log_prob = _normaliser(logits, targets)
        counts = weights != 0
        total = total - jnp.where(counts, log_prob * weights, 0.0).sum()
        probs = jnp.exp(logits - log_z[:, None])
        slope = weights[:, None] * _above_target(probs, targets)
        slope = jnp.where(counts[:, None], slope, 0.0)
        by_hidden, more = head.products(hidden, table, slope, dtype=kept)
        return (total, by_table + more), by_hidden

    (total, by_table), by_hidden = jax.lax.scan(one, start, xs)
    return total, (_joined(by_hidden, hidden.shape[0]), _added_up(by_table))


def _weighted_nll_bwd(head: Head, saved: Any, slope: Array):
    by_hidden, by_table = saved
    dtype = head.dtype if head.dtype == "float16" else by_hidden.dtype
    by_hidden = (by_hidden.astype(jnp.float32) * slope).astype(dtype)
    return by_hidden, by_table * slope, None, None


weighted_nll.defvjp(_weighted_nll_fwd, _weighted_nll_bwd)
