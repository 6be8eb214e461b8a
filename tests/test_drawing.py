"""What is drawn has the distribution it should have, and its log-prob."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.drawing import draw, invert, nucleus


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


@pytest.mark.parametrize("size", [1, 7, 128, 300])
def test_inversion_against_a_search(rng, size):
    logits = rng.normal(0, 3, (1, 500, size)).astype(np.float32)
    logits[0, :, rng.permutation(size)[: size // 2]] = -np.inf
    uniform = rng.random((1, 500)).astype(np.float32)
    ends = np.exp(logits[0].astype(np.float64)).cumsum(axis=-1)
    at = uniform[0] * ends[:, -1]
    want = [np.searchsorted(*x, side="right") for x in zip(ends, at, strict=True)]
    got = jax.jit(invert)(logits, uniform)[0]
    assert (got != np.array(want)).mean() <= 0.002, "but for rounding at an edge"


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-24])
def test_inversion_at_its_ends_draws_nothing_impossible(rng, uniform):
    logits = rng.normal(size=(1, 200, 200)).astype(np.float32)
    logits[..., :20] = logits[..., 150:] = -np.inf
    got = invert(logits, np.full((1, 200), uniform, np.float32))
    assert (got == (20 if uniform == 0 else 149)).all()


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_nucleus_against_a_loop(rng, top_p):
    logits = rng.normal(0, 2, (6, 1, 20)).astype(np.float32)
    expected = [naive_nucleus(row.astype(np.float64), top_p) for row in logits[:, 0]]
    np.testing.assert_allclose(nucleus(logits, top_p)[:, 0], expected, rtol=1e-6)


def test_nucleus_by_hand():
    logits = jnp.log(jnp.array([[0.2, 0.5, 0.3]]))
    kept = np.isfinite(nucleus(logits, 0.6))
    # 0.5 is not enough; with 0.3 it is.
    np.testing.assert_array_equal(kept, [[False, True, True]])


def test_a_tiny_nucleus_and_temperature_zero_are_greedy(rng, key):
    logits = rng.normal(size=(8, 3, 20)).astype(np.float32)
    uniform = jax.random.uniform(key, (8, 3))
    best = logits.argmax(axis=-1)
    for options in (dict(top_p=1e-6), dict(temperature=0.0)):
        np.testing.assert_array_equal(draw(logits, uniform, **options)[0], best)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.6)])
def test_frequencies_are_the_distribution(key, temperature, top_p):
    count, logits = 20_000, np.log([0.4, 0.3, 0.15, 0.1, 0.05])
    run = functools.partial(draw, temperature=temperature, top_p=top_p)
    tokens, log_probs = jax.jit(run)(
        jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (1, count, 5)),
        jax.random.uniform(key, (1, count)),
    )
    full = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    probs = np.exp(naive_nucleus(logits / temperature, top_p))
    probs /= probs.sum()
    observed = np.bincount(tokens[0], minlength=5) / count
    # Four standard deviations of a binomial frequency.
    slack = 4 * np.sqrt(probs * (1 - probs) / count)
    assert (np.abs(observed - probs) <= slack).all(), (observed, probs)
    np.testing.assert_allclose(log_probs, np.log(full)[tokens], rtol=1e-4)
