"""The cached sampler against a naive decoder that runs the whole text every time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.models.scoring import response_log_probs
from instructgpt.models.transformer import Transformer
from instructgpt.plan.hlo import computations
from instructgpt.sampling import Samples, SamplingConfig, sample
from tests import tiny
from tests.test_drawing import naive_nucleus

B, K, R = 4, 2, 7
STOPS, BANNED = (tiny.EOS, 2, 3, 4, *range(6, 14)), (tiny.PAD, 5)
ROW_IDS = np.array([3, 11, 7, 20], np.int32)
# (temperature, top-p, attention band)
CASES = {"greedy": (0.0, 1.0, 4), "whole": (1.0, 1.0, 4), "nucleus": (0.7, 0.8, 0)}


def model_of(band: int) -> Transformer:
    return Transformer(tiny.config(attention_band=band))


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(model_of(0))


@pytest.fixture(scope="module")
def prompt():
    return tiny.prompts(np.random.default_rng(1), B)


def jitted(band: int, config: SamplingConfig, banned: tuple[int, ...] = BANNED):
    """Jitted (params, prompt, key, row_ids) -> Samples, and a list of its traces."""
    traces = []

    def run(params, prompt, key, row_ids=None):
        traces.append(config)
        return sample(
            model_of(band),
            params,
            prompt,
            key,
            config=config,
            stop_ids=STOPS,
            pad_id=tiny.PAD,
            row_ids=row_ids,
            banned_ids=banned,
        )

    return jax.jit(run), traces


@functools.lru_cache
def sampler_of(name: str, banned: tuple[int, ...] = BANNED):
    temperature, top_p, band = CASES[name]
    return jitted(band, SamplingConfig(R, temperature, top_p, num_samples=K), banned)


def samples_of(name: str, *args, **kwargs) -> Samples:
    return jax.device_get(sampler_of(name, **kwargs)[0](*args))


@functools.partial(jax.jit, static_argnums=0)
def logits_after(model, params, tokens, valid, column):
    """Logits [N, V] of what follows a column, from a full forward of [N, T]."""
    hidden, _ = model.apply({"params": params}, tokens[:, None], valid[:, None])
    return model.apply({"params": params}, hidden[:, 0, column], method="logits")


@jax.jit
def noise_of(key, row_ids):
    """Gumbel noise [B, K, R, 1 + 128], keyed by row, sample and token.

    Of the one block of so small a vocabulary, then of its tokens.
    """

    def keyed(row, k, index):
        folded = key
        for number in (row, k, index):
            folded = jax.random.fold_in(folded, number)
        return jax.random.gumbel(folded, (1 + 128,))

    over_tokens = jax.vmap(keyed, (None, None, 0))
    over_samples = jax.vmap(over_tokens, (None, 0, None))
    over_rows = jax.vmap(over_samples, (0, None, None))
    return over_rows(row_ids, jnp.arange(K), jnp.arange(R))


def naive_decode(name: str, params, prompt, key, row_ids) -> Samples:
    """No cache, no shared prompt: each sample is a row of its own."""
    temperature, top_p, band = CASES[name]
    noise = np.asarray(noise_of(key, row_ids)).reshape(B * K, R, -1)
    width = tiny.PROMPT
    tokens = np.full((B * K, width + R), tiny.PAD, np.int32)
    valid = np.zeros((B * K, width + R), bool)
    tokens[:, :width], valid[:, :width] = (np.repeat(x, K, axis=0) for x in prompt)
    log_probs = np.zeros((B * K, R), np.float32)
    done = np.zeros(B * K, bool)
    for index in range(R):
        logits = np.asarray(
            logits_after(model_of(band), params, tokens, valid, width + index - 1)
        )
        for row in np.flatnonzero(~done):
            scaled = logits[row].astype(np.float64) / (temperature or 1.0)
            log_p = scaled - np.log(np.exp(scaled).sum())
            scaled[list(BANNED)] = -np.inf
            token = int(np.argmax(scaled))
            if temperature:
                kept = naive_nucleus(scaled, top_p)
                token = int(np.argmax(kept + noise[row, index, 1 : 1 + len(kept)]))
            tokens[row, width + index] = token
            valid[row, width + index] = True
            log_probs[row, index] = log_p[token]
            done[row] = token in STOPS
    parts = tokens[:, width:], valid[:, width:], log_probs
    return Samples(*(x.reshape(B, K, R) for x in parts))


@pytest.mark.parametrize("name", CASES)
def test_cached_decoding_is_naive_decoding(params, prompt, key, name):
    actual = samples_of(name, params, prompt, key, ROW_IDS)
    expected = naive_decode(name, params, prompt, key, ROW_IDS)
    lengths = expected.valid.sum(axis=-1)
    assert lengths.min() < R, "some responses should stop early"
    assert name == "greedy" or lengths.max() > 2
    np.testing.assert_array_equal(actual.tokens, expected.tokens)
    np.testing.assert_array_equal(actual.valid, expected.valid)
    np.testing.assert_allclose(actual.log_probs, expected.log_probs, atol=1e-4)


@pytest.mark.parametrize("name", ["whole", "nucleus"])
def test_log_probs_are_those_of_the_scoring_pass(params, prompt, key, name):
    """Else PPO's first ratio is not 1. What cannot be drawn still has its share."""
    temperature, _, band = CASES[name]
    samples = samples_of(name, params, prompt, key, ROW_IDS)
    score = jax.jit(
        functools.partial(response_log_probs, model_of(band), temperature=temperature)
    )
    for k in range(K):
        response = samples.tokens[:, k], samples.valid[:, k]
        scored = np.asarray(score(params, prompt, response).log_probs)
        np.testing.assert_allclose(
            samples.log_probs[:, k], np.where(response[1], scored, 0.0), atol=1e-4
        )


def test_a_response_ends_with_its_stop_token_and_padding_follows(params, prompt, key):
    samples = samples_of("whole", params, prompt, key, ROW_IDS)
    stops = np.isin(samples.tokens, STOPS)
    lengths = samples.valid.sum(axis=-1)
    for b, k in np.ndindex(B, K):
        length = lengths[b, k]
        assert 1 <= length <= R
        assert samples.valid[b, k, :length].all()
        assert not stops[b, k, : length - 1].any()
        assert length == R or stops[b, k, length - 1]
        assert (samples.tokens[b, k, length:] == tiny.PAD).all()
        assert (samples.log_probs[b, k, length:] == 0).all()
    assert lengths.min() < R


def test_banned_tokens_are_never_drawn(params, prompt, key):
    free = samples_of("greedy", params, prompt, key, ROW_IDS)
    favourite = int(free.tokens[0, 0, 0])
    banned = (tiny.PAD, favourite)
    samples = samples_of("greedy", params, prompt, key, ROW_IDS, banned=banned)
    drawn = samples.tokens[samples.valid]
    assert not np.isin(drawn, banned).any()


def test_rows_do_not_depend_on_their_neighbours(params, prompt, key, rng):
    """Row 2 with its id gives the same text at another place in another batch."""
    alone = samples_of("whole", params, prompt, key, ROW_IDS)
    tokens, valid = tiny.prompts(rng, B)
    row_ids = np.array([50, 51, 52, 53], np.int32)
    tokens[0], valid[0], row_ids[0] = prompt[0][2], prompt[1][2], ROW_IDS[2]
    moved = samples_of("whole", params, (tokens, valid), key, row_ids)
    np.testing.assert_array_equal(moved.tokens[0], alone.tokens[2])
    np.testing.assert_allclose(moved.log_probs[0], alone.log_probs[2], atol=1e-5)


def test_content_of_prompt_padding_changes_nothing(params, prompt, key, rng):
    tokens, valid = prompt
    garbage = tiny.scrambled(rng, tokens, valid)
    tiny.assert_equal(
        samples_of("whole", params, (garbage, valid), key, ROW_IDS),
        samples_of("whole", params, prompt, key, ROW_IDS),
    )


def test_samples_of_a_prompt_and_of_two_keys_differ(params, prompt, key):
    first = samples_of("whole", params, prompt, key, ROW_IDS).tokens
    second = samples_of("whole", params, prompt, jax.random.key(1), ROW_IDS).tokens
    assert (first[:, 0] != first[:, 1]).any(axis=-1).all()
    assert (first != second).any()


def test_several_calls_are_one_trace(params, prompt, key, rng):
    sampler, traces = sampler_of("whole")
    sampler(params, prompt, key, ROW_IDS)
    sampler(params, tiny.prompts(rng, B), jax.random.key(9), ROW_IDS + 1)
    assert len(traces) == 1


@functools.lru_cache
def many(slots: int, refill: int = 0, buckets: int = 1):
    """Jitted (params, prompt, key) -> Samples of up to 12 tokens."""
    config = SamplingConfig(
        12, num_samples=K, slots=slots, refill=refill, prompt_buckets=buckets
    )
    return jitted(4, config)[0]


@pytest.mark.parametrize(
    ("slots", "refill", "buckets"),
    [(4, 0, 1), (5, 2, 1), (3, 3, 3), (1, 1, 1), (23, 23, 1), (0, 0, 4), (40, 8, 2)],
)
def test_slots_that_are_refilled_give_the_same_samples(
    params, key, rng, slots, refill, buckets
):
    prompt = tiny.prompts(rng, 23)
    want = jax.device_get(many(0)(params, prompt, key))
    lengths = want.valid.sum(axis=-1)
    assert lengths.min() == 1 and lengths.max() == 12
    got = jax.device_get(many(slots, refill, buckets)(params, prompt, key))
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.valid, want.valid)
    np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


def test_a_limit_of_one_token(params, prompt, key):
    samples = jax.jit(
        lambda p, prompt, key: sample(
            model_of(0),
            p,
            prompt,
            key,
            config=SamplingConfig(1),
            stop_ids=STOPS,
            pad_id=tiny.PAD,
        )
    )(params, prompt, key)
    assert samples.tokens.shape == (B, 1, 1)
    assert samples.valid.all()


@pytest.mark.parametrize(
    "changes",
    [
        *(dict(temperature=-1.0), dict(top_p=0.0), dict(top_p=1.5)),
        *(dict(max_response=0), dict(num_samples=0), dict(slots=-1), dict(refill=3)),
        *(dict(refill=9, slots=8), dict(prompt_buckets=0)),
    ],
)
def test_settings_out_of_range_are_user_errors(changes):
    with pytest.raises(UserError, match=rf"sampling\.{next(iter(changes))}=.*: give "):
        SamplingConfig(**{"max_response": 5, **changes})


@pytest.mark.parametrize("num", [1, 2])
def test_no_step_copies_the_cache(params, prompt, num):
    run, _ = jitted(0, SamplingConfig(R, num_samples=num))
    text = run.lower(params, prompt, jax.random.key(0)).compile().as_text()
    cfg = model_of(0).config
    rows = (B,) if num == 1 else (B, num)
    sizes = ",".join(map(str, (*rows, cfg.num_kv_heads, R, cfg.head_dim)))
    _, bodies = computations(text)
    (loop,) = (
        lines
        for lines in bodies.values()
        if any("dynamic-update" in x for x in lines)
        if sum(f"f32[{sizes}]" in x and "get-tuple-element(" in x for x in lines) > 2
    )
    copies = [x for x in loop if f" f32[{sizes}]" in x and " copy(" in x]
    assert not copies
