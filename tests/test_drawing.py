"""Drawn tokens have the right distribution and log-prob."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.drawing import draw, gumbel_max, nucleus, token_keys


def naive_nucleus(logits: np.ndarray, top_p: float) -> np.ndarray:
    """Most probable tokens first, until they have the probability."""
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    kept, total = np.full(logits.shape, -np.inf), 0.0
    for token in np.argsort(-probs):
        kept[token] = logits[token]
        total += probs[token]
        if total >= top_p:
            break
    return kept


def keys_of(key, *shape: int) -> jax.Array:
    return jax.random.split(key, shape)


@pytest.mark.parametrize("size", [1, 7, 128, 300])
def test_the_race_against_a_loop(rng, key, size):
    logits = rng.normal(0, 3, (1, 50, size)).astype(np.float32)
    logits[0, :, rng.permutation(size)[: size // 2]] = -np.inf
    keys = keys_of(key, 1, 50)
    starts = range(0, size, 128)
    want = []
    for row, k in zip(logits[0].astype(np.float64), keys[0], strict=True):
        noise = np.asarray(jax.random.gumbel(k, (len(starts) + 128,)))
        sums = [np.log(np.exp(row[s : s + 128]).sum()) for s in starts]
        block = int(np.argmax(sums + noise[: len(starts)]))
        inside = row[128 * block : 128 * (block + 1)]
        noise = noise[len(starts) :][: len(inside)]
        want.append(128 * block + int(np.argmax(inside + noise)))
    np.testing.assert_array_equal(jax.jit(gumbel_max)(logits, keys)[0], want)


def test_nothing_impossible_is_drawn_even_of_large_logits(rng, key):
    logits = 1e4 + rng.normal(size=(4, 200, 200)).astype(np.float32)
    logits[..., :20] = logits[..., 150:] = -np.inf
    got = gumbel_max(logits, keys_of(key, 4, 200))
    assert ((got >= 20) & (got < 150)).all() and len(np.unique(got)) > 100


def test_frequencies_over_several_blocks_are_the_distribution(rng, key):
    count, logits = 40_000, rng.normal(0, 2, 300).astype(np.float32)
    got = jax.jit(gumbel_max)(
        np.broadcast_to(logits, (1, count, 300)), keys_of(key, 1, count)
    )
    probs = np.exp(logits) / np.exp(logits).sum()
    observed = np.bincount(got[0], minlength=300) / count
    errors = (observed - probs) / np.sqrt(probs * (1 - probs) / count)
    # No standard score of the 300 is wild, and their mean square is 1.
    assert np.abs(errors).max() < 5
    assert np.square(errors).mean() == pytest.approx(1, abs=0.3)


def test_rounding_does_not_change_what_is_drawn(rng, key):
    """In another batch the sums of a product are taken in another order."""
    logits = rng.normal(0, 0.3, (1, 4000, 2048)).astype(np.float32)
    # Enough to move the distribution function past a number now and then.
    other = logits + np.linspace(-5e-6, 5e-6, 2048, dtype=np.float32)
    keys = keys_of(key, 1, 4000)
    np.testing.assert_array_equal(
        *(jax.jit(gumbel_max)(x, keys) for x in (logits, other))
    )


def test_each_token_has_its_own_key(key):
    keys = token_keys(key, jnp.array([3, 5]), 2, 4)
    assert keys.shape == (2, 2, 4)
    assert len(np.unique(jax.random.key_data(keys).reshape(16, -1), axis=0)) == 16
    alone = token_keys(key, jnp.array([5]), 2, 4)
    np.testing.assert_array_equal(*map(jax.random.key_data, (keys[1], alone[0])))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_nucleus_against_a_loop(rng, top_p):
    logits = rng.normal(0, 2, (6, 1, 20)).astype(np.float32)
    expected = [naive_nucleus(row.astype(np.float64), top_p) for row in logits[:, 0]]
    np.testing.assert_allclose(nucleus(logits, top_p)[:, 0], expected, rtol=1e-6)


def test_nucleus_by_hand():
    logits = jnp.log(jnp.array([[[0.2, 0.5, 0.3]]]))
    kept = np.isfinite(nucleus(logits, 0.6))
    # 0.5 is not enough; with 0.3 it is.
    np.testing.assert_array_equal(kept, [[[False, True, True]]])


def test_a_tiny_nucleus_and_temperature_zero_are_greedy(rng, key):
    logits = rng.normal(size=(8, 3, 20)).astype(np.float32)
    keys = keys_of(key, 8, 3)
    best = logits.argmax(axis=-1)
    for options in (dict(top_p=1e-6), dict(temperature=0.0)):
        np.testing.assert_array_equal(draw(logits, keys, **options)[0], best)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.6)])
def test_frequencies_are_the_distribution(key, temperature, top_p):
    count, logits = 20_000, np.log([0.4, 0.3, 0.15, 0.1, 0.05])
    run = functools.partial(draw, temperature=temperature, top_p=top_p)
    tokens, log_probs = jax.jit(run)(
        jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (1, count, 5)),
        keys_of(key, 1, count),
    )
    full = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    probs = np.exp(naive_nucleus(logits / temperature, top_p))
    probs /= probs.sum()
    observed = np.bincount(tokens[0], minlength=5) / count
    # Four standard deviations of a binomial frequency.
    slack = 4 * np.sqrt(probs * (1 - probs) / count)
    assert (np.abs(observed - probs) <= slack).all(), (observed, probs)
    np.testing.assert_allclose(log_probs, np.log(full)[tokens], rtol=1e-4)
