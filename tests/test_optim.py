"""Schedules, clipping and weight decay."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from instructgpt.errors import UserError
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import (
    OptimizerConfig,
    global_norm,
    make_optimizer,
    make_schedule,
)
from instructgpt.ranges import check_values
from instructgpt.state import init_params
from tests import tiny


def rates(config: OptimizerConfig, num_steps: int, steps: list[int]) -> list[float]:
    schedule = make_schedule(config, num_steps)
    return [float(schedule(step)) for step in steps]


def update(config: OptimizerConfig, grads, params):
    """What one update adds to the parameters."""
    optimizer = make_optimizer(config, 10)
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_constant_schedule():
    assert rates(OptimizerConfig(0.5), 10, [0, 5, 99]) == [0.5, 0.5, 0.5]


def test_warmup_starts_at_a_fraction_of_the_peak():
    # The paper's PPO: over the first 10 iterations from 0.1 of the peak, then flat.
    config = OptimizerConfig(2.0, warmup_steps=10, warmup_from=0.1)
    expected = [0.2, 0.2 + 1.8 * 5 / 10, 2.0, 2.0]
    np.testing.assert_allclose(rates(config, 100, [0, 5, 10, 99]), expected, rtol=1e-6)


def test_cosine_ends_at_its_final_fraction():
    config = OptimizerConfig(2.0, schedule="cosine", final_fraction=0.1)
    middle = 0.2 + 1.8 * 0.5
    quarter = 0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi / 4))
    np.testing.assert_allclose(
        rates(config, 100, [0, 25, 50, 100]), [2.0, quarter, middle, 0.2], rtol=1e-5
    )


def test_cosine_after_warmup_then_flat():
    config = OptimizerConfig(
        1.0, schedule="cosine", warmup_steps=10, decay_steps=50, final_fraction=0.1
    )
    # Down from step 10 to step 50, half way at 30; the run goes on to 100.
    np.testing.assert_allclose(
        rates(config, 100, [0, 5, 10, 30, 50, 75, 100]),
        [0.0, 0.5, 1.0, 0.55, 0.1, 0.1, 0.1],
        rtol=1e-5,
        atol=1e-7,
    )


def test_unknown_schedule_is_a_user_error():
    values = dict(learning_rate=1.0, schedule="linear")
    with pytest.raises(UserError, match=r"schedule='linear': give one of 'constant'"):
        check_values(OptimizerConfig, values, where="config.optimizer")


def test_global_norm_is_over_all_leaves():
    tree = {"a": jnp.array([3.0, 0.0], jnp.bfloat16), "b": jnp.array([[4.0]])}
    assert float(global_norm(tree)) == 5.0
    assert global_norm(tree).dtype == jnp.float32


def test_adam_by_hand():
    config = OptimizerConfig(0.1, b1=0.9, b2=0.95, eps=1.0, clip_norm=0.0)
    optimizer = make_optimizer(config, 10)
    params = {"kernel": jnp.array([1.0])}
    state = optimizer.init(params)
    first, second = jnp.array([2.0]), jnp.array([-1.0])
    _, state = optimizer.update({"kernel": first}, state, params)
    updates, _ = optimizer.update({"kernel": second}, state, params)
    mean = (0.9 * 0.1 * 2.0 + 0.1 * -1.0) / (1 - 0.9**2)
    square = (0.95 * 0.05 * 4.0 + 0.05 * 1.0) / (1 - 0.95**2)
    expected = -0.1 * mean / (math.sqrt(square) + 1.0)
    np.testing.assert_allclose(updates["kernel"], [expected], rtol=1e-5)


def test_gradients_are_clipped_to_a_global_norm():
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    params = jax.tree.map(jnp.zeros_like, grads)

    def after(clip_norm, factor):
        # A large epsilon makes the first step proportional to the gradient.
        config = OptimizerConfig(1.0, eps=1e6, clip_norm=clip_norm)
        return update(config, jax.tree.map(lambda g: factor * g, grads), params)

    tiny.assert_close(after(1.0, 1.0), after(0.0, 0.2), atol=1e-12)
    tiny.assert_close(after(10.0, 1.0), after(0.0, 1.0), atol=1e-12)


@pytest.mark.parametrize("model_class", [Transformer, ScalarModel])
def test_weight_decay_shrinks_kernels_and_embeddings_only(model_class):
    params = tiny.params_of(model_class(tiny.config()))
    grads = jax.tree.map(jnp.zeros_like, params)
    config = OptimizerConfig(0.5, weight_decay=0.1)
    updates = jax.tree_util.tree_leaves_with_path(update(config, grads, params))
    decayed = 0
    for (path, change), value in zip(updates, jax.tree.leaves(params), strict=True):
        matrix = path[-1].key == "kernel" or path[-1].key.endswith("embedding")
        decayed += matrix
        expected = -0.5 * 0.1 * value if matrix else jnp.zeros_like(value)
        np.testing.assert_allclose(change, expected, rtol=1e-6, err_msg=str(path))
    assert decayed == (8 if model_class is Transformer else 9)


def test_the_optimizer_accepts_boxed_parameters():
    """Initialisation traces it with logical axis names around the arrays."""
    boxed = jax.eval_shape(
        lambda: init_params(Transformer(tiny.config()), jax.random.key(0))
    )
    optimizer = make_optimizer(OptimizerConfig(1.0, weight_decay=0.1), 10)
    state = jax.eval_shape(optimizer.init, boxed)
    adam = optax.tree_utils.tree_get(state, "mu")
    assert nn.meta.unbox(adam).keys() == boxed.keys()
    assert isinstance(adam["token_embedding"], nn.LogicallyPartitioned)
