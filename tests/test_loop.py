"""The training loop on a toy: interrupted anywhere, it ends with the same bits."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instructgpt.checkpoints import Checkpoints
from instructgpt.errors import UserError
from instructgpt.finite import check_finite
from instructgpt.loop import Job, LoopConfig, train
from instructgpt.losses import Weighted
from instructgpt.metrics import read_metrics
from instructgpt.optim import LossScale
from instructgpt.state import TrainState
from instructgpt.steps.update import norm_metric
from instructgpt.steps.update import update as update_state

OPTIMIZER = optax.adam(0.1)
STEPS = 8
CONFIG = LoopConfig(num_steps=STEPS, log_every=1, checkpoint_every=3)


class Counter:
    """Batches 1, 2, 3, ...; the position is its state."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        return np.full(2, self.position, np.float32)

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


@jax.jit
def step_fn(state, batch, key):
    """Depends on the state, the batch, the step and the key."""
    noise = jax.random.normal(jax.random.fold_in(key, state.step), (2,))
    grads = {"w": state.params["w"] - batch + noise}
    loss = Weighted(jnp.square(grads["w"]).sum(), jnp.float32(2.0))
    return state.updated(grads, OPTIMIZER), {"loss": loss}


def fresh_state():
    params = {"w": jnp.array([0.5, -1.5])}
    return TrainState(jnp.zeros((), jnp.int32), params, OPTIMIZER.init(params))


def run(workdir, *, config=CONFIG, update=step_fn, seed=0, state=None, **changes):
    job = Job(
        name="toy",
        update=update,
        data=Counter(),
        to_device=jnp.asarray,
        count_tokens=lambda batch: batch.size,
        watch=("loss",),
        **changes,
    )
    key = jax.random.key(seed)
    state = state or fresh_state()
    return train(job, state, config=config, key=key, workdir=workdir)


def at_step(number, action):
    """An update that first does something at one step of the run."""

    def update(state, batch, key):
        if int(state.step) + 1 == number:
            action()
        return step_fn(state, batch, key)

    return update


def fail():
    raise RuntimeError("power cut")


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def losses(workdir):
    """(step, loss) of every line of metrics.jsonl that has one."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def bits(state):
    return jax.tree.map(lambda x: np.asarray(x).tobytes(), state)


def saved_steps(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", keep=None)
    try:
        return checkpoints.steps
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """(state, metrics) of a run that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("unbroken")
    return bits(run(workdir)), losses(workdir)


def test_an_unbroken_run_logs_each_step_and_uses_each_batch_once(tmp_path):
    seen = []

    def update(state, batch, key):
        seen.append(float(batch[0]))
        return step_fn(state, batch, key)

    state = run(tmp_path, update=update)
    assert int(state.step) == STEPS
    assert seen == list(range(1, STEPS + 1))
    assert [step for step, _ in losses(tmp_path)] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("number", [1, 2, 4, 5, STEPS])
def test_killed_and_started_again_ends_with_the_same_bits(tmp_path, unbroken, number):
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, update=at_step(number, fail))
    assert saved_steps(tmp_path) == [s for s in (3, 6) if s < number][-1:]
    # Another seed: the key is the checkpoint's, once there is one.
    state = run(tmp_path, seed=0 if number <= 3 else 99)
    assert bits(state) == unbroken[0]
    assert losses(tmp_path) == unbroken[1], "no step twice, none missing"


def test_a_finished_run_returns_at_once(tmp_path, unbroken):
    run(tmp_path)
    state = run(tmp_path, update=lambda *_: pytest.fail("trained again"))
    assert bits(state) == unbroken[0]
    assert losses(tmp_path) == unbroken[1]


def test_a_resumed_run_does_not_hold_the_state_it_was_given(tmp_path):
    given = fresh_state()
    run(tmp_path)
    run(tmp_path, state=given)
    assert all(x.is_deleted() for x in jax.tree.leaves(given))


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(tmp_path, unbroken):
    run(tmp_path, config=LoopConfig(num_steps=5, log_every=1))
    assert saved_steps(tmp_path) == [5]
    assert bits(run(tmp_path)) == unbroken[0]


def poison(state, batch, key):
    """From step 5 the loss is NaN."""
    state, metrics = step_fn(state, batch, key)
    bad = jnp.where(state.step >= 5, jnp.nan, 0.0)
    loss = metrics["loss"]
    return state, {"loss": loss._replace(sum=loss.sum + bad)}


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path, unbroken, log_every
):
    config = LoopConfig(num_steps=STEPS, log_every=log_every, checkpoint_every=3)
    says = r"toy: loss is not finite .*checkpoint 3 is kept; lower config\.optimizer"
    says += r".*--config\.resume\.changed=optimizer\.learning_rate goes on from there"
    with pytest.raises(UserError, match=says):
        run(tmp_path, config=config, update=poison)
    assert saved_steps(tmp_path) == [3]
    assert bits(run(tmp_path)) == unbroken[0]


@pytest.mark.parametrize("part", ["policy", "value"])
def test_of_two_rates_the_one_is_named_that_was_too_high(tmp_path, part):
    def update(state, batch, key):
        state, metrics = step_fn(state, batch, key)
        loss = metrics["loss"]._replace(sum=jnp.float32(jnp.inf))
        return state, {f"{part}_loss": loss}

    rates = ("policy_optimizer.learning_rate", "value_optimizer.learning_rate")
    says = (
        rf"nothing is saved .* lower config\.{part}_optimizer.*changed={part}_optimizer"
    )
    with pytest.raises(UserError, match=says):
        run(tmp_path, update=update, rates=rates)


def test_a_gradient_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    """The loss of that step is still fine; the parameters are not."""

    def update(state, batch, key):
        state, metrics = step_fn(state, batch, key)
        norm = jnp.where(state.step == 3, jnp.inf, 1.0)
        return state, {**metrics, "grad_norm": Weighted(norm, jnp.float32(1.0))}

    with pytest.raises(UserError, match="grad_norm is not finite at step 3"):
        run(tmp_path, update=update)
    assert saved_steps(tmp_path) == []


@pytest.mark.parametrize(("number", "kept"), [(STEPS, [6]), (6, [3])])
def test_an_update_that_spoils_the_state_is_not_saved(tmp_path, unbroken, number, kept):
    """No loss shows it: that of the next update would, and there may be none."""

    def update(state, batch, key):
        state, metrics = step_fn(state, batch, key)
        bad = jnp.where(state.step == number, jnp.inf, 0.0)
        return state.replace(params={"w": state.params["w"] + bad}), metrics

    def evaluate(state, step):
        assert step < number, "what is bad is not evaluated"
        return {}

    config = dataclasses.replace(CONFIG, eval_every=1)
    says = rf"toy: params/w is not finite after step {number}; checkpoint {kept[0]} is"
    with pytest.raises(UserError, match=says):
        run(tmp_path, config=config, update=update, evaluate=evaluate)
    assert saved_steps(tmp_path) == kept
    assert bits(run(tmp_path)) == unbroken[0]


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_rollout_whose_score_is_not_finite_ends_before_the_next_checkpoint(
    tmp_path, log_every
):
    def update(state, batch, key):
        state, metrics = step_fn(state, batch, key)
        score = jnp.where(state.step == 5, jnp.nan, 0.5)
        return state, {**metrics, "score": Weighted(score, jnp.float32(2.0))}

    config = dataclasses.replace(CONFIG, log_every=log_every)
    with pytest.raises(UserError, match=r"toy: the reward model's score .*reward_init"):
        run(tmp_path, config=config, update=update)
    assert saved_steps(tmp_path) == [3]


def test_an_evaluation_that_fails_says_of_which_step_and_is_not_saved(tmp_path):
    def evaluate(state, step):
        check_finite(np.nan if step == 6 else 1.0, "held-out losses")
        return {}

    config = dataclasses.replace(CONFIG, eval_every=3)
    with pytest.raises(UserError, match=r"^toy: evaluation at step 6: 1 of 1 held-out"):
        run(tmp_path, config=config, evaluate=evaluate)
    assert saved_steps(tmp_path) == [3]


def test_a_checkpoint_that_was_saved_with_nan_is_not_gone_on_from(tmp_path):
    run(tmp_path, config=LoopConfig(num_steps=5))
    state = fresh_state().replace(params={"w": jnp.array([0.5, jnp.nan])})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(6, state.parts(), checkpoints.meta(5))
    checkpoints.close()
    with pytest.raises(UserError, match=r"checkpoints/6: params/w holds NaN"):
        run(tmp_path)


def test_a_batch_without_weight_is_no_failure(tmp_path):
    def update(state, batch, key):
        state, metrics = step_fn(state, batch, key)
        nothing = Weighted(jnp.float32(0.0), jnp.float32(0.0))
        empty = state.step == 2
        loss = jax.tree.map(
            lambda a, b: jnp.where(empty, a, b), nothing, metrics["loss"]
        )
        return state, {"loss": loss}

    run(tmp_path, update=update)
    steps = [step for step, _ in losses(tmp_path)]
    assert steps == [1, *range(3, STEPS + 1)]  # a mean over nothing is left out


def test_logging_gathers_the_steps_between(tmp_path, unbroken):
    run(tmp_path, config=LoopConfig(num_steps=STEPS, log_every=5))
    each = [loss for _, loss in unbroken[1]]
    (five, first), (last, second) = losses(tmp_path)
    assert (five, last) == (5, STEPS)
    np.testing.assert_allclose([first, second], [np.mean(each[:5]), np.mean(each[5:])])


def test_logging_every_0_steps_is_at_the_end(tmp_path, unbroken):
    run(tmp_path, config=LoopConfig(num_steps=STEPS, log_every=0))
    ((step, loss),) = losses(tmp_path)
    assert step == STEPS
    assert loss == pytest.approx(np.mean([loss for _, loss in unbroken[1]]))


def test_evaluation_is_on_time_and_at_the_end(tmp_path):
    def evaluate(state, step):
        assert int(state.step) == step
        return {"score": step / 2}

    config = LoopConfig(num_steps=STEPS, log_every=1, eval_every=3)
    run(tmp_path, config=config, evaluate=evaluate)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    scores = [(row["step"], row["score"]) for row in rows if "score" in row]
    assert scores == [(3, 1.5), (6, 3.0), (8, 4.0)]


@pytest.mark.parametrize(("keep", "steps"), [(1, [8]), (2, [6, 8]), (0, [3, 6, 8])])
def test_checkpoints_are_on_time_and_at_the_end(tmp_path, keep, steps):
    run(
        tmp_path,
        config=LoopConfig(num_steps=STEPS, checkpoint_every=3, keep=keep),
        meta={"kind": "toy"},
    )
    assert saved_steps(tmp_path) == steps
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=None)
    assert checkpoints.meta(8)["kind"] == "toy"
    checkpoints.close()


def test_the_learning_rate_logged_is_the_one_of_the_update(tmp_path):
    run(tmp_path, schedule=lambda step: 10.0 + step)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["learning_rate"] for row in rows] == [10.0 + n for n in range(STEPS)]


def scaled_step(*bad):
    """An update under a loss scale whose gradient is infinite at the steps given."""

    @jax.jit
    def update(state, batch, key):
        overflows = jnp.isin(state.step + 1, jnp.array(bad))
        grads = {"w": jnp.where(overflows, jnp.inf, state.params["w"] - batch)}
        metrics = {
            "loss": Weighted(jnp.float32(1.0), jnp.float32(1.0)),
            "grad_norm": norm_metric(grads, state.loss_scale),
        }
        return update_state(state, grads, OPTIMIZER).state, metrics

    return update


def scaled_state():
    return fresh_state().replace(loss_scale=LossScale.fresh())


def logged(workdir, name):
    return [row[name] for row in read_metrics(workdir / "metrics.jsonl") if name in row]


def test_skipped_steps_are_logged_and_the_scale_outlives_a_kill(tmp_path):
    update = scaled_step(2, 3, 5)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = run(whole, update=update, state=scaled_state())
    assert logged(whole, "skipped_steps") == [0, 1, 2, 2, 3, 3, 3, 3]
    assert logged(whole, "loss_scale") == [128, 64, 32, 32, 16, 16, 16, 16]
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if "loss" in row]
    has_norm = ["grad_norm" in row for row in rows]
    assert has_norm == [True, False, False, True, False, True, True, True]

    def dying(state, batch, key):
        if int(state.step) == 4:
            fail()
        return update(state, batch, key)

    with pytest.raises(RuntimeError):
        run(killed, update=dying, state=scaled_state())
    assert saved_steps(killed) == [3]
    assert bits(run(killed, update=update, state=scaled_state())) == bits(expected)
    assert logged(killed, "loss_scale") == logged(whole, "loss_scale")


def test_the_learning_rate_logged_leaves_skipped_steps_out(tmp_path):
    update = scaled_step(2, 3, 5)
    run(tmp_path, update=update, state=scaled_state(), schedule=float, updates=4)
    rates = logged(tmp_path, "learning_rate")
    # The rate at a step is that of the unskipped updates made before it.
    assert [rates[i] for i in (0, 3, 5, 6, 7)] == [0, 10, 17, 21, 25]


def test_gradients_that_stay_infinite_end_the_run(tmp_path):
    scale = LossScale.fresh().replace(scale=jnp.float32(2.0**-5))
    start = fresh_state().replace(loss_scale=scale)
    # Two halvings to the least scale, at which the third overflow is an error.
    with pytest.raises(UserError, match=r"grad_norm .* at step 6; .* in bfloat16"):
        run(tmp_path, update=scaled_step(4, 5, 6, 7), state=start)
    assert saved_steps(tmp_path) == [3]
