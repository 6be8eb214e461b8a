"""The language-model step: the same numbers however it is split and padded."""

import functools

import jax
import numpy as np
import optax
import pytest

from instructgpt.data.packing import PackedRows
from instructgpt.data.rows import stack
from instructgpt.models.scoring import target_log_probs
from instructgpt.models.transformer import Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.steps.sft import make_sft_loss, weigh_pretraining
from tests import tiny

MODEL = Transformer(tiny.config())
LOSS = make_sft_loss(MODEL)
SGD = optax.sgd(0.1)
# A large epsilon: where a gradient is zero but for rounding, as of the keys' biases,
# Adam's first step is else a coin toss.
ADAM = make_optimizer(OptimizerConfig(0.01, eps=1e-3, weight_decay=0.1), 10)


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(MODEL)


@pytest.fixture(scope="module")
def batch():
    return tiny.token_batch(np.random.default_rng(0))


@pytest.fixture(scope="module")
def once(params, batch):
    """(state, metrics) after one plain update by SGD."""
    return tiny.train(MODEL, LOSS, batch, params=params, optimizer=SGD)


@pytest.fixture(scope="module")
def loss_and_grads():
    @functools.partial(jax.jit, static_argnums=0)
    def run(loss_fn, params, batch, key):
        def mean(params):
            return loss_fn(params, batch, key)[0].mean()

        return jax.value_and_grad(mean)(params)

    return run


def test_loss_is_the_mean_over_target_tokens(params, batch, once):
    out = target_log_probs(MODEL, params, batch.tokens, batch.valid)
    mask = batch.loss_mask[:, 1:]
    assert 0 < mask.sum() < batch.valid.sum()
    _, metrics = once
    assert float(metrics["loss"].weight) == mask.sum()
    expected = -np.asarray(out.log_probs)[mask].mean()
    np.testing.assert_allclose(
        metrics["loss"].sum / metrics["loss"].weight, expected, rtol=1e-5
    )


def test_one_update_goes_down_the_gradient(params, batch, once, loss_and_grads, key):
    _, grads = loss_and_grads(LOSS, params, batch, key)
    state, _ = once
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    tiny.assert_close(state.params, expected)
    assert tiny.distance(state.params, params) > 1e-3


def test_pretraining_rows_have_their_share_of_the_loss(params, batch):
    """Two means with weights, whatever the number of targets and of microbatches."""
    text = batch.loss_mask.copy()
    text[-2:, 1:] = batch.valid[-2:, 1:]  # rows of text: every token is a target
    batch = batch._replace(loss_mask=text)
    out = target_log_probs(MODEL, params, batch.tokens, batch.valid)
    losses, mask = -np.asarray(out.log_probs), text[:, 1:]
    own, other = losses[:-2][mask[:-2]].mean(), losses[-2:][mask[-2:]].mean()
    assert abs(own - other) > 0.01 and mask[-2:].sum() > 0.2 * mask.sum()
    for parts in (1, 2):
        _, metrics = tiny.train(
            MODEL,
            LOSS,
            batch,
            params=params,
            optimizer=SGD,
            microbatches=parts,
            prepare=functools.partial(weigh_pretraining, rows=2, share=0.1),
        )
        loss = metrics["loss"]
        assert loss.sum / loss.weight == pytest.approx(
            0.9 * own + 0.1 * other, rel=1e-5
        )
        assert loss.weight == pytest.approx(mask.sum(), rel=1e-5)


def test_the_side_with_targets_has_the_whole_loss(batch):
    mask = batch.loss_mask.copy()
    mask[-2:] = False
    weights = weigh_pretraining(batch._replace(loss_mask=mask), 2, 0.25).loss_mask
    np.testing.assert_allclose(weights, 0.75 * mask, rtol=1e-6)


def test_microbatched_is_whole(params, batch, once):
    # Rows 0, 2, 4, 6 hold a different number of targets than 1, 3, 5, 7.
    targets = batch.loss_mask.sum(axis=1)
    assert targets[::2].sum() != targets[1::2].sum()
    split = tiny.train(MODEL, LOSS, batch, params=params, optimizer=SGD, microbatches=2)
    tiny.assert_close(split, once)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_eight_devices_are_one_device(params, batch, sequence_parallel):
    model = Transformer(tiny.config(sequence_parallel=sequence_parallel))
    run = functools.partial(tiny.train, params=params, optimizer=ADAM, num_steps=2)
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    cut = run(model, make_sft_loss(model), batch, mesh=mesh)
    tiny.assert_close(cut, run(MODEL, LOSS, batch))


def test_eight_devices_and_microbatches_are_one_device(params, batch, once):
    state, metrics = tiny.train(
        MODEL,
        LOSS,
        batch,
        params=params,
        optimizer=SGD,
        microbatches=2,
        mesh=tiny.mesh_of(data=2, fsdp=2, tensor=2),
    )
    tiny.assert_close((state, metrics), once)


def test_blank_rows_and_padding_content_change_nothing(params, batch, once, rng):
    garbage = tiny.scrambled(rng, batch.tokens, batch.valid)
    padded = tiny.blank_rows(batch._replace(tokens=garbage), 8)
    tiny.assert_close(
        tiny.train(MODEL, LOSS, padded, params=params, optimizer=SGD), once
    )


def test_blank_columns_change_nothing(params, batch, once):
    def wider(x):
        return np.pad(x, ((0, 0), (3, 2)))

    padded = type(batch)(*map(wider, batch))
    tiny.assert_close(
        tiny.train(MODEL, LOSS, padded, params=params, optimizer=SGD), once
    )


@pytest.mark.parametrize("band", [0, 3])
def test_packed_texts_are_texts_in_rows_of_their_own(
    params, batch, loss_and_grads, key, band
):
    model = Transformer(tiny.config(attention_band=band))
    rows = [type(batch)(*(field[i] for field in batch)) for i in range(8)]
    packed = stack_rows(PackedRows(rows, 2 * batch.tokens.shape[1]))
    assert packed.segment_ids.max() > 2 and len(packed.segment_ids) < 8
    tiny.assert_close(
        loss_and_grads(make_sft_loss(model, packed=True), params, packed, key),
        loss_and_grads(make_sft_loss(model), params, batch, key),
    )
    crossed = loss_and_grads(make_sft_loss(model), params, packed, key)
    assert tiny.distance(crossed[1], loss_and_grads(LOSS, params, batch, key)[1]) > 1e-3


def stack_rows(rows: PackedRows):
    return stack([rows[i] for i in range(len(rows))])


def test_first_target_leaves_out_prompt_columns_only(
    params, batch, loss_and_grads, key
):
    short = make_sft_loss(MODEL, first_target=tiny.PROMPT)
    tiny.assert_close(
        loss_and_grads(short, params, batch, key),
        loss_and_grads(LOSS, params, batch, key),
    )


def test_dropout_is_on_in_training_and_follows_the_key(
    params, batch, loss_and_grads, key
):
    model = Transformer(tiny.config(residual_dropout=0.5))
    on, off = make_sft_loss(model), make_sft_loss(model, train=False)
    plain, _ = loss_and_grads(LOSS, params, batch, key)
    assert float(loss_and_grads(off, params, batch, key)[0]) == float(plain)
    losses = [
        float(loss_and_grads(on, params, batch, jax.random.key(number))[0])
        for number in (1, 2, 1)
    ]
    assert losses[0] == losses[2] and len({*losses, float(plain)}) == 3
