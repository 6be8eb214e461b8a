"""Log-probs of K responses that share a prompt, which runs through the trunk once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.data.packing import ComparisonPacker
from instructgpt.models.comparisons import (
    comparison_log_likelihoods,
    response_log_likelihoods,
)
from instructgpt.models.scoring import response_log_probs
from instructgpt.models.transformer import Transformer
from tests import tiny

MODEL = Transformer(tiny.config(attention_band=4))


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(MODEL)


def separate(params, batch, temperature=1.0):
    """K forward passes of prompt + response: float32[B, K]."""
    prompt = batch.prompt, batch.prompt_valid
    sums = []
    for k in range(batch.ranks.shape[1]):
        valid = batch.response_valid[:, k]
        out = response_log_probs(
            MODEL,
            params,
            prompt,
            (batch.responses[:, k], valid),
            temperature=temperature,
        )
        sums.append(jnp.where(valid, out.log_probs, 0.0).sum(axis=1))
    return jnp.stack(sums, axis=1)


def shared(params, batch, temperature=1.0):
    return comparison_log_likelihoods(MODEL, params, batch, temperature=temperature)


@pytest.mark.parametrize("groups", [0, 1, 4])
def test_sharing_and_packing_are_k_separate_forwards(params, rng, groups):
    """Values and gradients, at a temperature, with ties, gaps and short prompts."""
    batch = tiny.comparison_batch(rng)
    weights = rng.normal(size=batch.ranks.shape) * batch.present
    given = ComparisonPacker([batch], groups=groups)(batch) if groups else batch

    def values_and_grads(function, batch):
        def total(params):
            values = function(params, batch, 0.7)
            return (values * weights).sum(), jnp.where(weights != 0, values, 0.0)

        return jax.jit(jax.grad(total, has_aux=True))(params)

    grads, values = values_and_grads(shared, given)
    separate_grads, expected = values_and_grads(separate, batch)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    tiny.assert_close(grads, separate_grads, atol=1e-4)


def test_empty_slots_are_0_and_padding_is_not_read(params, rng):
    batch = tiny.comparison_batch(rng)
    run = jax.jit(shared)
    before = np.asarray(run(params, batch))
    assert (before[~batch.present] == 0).all() and (before[batch.present] < 0).all()
    garbage = tiny.scrambled(rng, batch.responses, batch.response_valid)
    after = np.asarray(run(params, batch._replace(responses=garbage)))
    np.testing.assert_array_equal(before, after)
    packed = ComparisonPacker([batch], groups=2)(batch)
    assert (np.asarray(run(params, packed))[~batch.present] == 0).all()


def test_the_prompt_is_computed_once(rng):
    """Twice as long a prompt costs as much more with eight responses as with two."""

    def operations(prompt: int, k: int) -> float:
        ids = jnp.zeros((1, prompt), jnp.int32), jnp.ones((1, prompt), bool)
        answers = jnp.zeros((1, k, 4), jnp.int32), jnp.ones((1, k, 4), bool)
        model = Transformer(tiny.config(context_length=256, scan_layers=False))
        run = jax.jit(functools.partial(response_log_likelihoods, model))
        params = tiny.params_of(model)
        return run.lower(params, ids, answers).compile().cost_analysis()["flops"]

    few, many = (operations(128, k) - operations(64, k) for k in (2, 8))
    assert many < 1.5 * few, "else it would be four times as much"
