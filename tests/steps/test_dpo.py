"""A method of one's own from the public pieces: DPO over K-way rankings.

Rafailov et al. 2023: the reward of a response is beta times how much likelier the
policy makes it than a frozen reference does, and the loss is that of Eq. 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.data.packing import ComparisonPacker
from instructgpt.losses import pairwise_ranking
from instructgpt.models.comparisons import comparison_log_likelihoods
from instructgpt.models.transformer import Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.sharding import put_batch
from instructgpt.state import make_train_state, params_layout, shardings_of
from instructgpt.steps.update import make_train_step
from tests import tiny

MODEL = Transformer(tiny.config())


def make_dpo_loss(model, *, beta):
    def loss_fn(params, batch, key, reference):
        del key
        now, before = (
            comparison_log_likelihoods(model, p, batch) for p in (params, reference)
        )
        rewards = beta * (now - before)
        labels = jax.tree.map(lambda x: x.reshape(rewards.shape), batch.labels)
        out = pairwise_ranking(rewards, **labels._asdict())
        return out.loss, {"accuracy": out.accuracy, "margin": out.margin}

    return loss_fn


def start(mesh):
    """State, step and reference, on the mesh."""
    params = jax.device_put(
        tiny.params_of(MODEL),
        jax.tree.map(lambda x: x.sharding, params_layout(MODEL, mesh)),
    )
    reference = jax.tree.map(jnp.copy, params)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3), 10)
    key = jax.random.key(0)
    state = make_train_state(MODEL, optimizer, key=key, mesh=mesh, params=params)
    loss = make_dpo_loss(MODEL, beta=0.5)
    step = make_train_step(
        loss, optimizer, microbatches=2, shardings=shardings_of(state)
    )
    return state, step, reference


@pytest.mark.parametrize("axes", [{}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_dpo_learns_a_ranking_beside_a_frozen_reference(rng, axes):
    mesh = tiny.mesh_of(**axes)
    batch = tiny.comparison_batch(rng)
    packed = ComparisonPacker([batch], groups=8)(batch)
    with jax.set_mesh(mesh):
        state, step, reference = start(mesh)
        before = jax.device_get(reference)
        on_device, losses = put_batch(packed, mesh), []
        for _ in range(8):
            state, metrics = step(state, on_device, jax.random.key(0), reference)
            losses.append(float(metrics["loss"].mean()))
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4), "policy and reference agree"
    assert losses[-1] < 0.7 * losses[0]
    tiny.assert_equal(jax.device_get(reference), before)
    assert step._cache_size() == 1


def test_the_reference_is_an_argument_cut_as_it_is_and_not_given_away():
    """Were it a constant, the program would hold it whole on every device."""
    mesh = tiny.mesh_of(fsdp=8)
    rng = np.random.default_rng(0)
    batch = tiny.comparison_batch(rng)
    with jax.set_mesh(mesh):
        state, step, reference = start(mesh)
        on_device = put_batch(ComparisonPacker([batch], groups=8)(batch), mesh)
        compiled = step.lower(state, on_device, jax.random.key(0), reference).compile()
    given = compiled.input_shardings[0][3]
    layout = params_layout(MODEL, mesh)
    for sharding, x in zip(
        jax.tree.leaves(given), jax.tree.leaves(layout), strict=True
    ):
        assert sharding.is_equivalent_to(x.sharding, len(x.shape))
    memory = compiled.memory_analysis()
    held = sum(
        x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state.params)
    )
    assert memory.argument_size_in_bytes > 4 * held  # parameters, moments, reference
    assert memory.alias_size_in_bytes < 3.5 * held, "the state alone is donated"
