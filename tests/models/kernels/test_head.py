"""The head's own gradients against those of all logits at once.

Letters: N tokens, D width, V rows of the table.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.kernels.head import token_log_probs, weighted_nll
from instructgpt.models.kernels.interface import HeadOptions

N, D, V, KNOWN = 13, 5, 11, 9
HEAD = HeadOptions(KNOWN, "float32", 4, temperature=0.7)


@pytest.fixture
def given(rng):
    """(hidden, table, targets, slopes of each token)."""
    return (
        jnp.asarray(rng.normal(size=(N, D)), jnp.float32),
        jnp.asarray(rng.normal(size=(V, D)), jnp.float32),
        jnp.asarray(rng.integers(0, KNOWN, N), jnp.int32),
        jnp.asarray(rng.normal(size=N) * (rng.random(N) < 0.7), jnp.float32),
    )


def naive(hidden, table, targets, temperature):
    """Log-probs [N] and entropies [N] from [N, V] logits."""
    logits = (hidden @ table.T)[:, :KNOWN] / temperature
    log_p = jax.nn.log_softmax(logits, axis=-1)
    taken = log_p[jnp.arange(len(targets)), targets]
    return taken, -(jnp.exp(log_p) * log_p).sum(axis=-1)


def close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5),
        actual,
        expected,
    )


@pytest.mark.parametrize("chunk", [1, 4, N, 64])
def test_token_log_probs_and_their_gradient(given, chunk):
    hidden, table, targets, slopes = given
    head = HEAD._replace(chunk=chunk)

    def ours(hidden, table):
        out = token_log_probs(head, hidden, table, targets)
        return (out.log_probs * slopes).sum(), out

    def plain(hidden, table):
        out = naive(hidden, table, targets, head.temperature)
        return (out[0] * slopes).sum(), out

    (_, out), grads = jax.value_and_grad(ours, (0, 1), has_aux=True)(hidden, table)
    (_, want), wanted = jax.value_and_grad(plain, (0, 1), has_aux=True)(hidden, table)
    close(tuple(out), want)
    close(grads, wanted)


@pytest.mark.parametrize("chunk", [1, 4, N, 64])
def test_weighted_nll_and_its_gradient(given, chunk):
    hidden, table, targets, weights = given
    head = HEAD._replace(chunk=chunk)

    def ours(hidden, table):
        return 3.0 * weighted_nll(head, hidden, table, targets, weights)

    def plain(hidden, table):
        return -3.0 * (naive(hidden, table, targets, 0.7)[0] * weights).sum()

    close(ours(hidden, table), plain(hidden, table))
    got, want = (jax.value_and_grad(f, (0, 1))(hidden, table) for f in (ours, plain))
    close(got, want)


def test_what_has_no_weight_has_no_gradient_even_if_it_is_infinite(given):
    hidden, table, targets, weights = given
    hidden = hidden.at[2].set(jnp.inf)
    weights = weights.at[2].set(0.0)
    loss, grads = jax.value_and_grad(
        lambda h, t: weighted_nll(HEAD, h, t, targets, weights), (0, 1)
    )(hidden, table)
    assert np.isfinite(loss)
    assert not grads[0][2].any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_in_half_precision_give_float32_gradients_of_the_table(given, dtype):
    hidden, table, targets, weights = given
    head = HEAD._replace(dtype=dtype)
    exact = jax.grad(lambda t: weighted_nll(HEAD, hidden, t, targets, weights))(table)
    for loss in (
        lambda h, t: weighted_nll(head, h, t, targets, weights),
        lambda h, t: -(token_log_probs(head, h, t, targets).log_probs * weights).sum(),
    ):
        by_hidden, by_table = jax.grad(loss, (0, 1))(hidden.astype(dtype), table)
        assert (by_hidden.dtype, by_table.dtype) == (dtype, jnp.float32)
        np.testing.assert_allclose(by_table, exact, atol=0.1)


def test_the_loss_scale_comes_before_states_gradients_are_rounded(given):
    """Small ones, which float16 would round to multiples of 6e-8, keep their digits."""
    hidden, table, targets, _ = given
    head, weights = HEAD._replace(dtype="float16"), jnp.full(N, 1e-4)
    hidden, table = hidden.astype(jnp.float16), 0.01 * table

    def scaled(hidden, head):
        return 2.0**12 * weighted_nll(head, hidden, table, targets, weights)

    exact = jax.grad(scaled)(hidden.astype(jnp.float32), HEAD)
    found = jax.grad(scaled)(hidden, head)
    assert found.dtype == jnp.float16
    assert float(jnp.abs(exact).max()) / 2.0**12 < 5e-6
    np.testing.assert_allclose(found, exact, atol=0.003 * float(jnp.abs(exact).max()))


def test_the_unpredictable_rows_of_the_table_learn_nothing(given):
    hidden, table, targets, weights = given
    slope = jax.grad(lambda t: weighted_nll(HEAD, hidden, t, targets, weights))(table)
    assert slope[:KNOWN].any() and not slope[KNOWN:].any()
