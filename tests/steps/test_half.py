"""Half precision: sums over tokens in float32, the loss scale, skipped steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import LossScale, OptimizerConfig, make_optimizer
from instructgpt.state import PPOState, make_train_state, train_state_layout
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import gradients, make_train_step, norm_metric
from tests import tiny

LARGEST = float(jnp.finfo(jnp.float16).max)  # 65,504
OPTIMIZER = make_optimizer(OptimizerConfig(0.003), 20)
KEY = jax.random.key(0)


def scale_of(value):
    return LossScale.fresh().replace(scale=jnp.float32(value))


def tiled(batch, times):
    """The same rows many times, so that tokens pull in the same direction."""
    return jax.tree.map(lambda x: np.concatenate([x] * times), batch)


def language_model(dtype):
    return Transformer(tiny.config(compute_dtype=dtype))


def mean_gradients(kind, dtype, batch, scale):
    if kind == "reward model":
        model = ScalarModel(tiny.config(compute_dtype=dtype))
        loss = make_reward_loss(model)
    else:
        model = language_model(dtype)
        loss = make_sft_loss(model)
    run = jax.jit(functools.partial(gradients, loss))
    return run(tiny.params_of(model), batch, KEY, loss_scale=scale)[:2]


def parameter(path):
    """Its name in a model: kernel, bias, scale, token_embedding, ..."""
    return path[-1].key


@pytest.mark.parametrize("kind", ["language model", "reward model"])
def test_sums_beyond_float16_are_finite_and_right(kind, rng):
    make = tiny.token_batch if kind == "language model" else tiny.comparison_batch
    batch = tiled(make(rng, 8), 128)
    expected, loss = mean_gradients(kind, "float32", batch, None)
    scale = scale_of(2.0**12)
    actual, _ = mean_gradients(kind, "float16", batch, scale)
    beyond = set()
    for (path, want), have in zip(
        jax.tree_util.tree_leaves_with_path(expected),
        jax.tree.leaves(actual),
        strict=True,
    ):
        largest = float(jnp.abs(want).max())
        if largest * float(loss.weight) * float(scale.scale) > LARGEST:
            beyond.add(parameter(path))
        assert have.dtype == jnp.float32
        error = float(jnp.abs(have - want).max())
        # The keys' bias has no gradient but rounding: softmax takes it back.
        assert error < 0.01 * largest + 1e-4, jax.tree_util.keystr(path)
    # Each a sum that would have overflowed.
    assert {"kernel", "bias", "token_embedding", "position_embedding"} <= beyond


@functools.cache
def step_of(dtype):
    model = language_model(dtype)
    return model, make_train_step(make_sft_loss(model), OPTIMIZER)


def fresh_state(dtype):
    model, _ = step_of(dtype)
    return make_train_state(
        model, OPTIMIZER, key=KEY, mesh=tiny.mesh_of(), params=tiny.params_of(model)
    )


@pytest.fixture(scope="module")
def batches():
    """Twenty, so that a step has rows that it has not seen."""
    rng = np.random.default_rng(7)
    return [tiny.token_batch(rng) for _ in range(20)]


def test_twenty_steps_are_those_of_float32(batches):
    losses = {}
    for dtype in ("float32", "float16"):
        state = fresh_state(dtype)
        _, step = step_of(dtype)
        found = []
        for batch in batches:
            state, metrics = step(state, batch, KEY)
            found.append(float(metrics["loss"].mean()))
        losses[dtype] = np.array(found)
    assert losses["float16"] != pytest.approx(losses["float32"], rel=1e-7)
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["float32"][-1] < 0.9 * losses["float32"][0], "it should learn"
    assert state.scaling()["skipped_steps"] <= 5


def test_a_skipped_step_leaves_the_state_as_it_is_and_is_counted(batches):
    _, step = step_of("float16")
    state = dataclasses.replace(fresh_state("float16"), loss_scale=scale_of(2.0**30))
    before = jax.device_get(state)
    state, metrics = step(state, batches[0], KEY)
    after = jax.device_get(state)
    tiny.assert_equal(after.params, before.params)
    tiny.assert_equal(after.opt_state, before.opt_state)
    assert int(after.step) == 1  # the batch was used
    assert state.scaling() == {"loss_scale": 2.0**29, "skipped_steps": 1}
    # The loop ends at a norm that is not finite; this one is left out.
    assert [float(x) for x in metrics["grad_norm"]] == [0.0, 0.0]
    assert np.isfinite(float(metrics["loss"].mean()))
    state = dataclasses.replace(state, loss_scale=scale_of(2.0**5))
    state, metrics = step(state, batches[0], KEY)
    assert tiny.distance(state.params, before.params) > 0
    assert float(metrics["grad_norm"].weight) == 1.0
    assert state.scaling() == {"loss_scale": 2.0**5, "skipped_steps": 0}


def test_the_scale_doubles_after_many_good_steps_in_a_row():
    good, bad = jnp.array(True), jnp.array(False)
    scale = scale_of(2.0**5).replace(good_steps=jnp.int32(1998))
    scale = scale.after(good)
    assert (float(scale.scale), int(scale.good_steps)) == (2.0**5, 1999)
    more, less = scale.after(good), scale.after(bad)
    assert (float(more.scale), int(more.good_steps)) == (2.0**6, 0)
    assert (float(less.scale), int(less.good_steps)) == (2.0**4, 0)
    assert (int(more.skipped), int(less.skipped)) == (0, 1)


def test_the_scale_ends_at_a_least_one_which_hides_no_norm():
    grads = {"w": jnp.array([1.0, jnp.nan])}
    scale = LossScale.fresh()
    for _ in range(14):
        assert not bool(scale.exhausted)
        assert float(norm_metric(grads, scale).weight) == 0.0
        scale = scale.after(jnp.array(False))
    assert bool(scale.exhausted)
    assert np.isnan(float(norm_metric(grads, scale).sum))
    assert float(scale.after(jnp.array(False)).scale) == float(scale.scale)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_only_float16_has_a_scale_in_its_state_and_checkpoints(dtype):
    state = train_state_layout(language_model(dtype), OPTIMIZER, tiny.mesh_of())
    extra = {"loss_scale"} if dtype == "float16" else set()
    parts = state.parts()
    assert parts["optimizer"].keys() == {"step", "opt_state"} | extra
    assert type(state).from_parts(parts) == state
    both = PPOState(state, state, state.params)
    assert PPOState.from_parts(both.parts()) == both
