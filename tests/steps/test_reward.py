"""The reward-model step: the same numbers however it is split and padded."""

import functools

import jax
import numpy as np
import optax
import pytest

from instructgpt.data.packing import ComparisonPacker
from instructgpt.losses import pairwise_ranking, untied_pairs
from instructgpt.models.comparisons import comparison_scores, response_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.steps.reward import make_reward_loss
from tests import tiny

MODEL = ScalarModel(tiny.config(residual_dropout=0.5))  # which must stay off
LOSS = make_reward_loss(MODEL)
SGD = optax.sgd(0.1)
ADAM = make_optimizer(OptimizerConfig(0.01, eps=1e-3, weight_decay=0.1), 10)


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(MODEL)


@pytest.fixture(scope="module")
def batch():
    return tiny.comparison_batch(np.random.default_rng(0))


@pytest.fixture(scope="module")
def once(params, batch):
    """(state, metrics) after one plain update by SGD."""
    return tiny.train(MODEL, LOSS, batch, params=params, optimizer=SGD)


def test_loss_is_the_ranking_loss_of_the_scores(params, batch, once):
    scores = jax.jit(functools.partial(response_scores, MODEL))(
        params,
        (batch.prompt, batch.prompt_valid),
        (batch.responses, batch.response_valid),
    )
    _, metrics = once
    for divisor in ("untied", "all"):
        expected = pairwise_ranking(scores, **batch.labels._asdict(), divisor=divisor)
        if divisor == "untied":
            tiny.assert_close(metrics["loss"], expected.loss)
            tiny.assert_close(metrics["accuracy"], expected.accuracy)
            tiny.assert_close(metrics["margin"], expected.margin)
        loss_fn = make_reward_loss(MODEL, divisor=divisor)
        tiny.assert_close(loss_fn(params, batch, jax.random.key(0))[0], expected.loss)
    assert float(metrics["loss"].weight) < 8, "the fixture has a prompt of ties"
    pairs = untied_pairs(batch.ranks, batch.present).sum()
    assert float(metrics["accuracy"].weight) == pairs - 1, "the same response twice"


def test_an_update_lowers_the_loss(params, batch, once):
    _, before = once
    _, after = tiny.train(MODEL, LOSS, batch, params=params, optimizer=SGD, num_steps=2)
    assert after["loss"].sum < before["loss"].sum


def test_microbatched_is_whole(params, batch, once):
    # The prompt of ties and the empty slots lie in one half or the other.
    split = tiny.train(MODEL, LOSS, batch, params=params, optimizer=SGD, microbatches=4)
    tiny.assert_close(split, once)


def test_eight_devices_are_one_device(params, batch):
    run = functools.partial(
        tiny.train, MODEL, LOSS, batch, params=params, optimizer=ADAM, num_steps=2
    )
    tiny.assert_close(run(mesh=tiny.mesh_of(data=2, fsdp=2, tensor=2)), run())


@pytest.fixture(scope="module", params=[1, 4], ids="{} groups".format)
def packed(request, batch):
    return ComparisonPacker([batch], groups=request.param)(batch)


def test_packed_scores_are_those_of_responses_on_their_own(params, batch, packed):
    score = jax.jit(functools.partial(comparison_scores, MODEL))
    real = batch.response_valid.any(axis=-1)
    tiny.assert_close(score(params, packed)[real], score(params, batch)[real])


def test_an_update_on_packed_responses_is_the_same(params, packed, once):
    train = functools.partial(tiny.train, MODEL, LOSS, params=params, optimizer=SGD)
    tiny.assert_close(train(packed), once)
    if len(packed.rows) > 1:
        tiny.assert_close(train(packed, microbatches=4), once)
        tiny.assert_close(train(packed, mesh=tiny.mesh_of(2, 2, 2)), once)


def test_blank_rows_and_padding_content_change_nothing(params, batch, once, rng):
    garbage = batch._replace(
        prompt=tiny.scrambled(rng, batch.prompt, batch.prompt_valid),
        responses=tiny.scrambled(rng, batch.responses, batch.response_valid),
        ranks=tiny.scrambled(rng, batch.ranks, batch.present),
        wording=tiny.scrambled(rng, batch.wording, batch.present),
    )
    padded = tiny.blank_rows(garbage, 8)
    tiny.assert_close(
        tiny.train(MODEL, LOSS, padded, params=params, optimizer=SGD), once
    )


def test_blank_slots_and_columns_change_nothing(params, batch, once):
    def pad(x, *widths):
        return np.pad(x, ((0, 0), *widths))

    left, slots, right = (2, 0), (0, 1), (0, 2)
    padded = type(batch)(
        prompt=pad(batch.prompt, left),
        prompt_valid=pad(batch.prompt_valid, left),
        responses=pad(batch.responses, slots, right),
        response_valid=pad(batch.response_valid, slots, right),
        ranks=pad(batch.ranks, slots),
        present=pad(batch.present, slots),
        wording=pad(batch.wording, slots),
        packed_row=pad(batch.packed_row, slots),
    )
    tiny.assert_close(
        tiny.train(MODEL, LOSS, padded, params=params, optimizer=SGD), once
    )
