"""Shared parts of all steps: microbatches, one trace, donation, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instructgpt.losses import Weighted, masked_sum
from instructgpt.state import TrainState
from instructgpt.steps.update import gradients, make_train_step, split_rows
from tests import tiny

PARAMS = {"w": jnp.array([0.5, -1.0])}
X = np.arange(12, dtype=np.float32).reshape(6, 2) / 4
# Rows of one microbatch may weigh much more than those of another.
MASK = np.array([True, False, True, False, True, True])


def squares(params, batch, key):
    """Mean over the masked rows of (x . w)^2."""
    x, mask = batch
    out = masked_sum(jnp.square(x @ params["w"]), mask)
    return out, {"rows": masked_sum(x[:, 0], mask)}


def noisy(params, batch, key):
    out, metrics = squares(params, batch, key)
    noise = jax.random.normal(key)
    return out._replace(sum=out.sum + noise * params["w"].sum()), metrics


def fresh_state(optimizer):
    params = jax.tree.map(jnp.copy, PARAMS)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def test_gradient_is_of_the_mean_by_hand():
    batch = jnp.array([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]), jnp.arange(3) < 2
    grads, loss, _ = gradients(squares, PARAMS, batch, jax.random.key(0))
    # d/dw of (w_0^2 + 4 w_1^2) / 2 at (0.5, -1).
    np.testing.assert_allclose(grads["w"], [0.5, -4.0])
    assert float(loss.mean()) == pytest.approx((0.25 + 4.0) / 2)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_microbatches_add_up_to_the_whole(parts):
    batch, key = (X, MASK), jax.random.key(0)
    whole = gradients(squares, PARAMS, batch, key)
    split = gradients(squares, PARAMS, batch, key, microbatches=parts)
    tiny.assert_close(split, whole, atol=1e-6)


def test_a_batch_of_nothing_has_gradient_zero():
    grads, loss, _ = gradients(squares, PARAMS, (X, MASK & False), jax.random.key(0))
    np.testing.assert_array_equal(grads["w"], 0.0)
    assert float(loss.weight) == 0.0


def test_microbatches_hold_every_row_once_and_stride_over_devices():
    parts = split_rows({"x": jnp.arange(8)}, 2)["x"]
    np.testing.assert_array_equal(parts, [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_microbatches_have_keys_of_their_own():
    def draws(params, batch, key):
        draw = Weighted(jax.random.uniform(key), jnp.ones(()))
        return squares(params, batch, key)[0], {"draw": draw}

    def total(parts):
        args = PARAMS, (X, MASK), jax.random.key(0)
        return float(gradients(draws, *args, microbatches=parts)[2]["draw"].sum)

    # Two equal draws would give twice the first.
    assert total(2) != pytest.approx(2 * total(1))


def test_metrics_hold_loss_gradient_norm_and_what_the_loss_reports():
    optimizer = optax.sgd(0.1)
    state = fresh_state(optimizer)
    grads, loss, _ = gradients(squares, PARAMS, (X, MASK), jax.random.key(0))
    _, metrics = make_train_step(squares, optimizer)(
        state, (X, MASK), jax.random.key(0)
    )
    assert metrics.keys() == {"loss", "grad_norm", "rows"}
    np.testing.assert_allclose(metrics["loss"].mean(), loss.mean(), rtol=1e-6)
    norm = np.linalg.norm(grads["w"])
    np.testing.assert_allclose(metrics["grad_norm"].mean(), norm, rtol=1e-6)
    np.testing.assert_allclose(metrics["rows"].mean(), X[MASK, 0].mean(), rtol=1e-6)


def test_each_step_folds_its_number_into_the_key():
    optimizer = optax.sgd(0.0)
    step, key = make_train_step(noisy, optimizer), jax.random.key(0)
    state, first = step(fresh_state(optimizer), (X, MASK), key)
    state, second = step(state, (X, MASK), key)
    assert int(state.step) == 2
    assert float(first["loss"].sum) != float(second["loss"].sum)
    _, again = step(fresh_state(optimizer), (X, MASK), key)
    assert float(first["loss"].sum) == float(again["loss"].sum)


def test_several_calls_are_one_trace():
    traces = []

    def counted(params, batch, key):
        traces.append(0)
        return squares(params, batch, key)

    optimizer = optax.sgd(0.1)
    step, state = make_train_step(counted, optimizer), fresh_state(optimizer)
    for number in range(3):
        state, _ = step(state, (X + number, MASK), jax.random.key(number))
    assert len(traces) == 1


def test_the_state_is_donated():
    optimizer = optax.sgd(0.1)
    state = fresh_state(optimizer)
    make_train_step(squares, optimizer)(state, (X, MASK), jax.random.key(0))
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
