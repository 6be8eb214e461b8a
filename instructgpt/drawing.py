"""Draws tokens from logits: temperature, nucleus, and a cheap Gumbel-max draw.

Letters: B prompts, K samples per prompt, R response, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Float, Int, Key

_BLOCK = 128  # tokens of the vocabulary in a block


def token_keys(
    key: Key[Array, ""], row_ids: Int[Array, " B"], samples: int, length: int
) -> Key[Array, "B K R"]:
    """Random key of each token of each response.

    Args:
      key: The key that is folded with row id, sample number and token index.
      row_ids: Ids of the prompts.
      samples: Number of samples per prompt, K.
      length: Tokens of a response, R.
    """

    def one(*numbers: Array) -> Array:
        return functools.reduce(jax.random.fold_in, numbers, key)

    each = jax.vmap(
        jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None)
    )
    return each(row_ids, jnp.arange(samples), jnp.arange(length))


def nucleus(logits: Float[Array, "B K V"], top_p: float) -> Float[Array, "B K V"]:
    """Sets logits outside the smallest set with probability >= top_p to -inf."""
    ordered = jnp.sort(logits, axis=-1)[..., ::-1]
    probs = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = jnp.where(before < top_p, ordered, jnp.inf)
    return jnp.where(logits >= kept.min(axis=-1, keepdims=True), logits, -jnp.inf)


def draw(
    logits: Float[Array, "B K V"],
    keys: Key[Array, "B K"],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    banned_ids: tuple[int, ...] = (),
) -> tuple[Int[Array, "B K"], Float[Array, "B K"]]:
    """Draws a token from each row of logits.

    Args:
      logits: Float32.
      keys: Keys of the tokens, from `token_keys`.
      temperature: Divides the logits; 0 takes the most probable token.
      top_p: Probability of the smallest set of tokens that is drawn from.
      banned_ids: Tokens that are never drawn.

    Returns:
      (tokens, log-probs). The log-prob is that of the full
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
        tokens = gumbel_max(choice, keys)
    taken = jnp.take_along_axis(scaled, tokens[..., None], axis=-1)[..., 0]
    log_probs = taken - jax.nn.logsumexp(scaled, axis=-1)
    return tokens.astype(jnp.int32), log_probs


def gumbel_max(
    logits: Float[Array, "B K V"], keys: Key[Array, "B K"]
) -> Int[Array, "B K"]:
    """Draws tokens with probability softmax(logits), by Gumbel-max in two rounds.

    The argmax of logits plus Gumbel noise is a draw from their softmax. The first round
    draws a block of tokens by its total probability, the second a token of that block,
    with V / 128 + 128 random numbers rather than V. One uniform number would suffice
    (inverse-CDF sampling), but sums over the vocabulary round differently with another
    batch or mesh, which would now and then change the token. Here rounding matters only
    where the two best candidates tie.

    Args:
      logits: Float32 logits; -inf is never drawn.
      keys: One key per draw.
    """
    *lead, size = logits.shape
    padding = [(0, 0)] * len(lead) + [(0, -size % _BLOCK)]
    padded = jnp.pad(logits, padding, constant_values=-jnp.inf)
    blocks = padded.reshape(*lead, -1, _BLOCK)
    count = blocks.shape[-2]
    noise = jax.vmap(jax.vmap(lambda k: jax.random.gumbel(k, (count + _BLOCK,))))(keys)
    top = logits.max(axis=-1, keepdims=True)
    sums = jnp.log(jnp.exp(blocks - top[..., None]).sum(axis=-1))
    block = jnp.argmax(sums + noise[..., :count], axis=-1)
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * _BLOCK + jnp.argmax(inside + noise[..., count:], axis=-1)
