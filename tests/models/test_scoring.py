"""Log-probs, values and scores, and arrays that must never be built for them."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.comparisons import response_scores
from instructgpt.models.scoring import (
    response_log_probs,
    response_values,
    target_log_probs,
)
from instructgpt.models.transformer import ScalarModel, Transformer
from tests import tiny

MODEL = Transformer(tiny.config())
SCALAR = ScalarModel(tiny.config(attention_band=4))


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(MODEL)


@pytest.fixture(scope="module")
def scalar_params():
    return tiny.params_of(SCALAR)


@functools.partial(jax.jit, static_argnames=("model", "first", "temperature"))
def log_probs_of(model, params, batch, first=1, temperature=1.0):
    return target_log_probs(
        model, params, batch.tokens, batch.valid, first=first, temperature=temperature
    )


def reference_log_probs(params, batch, temperature):
    """log_softmax over all logits, as float32[B, T - 1, V]."""
    hidden, _ = MODEL.apply(
        {"params": params}, batch.tokens[:, None], batch.valid[:, None]
    )
    logits = MODEL.apply({"params": params}, hidden[:, 0, :-1], method="logits")
    return np.asarray(jax.nn.log_softmax(logits / temperature, axis=-1))


@pytest.mark.parametrize("chunk", [8192, 16, 7, 1])
def test_chunks_change_nothing(params, rng, chunk):
    batch, temperature = tiny.token_batch(rng), 0.7
    model = Transformer(tiny.config(logit_chunk=chunk))
    out = log_probs_of(model, params, batch, temperature=temperature)
    expected = reference_log_probs(params, batch, temperature)
    taken = np.take_along_axis(expected, batch.tokens[:, 1:, None], axis=-1)[..., 0]
    entropy = -(np.exp(expected) * expected).sum(axis=-1)
    np.testing.assert_allclose(out.log_probs, taken, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.entropy, entropy, rtol=1e-4, atol=1e-5)


def test_log_probs_of_a_uniform_model_by_hand(params, rng):
    flat = {**params, "token_embedding": jnp.zeros_like(params["token_embedding"])}
    out = log_probs_of(MODEL, flat, tiny.token_batch(rng))
    np.testing.assert_allclose(out.log_probs, -math.log(tiny.VOCAB), rtol=1e-6)
    np.testing.assert_allclose(out.entropy, math.log(tiny.VOCAB), rtol=1e-6)


def test_first_leaves_out_the_columns_before_it(params, rng):
    batch = tiny.token_batch(rng)
    whole = log_probs_of(MODEL, params, batch).log_probs
    part = log_probs_of(MODEL, params, batch, first=tiny.PROMPT).log_probs
    assert part.shape == (8, tiny.RESPONSE)
    np.testing.assert_allclose(part, whole[:, tiny.PROMPT - 1 :], rtol=1e-5, atol=1e-5)


def largest_float32(chunk: int) -> int:
    """Elements of the largest float32 array in the compiled training pass."""
    batch, length, vocab = 4, 17, 640
    model = Transformer(
        tiny.config(vocab_size=vocab, logit_chunk=chunk, compute_dtype="bfloat16")
    )
    tokens, valid = (
        jnp.zeros((batch, length), jnp.int32),
        jnp.ones((batch, length), bool),
    )

    def loss_fn(params):
        return target_log_probs(model, params, tokens, valid).log_probs.sum()

    compiled = (
        jax.jit(jax.value_and_grad(loss_fn)).lower(tiny.params_of(model)).compile()
    )
    shapes = re.findall(r"f32\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in set(shapes))


def test_logits_of_all_tokens_never_exist_in_chunks():
    tokens_by_vocab = 4 * 16 * 640
    assert largest_float32(64) >= tokens_by_vocab  # what the search would find
    assert largest_float32(8) < tokens_by_vocab / 2


def test_response_log_probs_score_the_response(params, rng):
    batch = tiny.token_batch(rng)
    prompt = batch.tokens[:, : tiny.PROMPT], batch.valid[:, : tiny.PROMPT]
    response = batch.tokens[:, tiny.PROMPT :], batch.valid[:, tiny.PROMPT :]
    out = response_log_probs(MODEL, params, prompt, response, temperature=0.7)
    expected = log_probs_of(MODEL, params, batch, first=tiny.PROMPT, temperature=0.7)
    tiny.assert_close(out, expected)


def rows_of(batch, k):
    """Prompt and k-th response in one row: tokens and valid [B, P + R]."""
    tokens = np.concatenate([batch.prompt, batch.responses[:, k]], axis=1)
    valid = np.concatenate([batch.prompt_valid, batch.response_valid[:, k]], axis=1)
    return tokens, valid


def separate_scores(params, batch):
    """K forward passes of prompt + response, read at the last real token."""
    scores = []
    for k in range(batch.ranks.shape[1]):
        tokens, valid = rows_of(batch, k)
        every = SCALAR.apply({"params": params}, tokens[:, None], valid[:, None])
        last = tiny.PROMPT - 1 + batch.response_valid[:, k].sum(axis=1)
        scores.append(every[np.arange(len(last)), 0, last])
    return jnp.stack(scores, axis=1)


def shared_scores(params, batch):
    return response_scores(
        SCALAR,
        params,
        (batch.prompt, batch.prompt_valid),
        (batch.responses, batch.response_valid),
    )


def test_sharing_the_prompt_is_k_separate_forwards(scalar_params, rng):
    batch = tiny.comparison_batch(rng)
    weights = rng.normal(size=batch.ranks.shape) * batch.present

    def scores_and_grads(function):
        def total(params):
            scores = function(params, batch)
            return (scores * weights).sum(), jnp.where(batch.present, scores, 0.0)

        return jax.jit(jax.grad(total, has_aux=True))(scalar_params)

    grads, scores = scores_and_grads(shared_scores)
    separate_grads, separate = scores_and_grads(separate_scores)
    np.testing.assert_allclose(scores, separate, rtol=1e-4, atol=1e-5)
    tiny.assert_close(grads, separate_grads, atol=1e-4)


def test_score_is_read_at_eos(scalar_params, rng):
    """EOS changes the score, and what follows it does not."""
    batch = tiny.comparison_batch(rng)
    score = jax.jit(shared_scores)
    before = np.asarray(score(scalar_params, batch))
    garbage = tiny.scrambled(rng, batch.responses, batch.response_valid)
    after = np.asarray(score(scalar_params, batch._replace(responses=garbage)))
    np.testing.assert_array_equal(before[batch.present], after[batch.present])
    other = np.where(batch.responses == tiny.EOS, 2, batch.responses)
    changed = np.asarray(score(scalar_params, batch._replace(responses=other)))
    assert (changed[batch.present] != before[batch.present]).all()


def test_values_are_of_the_state_before_each_token(scalar_params, rng):
    batch = tiny.comparison_batch(rng)
    tokens, valid = rows_of(batch, 0)
    every = SCALAR.apply({"params": scalar_params}, tokens[:, None], valid[:, None])
    prompt = batch.prompt, batch.prompt_valid
    responses, response_valid = batch.responses[:, 0], batch.response_valid[:, 0]
    value = jax.jit(functools.partial(response_values, SCALAR))
    values = value(scalar_params, prompt, (responses, response_valid))
    expected = every[:, 0, tiny.PROMPT - 1 : -1]
    np.testing.assert_allclose(
        np.asarray(values)[response_valid],
        np.asarray(expected)[response_valid],
        rtol=1e-4,
        atol=1e-5,
    )
    # The token itself is not seen: the last one may be any.
    other = responses.copy()
    other[:, -1] = 7
    after = value(scalar_params, prompt, (other, response_valid))
    np.testing.assert_array_equal(values, after)
