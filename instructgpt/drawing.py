"""Logits -> tokens: temperature, nucleus, and one random number a token.

Letters: B prompts, K samples per prompt, R response, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array
_BLOCK = 128  # tokens


def uniforms(key: Array, row_ids: Array, samples: int, length: int) -> Array:
    """Uniform numbers in [0, 1), each from its own key: float32[B, K, R].

    Args:
      key: Folded with the row's id, the sample's number and the token's index.
      row_ids: int32[B].
      samples: K.
      length: R, tokens of a response.
    """

    def one(*numbers: Array) -> Array:
        return jax.random.uniform(functools.reduce(jax.random.fold_in, numbers, key))

    each = jax.vmap(
        jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None)
    )
    return each(row_ids, jnp.arange(samples), jnp.arange(length))


def nucleus(logits: Array, top_p: float) -> Array:
    """Sets logits outside the smallest set with probability >= top_p to -inf."""
    ordered = jnp.sort(logits, axis=-1)[..., ::-1]
    probs = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = jnp.where(before < top_p, ordered, jnp.inf)
    return jnp.where(logits >= kept.min(axis=-1, keepdims=True), logits, -jnp.inf)


def draw(
    logits: Array,
    uniform: Array,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    banned_ids: tuple[int, ...] = (),
) -> tuple[Array, Array]:
    """Draws a token from each row of logits.

    Args:
      logits: float32[B, K, V].
      uniform: float32[B, K] in [0, 1), of `uniforms`.
      temperature: Divides the logits; 0 takes the most probable token.
      top_p: Draws from the smallest set of tokens with this probability.
      banned_ids: Never drawn.

    Returns:
      (int32[B, K] tokens, float32[B, K] log-probs). The log-prob is that of the full
      distribution at the sampling temperature (at temperature 1 when greedy), as a
      scoring pass computes it; top-p and banned ids narrow what can be drawn, not
      the distribution that is scored.
    """
    choice = scaled = logits / (temperature or 1.0)
    if banned_ids:
        choice = choice.at[..., jnp.array(banned_ids)].set(-jnp.inf)
    if temperature == 0:
        tokens = jnp.argmax(choice, axis=-1)
    else:
        if top_p < 1:
            choice = nucleus(choice, top_p)
        tokens = invert(choice, uniform)
    taken = jnp.take_along_axis(scaled, tokens[..., None], axis=-1)[..., 0]
    log_probs = taken - jax.nn.logsumexp(scaled, axis=-1)
    return tokens.astype(jnp.int32), log_probs


def invert(logits: Array, uniform: Array) -> Array:
    """The token at which the distribution function passes a uniform number.

    One random number a token instead of one a row of the vocabulary. The sums go over
    blocks of tokens first, then over the tokens of one block.

    Args:
      logits: float32[B, K, V]; -inf is never drawn.
      uniform: float32[B, K] in [0, 1).

    Returns:
      int32[B, K].
    """
    probs = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    padding = [(0, 0)] * (probs.ndim - 1) + [(0, -probs.shape[-1] % _BLOCK)]
    blocks = jnp.pad(probs, padding).reshape(*probs.shape[:-1], -1, _BLOCK)
    ends = jnp.cumsum(blocks.sum(axis=-1), axis=-1)
    target = uniform * ends[..., -1]
    block = _first_above(ends, target)[..., None]
    before = jnp.take_along_axis(ends, jnp.maximum(block - 1, 0), axis=-1)
    target = target - jnp.where(block > 0, before, 0.0)[..., 0]
    inside = jnp.take_along_axis(blocks, block[..., None], axis=-2)[..., 0, :]
    token = _first_above(jnp.cumsum(inside, axis=-1), target)
    return block[..., 0] * _BLOCK + token


def _first_above(sums: Array, target: Array) -> Array:
    """The first of rising sums [..., n] above the target [...].

    Or, if rounding leaves none, the last at which they rose: never one that adds 0.
    """
    above = sums > target[..., None]
    last = jnp.argmax(sums, axis=-1)
    return jnp.where(above.any(axis=-1), jnp.argmax(above, axis=-1), last)
