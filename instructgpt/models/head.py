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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.sharding import current_ways

Array = jax.Array


class TokenLogProbs(NamedTuple):
    """What the language-model head says about given tokens."""

    log_probs: Array  # float32[N] of the target tokens
    entropy: Array  # float32[N] of the whole distribution, in nats; has no gradient


class Head(NamedTuple):
    """What the functions below share; static under jit."""

    vocab_size: int  # rows of the table from here on are never predicted
    dtype: str  # of the products
    chunk: int  # c, on each device that has rows of its own
    temperature: float = 1.0

    def logits(self, hidden: Array, table: Array) -> Array:
        """Hidden states [..., D] -> float32 logits [..., V] over the temperature.

        Args:
          hidden: In the compute dtype.
          table: [V, D].
        """
        logits = jnp.einsum(
            "...d,vd->...v",
            hidden,
            table.astype(self.dtype),
            preferred_element_type=jnp.float32,
        )
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if table.shape[0] == self.vocab_size:
            return logits
        known = jnp.arange(table.shape[0]) < self.vocab_size
        return jnp.where(known.reshape((1,) * (logits.ndim - 1) + (-1,)), logits, -1e30)

    def products(self, hidden: Array, table: Array, slope: Array):
        """Gradients by hidden [c, D] and table float32[V, D], from those by logits.

        Args:
          hidden: [c, D].
          table: [V, D].
          slope: float32[c, V], of the logits over the temperature.
        """
        slope = (slope / self.temperature).astype(self.dtype)
        by_hidden = jnp.einsum("cv,vd->cd", slope, table.astype(self.dtype))
        by_table = jnp.einsum(
            "cv,cd->vd", slope, hidden, preferred_element_type=jnp.float32
        )
        return by_hidden, by_table


def _normaliser(logits: Array, targets: Array) -> tuple[Array, Array]:
    """log of the sum of exp [c], and the targets' log-probs [c]."""
    log_z = jax.nn.logsumexp(logits, axis=-1)
    taken = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return log_z, taken - log_z


def _above_target(probs: Array, targets: Array) -> Array:
    """The gradient of -log p(target) by the logits: p, and p - 1 at the target."""
    hit = jnp.arange(probs.shape[-1])[None] == targets[:, None]
    return probs - hit.astype(probs.dtype)


def _chunks(x: Array, size: int) -> Array:
    """[N, ...] -> [N / c, c, ...], padded, strided so that devices keep their rows."""
    padding = -x.shape[0] % size
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(size, -1, *x.shape[1:]).swapaxes(0, 1)


def _joined(x: Array, count: int) -> Array:
    """The inverse of `_chunks`."""
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
    table = whole.astype(head.dtype)  # once, not in each chunk

    def one(args: tuple[Array, Array]):
        logits = head.logits(args[0], table)
        log_z, log_prob = _normaliser(logits, args[1])
        # E[log p] = E[logit] - log Z; what is never predicted has probability 0.
        mean = (jnp.exp(logits - log_z[:, None]) * logits).sum(axis=-1)
        return log_prob, log_z - mean, log_z

    out = jax.lax.map(one, _split(head, hidden, targets))
    log_prob, entropy, log_z = (_joined(x, hidden.shape[0]) for x in out)
    return TokenLogProbs(log_prob, entropy), (hidden, whole, targets, log_z)


def _token_log_probs_bwd(head: Head, saved: Any, slopes: TokenLogProbs):
    hidden, whole, targets, log_z = saved
    table = whole.astype(head.dtype)

    def one(by_table: Array, args: tuple[Array, ...]):
        hidden, targets, log_z, slope = args
        probs = jnp.exp(head.logits(hidden, table) - log_z[:, None])
        slope = -slope[:, None] * _above_target(probs, targets)
        by_hidden, more = head.products(hidden, table, slope)
        return by_table + more, by_hidden

    xs = _split(head, hidden, targets, log_z, slopes.log_probs)
    by_table, by_hidden = jax.lax.scan(one, jnp.zeros_like(whole), xs)
    return _joined(by_hidden, hidden.shape[0]), by_table, None


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
    table = table.astype(head.dtype)

    def one(args: tuple[Array, Array]):
        return _normaliser(head.logits(args[0], table), args[1])[1]

    log_probs = jax.lax.map(one, _split(head, hidden, targets))
    # Not a bare product: padding may hold an infinity, and inf * 0 is a NaN.
    nll = -_joined(log_probs, hidden.shape[0])
    return jnp.where(weights != 0, nll * weights, 0.0).sum()


def _weighted_nll_fwd(
    head: Head, hidden: Array, table: Array, targets: Array, weights: Array
):
    start = jnp.zeros((), jnp.float32), jnp.zeros_like(table)
    table = table.astype(head.dtype)

    def one(carry: tuple[Array, Array], args: tuple[Array, ...]):
        total, by_table = carry
        hidden, targets, weights = args
        logits = head.logits(hidden, table)
        log_z, log_prob = _normaliser(logits, targets)
        counts = weights != 0
        total = total - jnp.where(counts, log_prob * weights, 0.0).sum()
        probs = jnp.exp(logits - log_z[:, None])
        slope = weights[:, None] * _above_target(probs, targets)
        slope = jnp.where(counts[:, None], slope, 0.0)
        by_hidden, more = head.products(hidden, table, slope)
        return (total, by_table + more), by_hidden

    xs = _split(head, hidden, targets, weights)
    (total, by_table), by_hidden = jax.lax.scan(one, start, xs)
    return total, (_joined(by_hidden, hidden.shape[0]), by_table)


def _weighted_nll_bwd(head: Head, saved: Any, slope: Array):
    by_hidden, by_table = saved
    by_hidden = (by_hidden.astype(jnp.float32) * slope).astype(by_hidden.dtype)
    return by_hidden, by_table * slope, None, None


weighted_nll.defvjp(_weighted_nll_fwd, _weighted_nll_bwd)
