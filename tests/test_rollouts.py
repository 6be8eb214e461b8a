"""The content of rollouts, and the way from prompts to minibatches and texts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.batches import PromptBatch
from instructgpt.errors import UserError
from instructgpt.generation import generate, make_sampler
from instructgpt.inference.programs import shared_scorer
from instructgpt.models.comparisons import response_scores
from instructgpt.models.scoring import response_log_probs, response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.plan.hlo import Trips, collective_bytes
from instructgpt.rewards import make_reward_scorer
from instructgpt.rl import shaped_rewards
from instructgpt.rollouts import (
    make_minibatches,
    make_rollout_fn,
    rollout_metrics,
    split_batch,
)
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import put_batch
from instructgpt.state import cast, params_layout, shardings_of
from tests import tiny

POLICY = Transformer(tiny.config())
REWARD = ScalarModel(tiny.config(width=24, num_layers=1))
VALUE = ScalarModel(tiny.config(num_layers=1))
TEMPERATURE, B = 0.7, 8
STOPS = (tiny.EOS, 2, 3, 4)


class Frozen(NamedTuple):
    """Parameters of the models that only run."""

    reference: Any
    reward: Any


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(POLICY)


@pytest.fixture(scope="module")
def frozen(params):
    return Frozen(params, tiny.params_of(REWARD, seed=1))


@pytest.fixture(scope="module")
def value_params():
    return tiny.params_of(VALUE, seed=2)


@pytest.fixture(scope="module")
def prompts():
    tokens, valid = tiny.prompts(np.random.default_rng(1), B)
    return PromptBatch(tokens, valid, np.arange(20, 20 + B, dtype=np.int32))


@pytest.fixture(scope="module")
def sampler():
    return make_sampler(
        POLICY,
        config=SamplingConfig(tiny.RESPONSE, temperature=TEMPERATURE),
        stop_ids=STOPS,
        pad_id=tiny.PAD,
        banned_ids=(tiny.PAD,),
    )


@pytest.fixture(scope="module")
def samples(sampler, params, prompts):
    return sampler(params, prompts, jax.random.key(0))


def score(samples, prompts, frozen, value_params, **options):
    parts = options.get("microbatches", 1)
    rate = make_reward_scorer(REWARD, microbatches=parts)
    scores = rate(frozen.reward, prompts, samples)
    roll_out = make_rollout_fn(
        POLICY, VALUE, temperature=TEMPERATURE, stop_ids=STOPS, **options
    )
    return jax.device_get(
        roll_out(prompts, samples, scores, frozen.reference, value_params)
    )


@pytest.fixture(scope="module")
def rollout(samples, prompts, frozen, value_params):
    return score(samples, prompts, frozen, value_params)


def test_rollout_holds_prompts_and_samples(rollout, samples, prompts):
    tiny.assert_equal(rollout.prompt, prompts.tokens)
    tiny.assert_equal(rollout.prompt_valid, prompts.valid)
    tiny.assert_equal(rollout.response, np.asarray(samples.tokens[:, 0]))
    tiny.assert_equal(rollout.response_valid, np.asarray(samples.valid[:, 0]))
    tiny.assert_equal(rollout.log_probs, np.asarray(samples.log_probs[:, 0]))
    assert rollout.response_valid.sum(axis=1).min() < tiny.RESPONSE


def test_devices_sample_what_one_samples(samples, params, prompts, sampler):
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        params = jax.device_put(params, shardings_of(params_layout(POLICY, mesh)))
        cut = sampler(params, put_batch(prompts, mesh), jax.random.key(0))
    tiny.assert_equal(cut.tokens, np.asarray(samples.tokens))
    tiny.assert_close(cut.log_probs, np.asarray(samples.log_probs))


def bytes_received(program, *, outer: bool = False) -> tuple[float, float]:
    """By a device if loops run once, and what each further round of one adds."""

    def total(rounds: int) -> float:
        trips = Trips(1, rounds, 1) if outer else Trips(rounds)
        return sum(collective_bytes(program.as_text(), trips=trips).values())

    return total(1), (total(11) - total(1)) / 10


def test_decoding_brings_tokens_to_the_weights(prompts, key):
    """Not weights to the tokens, where those are fewer."""
    mesh, model = tiny.mesh_of(fsdp=4), Transformer(tiny.config(width=256))
    sampler = make_sampler(
        model, config=SamplingConfig(tiny.RESPONSE), stop_ids=STOPS, pad_id=tiny.PAD
    )
    with jax.set_mesh(mesh):
        layout = params_layout(model, mesh)
        program = sampler.lower(layout, put_batch(prompts, mesh), key).compile()
    once, each = bytes_received(program)
    weights = 4 * sum(x.size for x in jax.tree.leaves(layout))
    assert once > weights / 2, "the prefill gathers them"
    assert 0 < each < weights / 10


def test_devices_with_all_weights_decode_alone(sampler, params, prompts, key):
    """A step asks the others only whether all have ended."""
    mesh = tiny.mesh_of(data=4)
    with jax.set_mesh(mesh):
        layout = params_layout(POLICY, mesh)
        program = sampler.lower(layout, put_batch(prompts, mesh), key).compile()
    _, each = bytes_received(program)
    assert 0 < each < 4


def test_slots_are_refilled_where_they_are(key):
    """The tokens of one device; and keys and values stay with who computed them."""
    length, slots, refill = 96, 16, 8
    mesh, model = tiny.mesh_of(fsdp=4), Transformer(tiny.config(context_length=128))
    tokens, valid = tiny.prompts(np.random.default_rng(2), 40, length)
    prompts = PromptBatch(tokens, valid, np.arange(40, dtype=np.int32))
    params = tiny.params_of(model)
    sampler = make_sampler(
        model,
        config=SamplingConfig(tiny.RESPONSE, slots=slots, refill=refill),
        stop_ids=STOPS,
        pad_id=tiny.PAD,
    )
    alone = jax.device_get(sampler(params, prompts, key))
    lengths = alone.valid.sum(axis=-1)
    assert lengths.min() < lengths.max()
    with jax.set_mesh(mesh):
        params = jax.device_put(params, shardings_of(params_layout(model, mesh)))
        program = sampler.lower(params, put_batch(prompts, mesh), key).compile()
        cut = program(params, put_batch(prompts, mesh), key)
    tiny.assert_equal(cut.tokens, alone.tokens)
    tiny.assert_close(cut.log_probs, alone.log_probs)
    _, each = bytes_received(program, outer=True)
    cache = 2 * model.config.num_layers * model.config.width * 4 * length * refill
    weights = 4 * sum(x.size for x in jax.tree.leaves(params))
    assert each < weights + cache / 4


def test_kl_to_oneself_is_zero(rollout):
    """The reference is the policy here, and scores at the sampling temperature."""
    np.testing.assert_allclose(rollout.ref_log_probs, rollout.log_probs, atol=1e-5)
    kl = rollout_metrics(rollout, kl_coef=0.1)["kl"]
    assert abs(float(kl.sum)) < 1e-4


def test_each_number_is_its_models(rollout, frozen, value_params):
    prompt = rollout.prompt, rollout.prompt_valid
    response = rollout.response, rollout.response_valid
    mask = rollout.response_valid
    values = response_values(VALUE, value_params, prompt, response)
    np.testing.assert_allclose(
        rollout.values, np.where(mask, values, 0.0), rtol=1e-5, atol=1e-5
    )
    ref = response_log_probs(
        POLICY, frozen.reference, prompt, response, temperature=TEMPERATURE
    ).log_probs
    np.testing.assert_allclose(
        rollout.ref_log_probs, np.where(mask, ref, 0.0), rtol=1e-5, atol=1e-5
    )
    scores = response_scores(
        REWARD, frozen.reward, prompt, (response[0][:, None], response[1][:, None])
    )
    np.testing.assert_allclose(rollout.score, scores[:, 0], rtol=1e-5, atol=1e-5)
    assert rollout.score.dtype == np.float32


def test_episodes_scored_in_parts_are_the_whole(
    rollout, samples, prompts, frozen, value_params
):
    parts = score(samples, prompts, frozen, value_params, microbatches=2)
    tiny.assert_close(parts, rollout)


def test_padding_of_a_rollout_is_zero(rollout):
    for x in (rollout.log_probs, rollout.ref_log_probs, rollout.values):
        assert not x[~rollout.response_valid].any()


def test_truncation_score_is_for_responses_without_a_stop_only(
    rollout, samples, prompts, frozen, value_params
):
    changed = score(samples, prompts, frozen, value_params, truncation_score=-1.5)
    ended = (np.isin(rollout.response, STOPS) & rollout.response_valid).any(axis=1)
    assert 0 < ended.sum() < B
    np.testing.assert_allclose(
        changed.score, np.where(ended, rollout.score, -1.5), rtol=1e-6
    )


def test_metrics_against_a_loop(rng):
    rollout = tiny.rollout(rng)
    rollout.response_valid[3] = False  # a blank row
    metrics = rollout_metrics(rollout, kl_coef=0.3)
    scores, kls, rewards, lengths = [], [], [], []
    for b in range(B):
        length = int(rollout.response_valid[b].sum())
        if length:
            kl = (rollout.log_probs - rollout.ref_log_probs)[b, :length].sum()
            scores.append(rollout.score[b])
            kls.append(kl)
            rewards.append(rollout.score[b] - 0.3 * kl)
            lengths.append(length)
    expected = dict(score=scores, kl=kls, reward=rewards, response_length=lengths)
    for name, values in expected.items():
        assert float(metrics[name].weight) == B - 1
        np.testing.assert_allclose(
            metrics[name].mean(), np.mean(values), rtol=1e-5, err_msg=name
        )


def test_the_reward_metric_is_the_sum_of_shaped_rewards(rng):
    rollout = tiny.rollout(rng)
    rewards = shaped_rewards(
        jnp.asarray(rollout.score),
        log_probs=rollout.log_probs,
        ref_log_probs=rollout.ref_log_probs,
        mask=rollout.response_valid,
        kl_coef=0.3,
    )
    metric = rollout_metrics(rollout, kl_coef=0.3)["reward"]
    np.testing.assert_allclose(metric.sum, rewards.sum(), rtol=1e-5)


def test_minibatches_hold_each_episode_once(rng):
    rollout = tiny.rollout(rng)
    cut = make_minibatches(4)
    parts = jax.device_get(cut(rollout, jax.random.key(0)))
    assert len(parts) == 4 and all(part.score.shape == (2,) for part in parts)
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    order = [int(np.flatnonzero(rollout.score == s)[0]) for s in joined.score]
    assert sorted(order) == list(range(B)) != order
    # All fields of a row stay together.
    tiny.assert_equal(joined, jax.tree.map(lambda x: x[order], rollout))
    other = jax.device_get(cut(rollout, jax.random.key(1)))
    assert any((a.score != b.score).any() for a, b in zip(parts, other, strict=True))


def test_split_batch_keeps_the_order():
    parts = split_batch({"x": jnp.arange(6)}, 3)
    np.testing.assert_array_equal([p["x"] for p in parts], [[0, 1], [2, 3], [4, 5]])


def test_noise_is_keyed_by_row_number_not_by_place(sampler, params, prompts, samples):
    order = np.array([5, 0, 7, 2, 1, 6, 3, 4])
    moved = sampler(
        params, PromptBatch(*(x[order] for x in prompts)), jax.random.key(0)
    )
    np.testing.assert_array_equal(moved.tokens, np.asarray(samples.tokens)[order])


def test_eight_devices_sample_and_score_like_one(
    sampler, params, prompts, samples, rollout, frozen, value_params
):
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)

    def place(params, model):
        layout = params_layout(model, mesh)
        return jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), params, layout)

    with jax.set_mesh(mesh):
        policy = place(params, POLICY)
        models = Frozen(policy, place(frozen.reward, REWARD))
        batch = put_batch(prompts, mesh)
        sharded = sampler(policy, batch, jax.random.key(0))
        np.testing.assert_array_equal(sharded.tokens, samples.tokens)
        tiny.assert_close(
            score(sharded, batch, models, place(value_params, VALUE)), rollout
        )


def test_generate_gives_tokens_in_order_and_leaves_blank_rows_out(
    sampler, params, prompts, samples
):
    index = prompts.index.copy()
    index[5:] = -1
    batches, mesh = [prompts, prompts._replace(index=index)], tiny.mesh_of()
    with jax.set_mesh(mesh):
        first, second = generate(sampler, params, batches, jax.random.key(0), mesh=mesh)
    assert [g.row for g in first] == [*range(20, 20 + B)]
    assert [g.row for g in second] == [*range(20, 25)]
    for b in range(B):
        tokens = np.asarray(samples.tokens[b, 0])[np.asarray(samples.valid[b, 0])]
        assert first[b].tokens == [tokens.tolist()]


def test_generate_refuses_tokens_drawn_from_nan(sampler, params, prompts):
    """Such a policy answers too: the largest of NaN logits has a number like any."""
    spoiled = {**params, "token_embedding": params["token_embedding"] * np.nan}
    mesh = tiny.mesh_of()
    with jax.set_mesh(mesh), pytest.raises(UserError, match="log-probs of sampled"):
        list(generate(sampler, spoiled, [prompts], jax.random.key(0), mesh=mesh))


def test_response_scorer_is_response_scores(frozen, rng):
    batch = tiny.comparison_batch(rng)
    scorer = shared_scorer(REWARD.config)
    args = batch.prompt, batch.prompt_valid, batch.responses, batch.response_valid
    expected = response_scores(REWARD, frozen.reward, args[:2], args[2:])
    tiny.assert_close(scorer(frozen.reward, *args), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cast_is_a_copy_that_outlives_the_original(dtype):
    params = {"w": jnp.array([0.1, 0.2])}
    copy = cast(params, dtype)
    assert copy["w"].dtype == dtype
    jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(params)
    np.testing.assert_allclose(copy["w"].astype(jnp.float32), [0.1, 0.2], rtol=0.01)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_model_gives_the_numbers_of_its_float32_parameters(rng, dtype):
    """Else the policy that samples is not quite the policy that is updated."""
    policy = Transformer(tiny.config(compute_dtype=dtype))
    reward = ScalarModel(tiny.config(compute_dtype=dtype))
    batch = tiny.comparison_batch(rng)
    prompt = batch.prompt, batch.prompt_valid

    @jax.jit
    def numbers(policy_params, reward_params):
        responses = batch.responses, batch.response_valid
        first = batch.responses[:, 0], batch.response_valid[:, 0]
        return (
            response_log_probs(policy, policy_params, prompt, first),
            response_scores(reward, reward_params, prompt, responses),
        )

    params = tiny.params_of(policy), tiny.params_of(reward)
    copies = [cast(p, dtype) for p in params]
    assert copies[0]["token_embedding"].dtype == dtype
    tiny.assert_close(numbers(*copies), numbers(*params), atol=1e-6)
