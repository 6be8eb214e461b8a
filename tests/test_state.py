"""Initialisation, parts and checks of training states."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instructgpt.errors import UserError
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.state import (
    PPOState,
    TrainState,
    check_same_shapes,
    layout_of,
    make_train_state,
    params_layout,
    scalar_params_from,
)
from tests import tiny

MODEL = Transformer(tiny.config())
OPTIMIZER = make_optimizer(OptimizerConfig(0.1, weight_decay=0.1), 10)


@pytest.fixture(scope="module")
def fresh() -> TrainState:
    return make_train_state(
        MODEL, OPTIMIZER, key=jax.random.key(0), mesh=tiny.mesh_of()
    )


def test_initialisation_does_not_depend_on_the_mesh(fresh):
    sharded = make_train_state(
        MODEL, OPTIMIZER, key=jax.random.key(0), mesh=tiny.mesh_of(2, 2, 2)
    )
    tiny.assert_close(jax.device_get(sharded), jax.device_get(fresh), atol=1e-7)


def test_fresh_state_is_float32_and_at_step_zero(fresh):
    assert int(fresh.step) == 0
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(fresh.params))
    mu = optax.tree_utils.tree_get(fresh.opt_state, "mu")
    assert not any(x.any() for x in jax.tree.leaves(mu))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids="{}".format)
def test_given_parameters_become_the_states(sizes):
    """Their buffers are taken over: nothing is copied, and nothing is held twice."""
    mesh, given = tiny.mesh_of(*sizes), tiny.params_of(MODEL)
    expected = jax.device_get(given)
    layout = params_layout(MODEL, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, layout)
    # Made on the devices: memory that NumPy owns could not be taken over.
    given = jax.jit(lambda p: jax.tree.map(jnp.copy, p), out_shardings=shardings)(given)
    where = addresses(given)
    state = make_train_state(
        MODEL, OPTIMIZER, key=jax.random.key(0), mesh=mesh, params=given
    )
    assert addresses(state.params) == where
    assert all(x.is_deleted() for x in jax.tree.leaves(given))
    tiny.assert_equal(jax.device_get(state.params), expected)


def addresses(tree) -> list[int]:
    """Where the parts of all arrays lie in memory."""
    return [
        shard.data.unsafe_buffer_pointer()
        for x in jax.tree.leaves(tree)
        for shard in x.addressable_shards
    ]


def test_parameters_of_another_model_are_refused():
    params = tiny.params_of(Transformer(tiny.config(context_length=16)))
    with pytest.raises(UserError, match=r"position_embedding.*\(16, 16\).*\(32, 16\)"):
        make_train_state(
            MODEL, OPTIMIZER, key=jax.random.key(0), mesh=tiny.mesh_of(), params=params
        )


def test_missing_and_extra_parameters_are_named():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    with pytest.raises(UserError, match=r"lacks \['b'\]"):
        check_same_shapes({"a": params["a"]}, params)
    with pytest.raises(UserError, match=r"unexpected \['b'\]"):
        check_same_shapes(params, {"a": params["a"]})


def test_updated_applies_the_optimizer_once():
    params = {"w": jnp.array([1.0, 2.0])}
    optimizer = optax.sgd(0.5)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    new = state.updated({"w": jnp.array([1.0, -1.0])}, optimizer)
    assert int(new.step) == 1
    np.testing.assert_allclose(new.params["w"], [0.5, 2.5])


def test_parts_and_back(fresh):
    tiny.assert_equal(TrainState.from_parts(fresh.parts()), fresh)
    ppo = PPOState(policy=fresh, value=fresh.replace(step=fresh.step + 1), ema={"e": 1})
    back = PPOState.from_parts(ppo.parts())
    assert int(back.value.step) == 1 and int(back.policy.step) == 0
    tiny.assert_equal(back, ppo)


def test_layouts_say_shape_dtype_and_sharding(fresh):
    mesh = tiny.mesh_of()
    layout = params_layout(MODEL, mesh)
    assert layout_of(fresh.params) == layout


@pytest.mark.parametrize("scale", [0.0, 0.25])
def test_the_heads_scale_is_that_of_its_first_weights(scale):
    mesh, key = tiny.mesh_of(), jax.random.key(0)
    model = ScalarModel(tiny.config())
    trunk = tiny.params_of(Transformer(tiny.config()))
    whole = scalar_params_from(trunk, model, key, mesh)
    scaled = scalar_params_from(trunk, model, key, mesh, head_scale=scale)
    tiny.assert_close(scaled["kernel"], scale * whole["kernel"])
    tiny.assert_equal(scaled["trunk"], whole["trunk"])


def test_scalar_model_starts_from_the_language_models_trunk():
    model, mesh = ScalarModel(tiny.config()), tiny.mesh_of()
    trunk = tiny.params_of(MODEL)
    params = scalar_params_from(trunk, model, jax.random.key(0), mesh)
    check_same_shapes(params, params_layout(model, mesh))
    tiny.assert_equal(params["trunk"], trunk)
    assert float(params["bias"]) == 0.0
    assert float(jnp.abs(params["kernel"]).max()) > 0.0
