"""Reward functions: a reward model, a Python function, and sums of both."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.batches import PromptBatch
from instructgpt.errors import UserError
from instructgpt.models.comparisons import response_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.rewards import (
    Decoder,
    find_function,
    make_host_reward,
    make_reward_scorer,
    weighted_sum,
)
from instructgpt.sampling import Samples
from tests import tiny

MODEL = ScalarModel(tiny.config())
B = 8


@pytest.fixture
def batch(rng):
    tokens, valid = tiny.prompts(rng, B)
    response, response_valid = tiny.responses(rng, (B, 1))
    rows = np.arange(B, dtype=np.int32)[::-1].copy() + 20
    samples = Samples(response, response_valid, np.zeros(response.shape, np.float32))
    return PromptBatch(tokens, valid, rows), samples


def host_reward(function, records=None):
    records = records or [{"prompt": f"{i}", "reference": f"{i}"} for i in range(40)]
    decoder = Decoder(records, lambda ids: " ".join(map(str, ids)), tiny.mesh_of())
    return make_host_reward(function, decoder, name="own:function")


def test_a_reward_model_scores_the_last_token(batch):
    prompts, samples = batch
    params = tiny.params_of(MODEL)
    prompt, response = prompts[:2], (samples.tokens, samples.valid)
    expected = response_scores(MODEL, params, prompt, response)[:, 0]
    for parts in (1, 4):
        scores = make_reward_scorer(MODEL, microbatches=parts)(params, *batch)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_a_function_gets_each_prompts_record_and_the_text_of_its_response(batch):
    prompts, samples = batch
    seen = []

    def function(records, responses):
        seen.extend(zip(records, responses, strict=True))
        return [float(r["reference"]) / 8 for r in records]

    scores = host_reward(function)(prompts, samples)
    np.testing.assert_array_equal(scores, prompts.index / 8)
    assert scores.dtype == jnp.float32
    for b, (record, text) in enumerate(seen):
        assert record["prompt"] == str(prompts.index[b])
        tokens = samples.tokens[b, 0][samples.valid[b, 0]]
        assert text == " ".join(map(str, tokens))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([0.5] * 7, r"shape \[7\]"),
        (0.5, r"shape \[\]"),
        ([0.5] * 7 + [float("nan")], "not finite"),
        (["good"] * 8, r"gave \['good', .*finite number"),
        (["1.5"] * 8, r"gave \['1.5'"),
        (iter([0.5] * 8), "gave <list_iterator"),
        ([[1.0], [1.0, 2.0]], r"gave \[\[1.0\]"),
    ],
)
def test_a_function_that_gives_something_else_is_named(batch, given, told):
    with pytest.raises(UserError, match=rf"own:function.*{told}.*8 responses"):
        host_reward(lambda records, responses: given)(*batch)


def test_rewards_are_added_up_with_their_weights(batch):
    one = host_reward(lambda records, responses: [0.25] * B)
    other = host_reward(lambda records, responses: np.arange(B) / 2)
    total = weighted_sum([(2.0, one), (-0.5, other)])(*batch)
    np.testing.assert_allclose(total, 0.5 - np.arange(B) / 4)
    assert weighted_sum([(1.0, one)]) is one


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("longest", "module:name"),
        (":longest", "module:name"),
        (".rewards:longest", "module:name"),
        ("math:", "module:name"),
        ("no_such_module:longest", "No module named"),
        ("math:longest", "longest"),
        ("math:pi", "is not a function"),
    ],
)
def test_a_function_that_is_not_there_is_named(name, told):
    with pytest.raises(UserError, match=rf"reward_function.name='{name}'.*{told}"):
        find_function(name)


def test_a_module_that_fails_is_named_with_its_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_rewards.py").write_text("\nraise ValueError('no key')\n")
    says = r"name='broken_rewards:f'.* raised ValueError: no key \(.*rewards\.py:2\)"
    with pytest.raises(UserError, match=says):
        find_function("broken_rewards:f")


def test_a_function_of_other_arguments_is_named(monkeypatch):
    monkeypatch.setattr(math, "alone", lambda responses: [], raising=False)
    with pytest.raises(UserError, match=r"math:alone'.*called with \(records, respons"):
        find_function("math:alone")


def test_a_function_that_fails_is_named_with_its_error(batch):
    def function(records, responses):
        return [record["length"] for record in records]

    with pytest.raises(
        UserError,
        match=r"own:function'.* raised KeyError: 'length' \(.*test_rewards\.py:\d+\)",
    ):
        host_reward(function)(*batch)


def test_scores_are_cut_over_devices_as_the_prompts_are(batch):
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    decoder = Decoder([{}] * 40, str, mesh)
    scores = make_host_reward(lambda *_: [0.5] * B, decoder, name="x:y")(*batch)
    assert scores.sharding.shard_shape(scores.shape) == (2,)
    assert jax.device_get(scores).tolist() == [0.5] * B
