"""The PPO-ptx step: ratios, both gradients, two optimisers, EMA."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instructgpt.batches import PromptBatch
from instructgpt.generation import make_sampler
from instructgpt.models.scoring import response_log_probs, response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import LossScale, OptimizerConfig, make_optimizer
from instructgpt.rewards import make_reward_scorer
from instructgpt.rl import clipped_policy_loss, clipped_value_loss
from instructgpt.rollouts import make_rollout_fn
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import put_batch
from instructgpt.state import PPOState, make_train_state, shardings_of
from instructgpt.steps.ppo import PPOConfig, make_ppo_step, with_advantages
from instructgpt.steps.sft import make_sft_loss
from tests import tiny

POLICY = Transformer(tiny.config(residual_dropout=0.5))  # which must stay off
VALUE = ScalarModel(tiny.config(width=24, num_layers=1))  # of a size of its own
CONFIG = PPOConfig(
    kl_coef=0.1,
    ptx_coef=0.5,
    value_clip=0.2,
    gae_lambda=0.95,
    whiten_advantages=True,
    ema_decay=0.9,
)
TEMPERATURE = 0.7
LR = 0.1


@pytest.fixture(scope="module")
def rollout():
    return tiny.rollout(np.random.default_rng(0))


@pytest.fixture(scope="module")
def ptx():
    return tiny.text_batch(np.random.default_rng(1))


@pytest.fixture(scope="module")
def start():
    """(policy, value) parameters."""
    return tiny.params_of(POLICY), tiny.params_of(VALUE, seed=1)


@functools.lru_cache
def mesh_of(sharded: bool):
    return tiny.mesh_of(2, 2, 2) if sharded else tiny.mesh_of()


def in_dtype(model, dtype):
    return model.clone(config=dataclasses.replace(model.config, compute_dtype=dtype))


@functools.lru_cache
def fresh_and_step(config, policy_lr, value_lr, sharded, adam, dtype="float32"):
    """(params -> fresh state, jitted step), each traced once for the whole file."""
    models = in_dtype(POLICY, dtype), in_dtype(VALUE, dtype)

    def optimizer(rate):
        if adam:
            return make_optimizer(OptimizerConfig(rate, eps=1e-3), 10)
        return optax.sgd(rate)

    optimizers, mesh = (optimizer(policy_lr), optimizer(value_lr)), mesh_of(sharded)

    def fresh(params):
        params = jax.tree.map(jnp.copy, params)  # which the states take over
        policy, value = (
            make_train_state(model, opt, key=jax.random.key(0), mesh=mesh, params=p)
            for model, opt, p in zip(models, optimizers, params, strict=True)
        )
        return PPOState(policy, value, ema=jax.tree.map(jnp.copy, policy.params))

    @functools.lru_cache
    def step_for(shardings):
        return make_ppo_step(
            *models,
            policy_optimizer=optimizers[0],
            value_optimizer=optimizers[1],
            config=config,
            temperature=TEMPERATURE,
            shardings=jax.tree.unflatten(*shardings),
        )

    def step(state, *args):
        leaves, tree = jax.tree.flatten(shardings_of(state))
        return step_for((tree, tuple(leaves)))(state, *args)

    return fresh, step


def run(
    params,
    rollout,
    ptx,
    *,
    config=CONFIG,
    num_steps=1,
    policy_lr=LR,
    value_lr=LR,
    sharded=False,
    adam=False,
):
    """(state, metrics of each step) after some updates on one minibatch."""
    fresh, step = fresh_and_step(config, policy_lr, value_lr, sharded, adam)
    metrics, key = [], jax.random.key(5)
    with jax.set_mesh(mesh_of(sharded)):
        state = fresh(params)
        batches = [
            None if b is None else put_batch(b, mesh_of(sharded))
            for b in (rollout, ptx)
        ]
        for _ in range(num_steps):
            state, out = step(state, *batches, key)
            metrics.append(out)
    return jax.device_get((state, metrics))


def mean(pair) -> float:
    return float(pair.sum / pair.weight)


@pytest.fixture(scope="module")
def once(start, rollout, ptx):
    return run(start, rollout, ptx)


@pytest.fixture(scope="module")
def without_ptx(start, rollout):
    return run(start, rollout, None)


@pytest.fixture(scope="module")
def sampled(start):
    """A rollout of the policy itself, the value net as the reward model."""
    config = SamplingConfig(tiny.RESPONSE, temperature=TEMPERATURE)
    stops = dict(stop_ids=(tiny.EOS, 2, 3, 4))
    sampler = make_sampler(
        POLICY, config=config, pad_id=tiny.PAD, banned_ids=(tiny.PAD,), **stops
    )
    roll_out = make_rollout_fn(POLICY, VALUE, temperature=TEMPERATURE, **stops)
    tokens, valid = tiny.prompts(np.random.default_rng(2), 8)
    prompts = PromptBatch(tokens, valid, np.arange(8, dtype=np.int32))
    policy, value = start
    samples = sampler(policy, prompts, jax.random.key(0))
    other = tiny.params_of(POLICY, seed=9)
    scores = make_reward_scorer(VALUE)(value, prompts, samples)
    return roll_out(prompts, samples, scores, other, value)


def test_ratio_is_one_at_first_and_not_in_a_second_epoch(start, sampled, ptx):
    assert 8 < sampled.response_valid.sum() < sampled.response_valid.size
    _, (first, second) = run(start, sampled, ptx, num_steps=2)
    assert mean(first["ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert 0 <= mean(first["approx_kl"]) < 1e-9
    assert mean(first["clip_fraction"]) == 0.0
    assert mean(second["approx_kl"]) > 1e-5
    assert abs(mean(second["ratio"]) - 1.0) > 1e-4


def test_the_clip_binds_when_the_policy_moved_far(start, sampled):
    _, (first, second) = run(start, sampled, None, num_steps=2, policy_lr=20.0)
    assert mean(first["clip_fraction"]) == 0.0 < mean(second["clip_fraction"])


def test_rewards_and_returns_are_of_the_rollout_in_every_epoch(start, sampled, ptx):
    """Values, log-probs and the KL reference are what was recorded."""
    _, (first, second) = run(start, sampled, ptx, num_steps=2)
    assert first["return"].sum == second["return"].sum
    assert first["value"].sum != second["value"].sum


def naive_grads(start, rollout, config):
    """Gradients of the two losses, straight from the formulas."""
    episodes = with_advantages(jax.tree.map(jnp.asarray, rollout), config=config)
    prompt = rollout.prompt, rollout.prompt_valid
    response = rollout.response, rollout.response_valid
    mask = rollout.response_valid

    def policy_loss(params):
        now = response_log_probs(
            POLICY, params, prompt, response, temperature=TEMPERATURE
        ).log_probs
        loss = clipped_policy_loss(
            log_probs=now,
            old_log_probs=rollout.log_probs,
            advantages=episodes.advantages,
            clip=config.clip,
        )[0]
        return jnp.where(mask, loss, 0.0).sum() / mask.sum()

    def value_loss(params):
        loss = clipped_value_loss(
            values=response_values(VALUE, params, prompt, response),
            old_values=rollout.values,
            returns=episodes.returns,
            clip=config.value_clip,
        )[0]
        return jnp.where(mask, loss, 0.0).sum() / mask.sum()

    policy, value = start
    return jax.jit(jax.grad(policy_loss))(policy), jax.jit(jax.grad(value_loss))(value)


def test_each_model_goes_down_its_own_gradient(start, rollout, without_ptx):
    state, _ = without_ptx
    grads = naive_grads(start, rollout, CONFIG)
    for params, grad, new in zip(
        start, grads, (state.policy, state.value), strict=True
    ):
        tiny.assert_close(
            new.params, jax.tree.map(lambda p, g: p - LR * g, params, grad)
        )
        assert tiny.distance(new.params, params) > 1e-3
        assert int(new.step) == 1


def test_ptx_adds_gamma_times_the_pretraining_gradient(start, ptx, once, without_ptx):
    loss_fn = make_sft_loss(POLICY, train=False)
    alone, sft_metrics = tiny.train(
        POLICY, loss_fn, ptx, params=start[0], optimizer=optax.sgd(LR)
    )
    (both, (metrics,)), (ppo, _) = once, without_ptx
    expected = jax.tree.map(
        lambda p, a, b: p + (a - p) + CONFIG.ptx_coef * (b - p),
        *(start[0], ppo.policy.params, alone.params),
    )
    tiny.assert_close(both.policy.params, expected)
    assert tiny.distance(both.policy.params, ppo.policy.params) > 1e-3
    tiny.assert_close(metrics["ptx_loss"], sft_metrics["loss"])
    norm = sft_metrics["grad_norm"].sum
    np.testing.assert_allclose(metrics["ptx_grad_norm"].sum, norm, rtol=1e-5)


def test_ptx_leaves_the_value_net_and_its_absence_leaves_no_metric(once, without_ptx):
    tiny.assert_close(once[0].value.params, without_ptx[0].value.params, atol=1e-7)
    assert "ptx_loss" in once[1][0] and "ptx_loss" not in without_ptx[1][0]


def test_the_two_optimizers_are_apart(start, rollout, without_ptx):
    base = without_ptx[0]
    slow, _ = run(start, rollout, None, value_lr=0.0)
    tiny.assert_close(slow.policy.params, base.policy.params, atol=1e-7)
    tiny.assert_equal(slow.value.params, jax.device_get(start[1]))
    slow, _ = run(start, rollout, None, policy_lr=0.0)
    tiny.assert_close(slow.value.params, base.value.params, atol=1e-7)
    tiny.assert_equal(slow.policy.params, jax.device_get(start[0]))


def test_ema_follows_every_update(start, rollout, ptx, once):
    first = once[0].policy.params
    state, _ = run(start, rollout, ptx, num_steps=2)
    decay = CONFIG.ema_decay

    def expected(p0, p1, p2):
        ema = decay * p0 + (1 - decay) * p1
        return decay * ema + (1 - decay) * p2

    tiny.assert_close(
        state.ema,
        jax.tree.map(expected, start[0], first, state.policy.params),
        atol=1e-6,
    )


def test_without_decay_the_ema_is_the_policy(start, rollout):
    config = dataclasses.replace(CONFIG, ema_decay=0.0)
    state, _ = run(start, rollout, None, config=config)
    tiny.assert_equal(state.ema, state.policy.params)


@pytest.mark.parametrize("parts", [(2, 0), (1, 2)], ids=["all", "pretraining rows"])
def test_microbatched_is_whole(parts, start, rollout, ptx, once):
    # Whitening is over the minibatch: a half has another mean and variance.
    lengths = rollout.response_valid.sum(axis=1)
    assert lengths[::2].sum() != lengths[1::2].sum()
    config = dataclasses.replace(
        CONFIG, microbatches=parts[0], ptx_microbatches=parts[1]
    )
    tiny.assert_close(run(start, rollout, ptx, config=config), once)


def test_eight_devices_are_one_device(start, rollout, ptx):
    both = [
        run(
            start,
            rollout,
            ptx,
            num_steps=2,
            adam=True,
            policy_lr=0.01,
            value_lr=0.01,
            sharded=sharded,
        )
        for sharded in (True, False)
    ]
    tiny.assert_close(*both)


def test_blank_rows_and_padding_content_change_nothing(start, rollout, ptx, once, rng):
    per_token = "response log_probs ref_log_probs values".split()
    garbage = rollout._replace(
        prompt=tiny.scrambled(rng, rollout.prompt, rollout.prompt_valid),
        **{
            name: tiny.scrambled(rng, getattr(rollout, name), rollout.response_valid)
            for name in per_token
        },
    )
    blank = tiny.blank_rows(garbage, 8)
    blank.score[8:] = 100.0
    tiny.assert_close(run(start, blank, tiny.blank_rows(ptx, 8)), once)


def test_blank_columns_change_nothing(start, rollout, ptx, once):
    def wider(x, left, right):
        return np.pad(x, ((0, 0), (left, right))) if x.ndim == 2 else x

    padded = type(rollout)(
        *(wider(x, 2, 0) for x in rollout[:2]),
        *(wider(x, 0, 3) for x in rollout[2:]),
    )
    tiny.assert_close(run(start, padded, ptx), once)


def test_fractional_scores_reach_the_returns(rollout):
    config = PPOConfig(kl_coef=0.1)
    before = with_advantages(rollout, config=config)
    after = with_advantages(rollout._replace(score=rollout.score + 0.5), config=config)
    np.testing.assert_allclose(
        after.returns - before.returns, 0.5 * rollout.response_valid, atol=1e-6
    )


@pytest.mark.parametrize(
    "changes",
    [
        dict(kl_coef=0.2),
        dict(discount=0.9),
        dict(gae_lambda=0.5),
        dict(whiten_advantages=False),
    ],
)
def test_settings_of_the_advantages_are_read(rollout, changes):
    config = dataclasses.replace(CONFIG, **changes)
    before = with_advantages(rollout, config=CONFIG)
    after = with_advantages(rollout, config=config)
    assert np.abs(before.advantages - after.advantages).max() > 1e-3


def test_whitening_leaves_the_returns(rollout):
    config = dataclasses.replace(CONFIG, whiten_advantages=False)
    tiny.assert_equal(
        with_advantages(rollout, config=CONFIG).returns,
        with_advantages(rollout, config=config).returns,
    )


@pytest.mark.parametrize("changes", [dict(clip=0.01), dict(value_clip=0.0)])
def test_clips_are_read(start, rollout, once, ptx, changes):
    config = dataclasses.replace(CONFIG, **changes)
    state, _ = run(start, rollout, ptx, config=config)
    part = "policy" if "clip" in changes else "value"
    new, old = getattr(state, part).params, getattr(once[0], part).params
    assert tiny.distance(new, old) > 1e-4


def test_several_calls_are_one_trace_and_donate_the_state(start, rollout, ptx):
    fresh, _ = fresh_and_step(CONFIG, LR, LR, False, False)
    optimizers = dict(policy_optimizer=optax.sgd(LR), value_optimizer=optax.sgd(LR))
    state = fresh(start)
    step = make_ppo_step(
        POLICY,
        VALUE,
        config=CONFIG,
        temperature=TEMPERATURE,
        shardings=shardings_of(state),
        **optimizers,
    )
    old = state
    for number in range(3):
        moved = rollout._replace(score=rollout.score + number)
        state, _ = step(state, moved, ptx, jax.random.key(number))
    assert step._cache_size() == 1
    assert all(x.is_deleted() for x in jax.tree.leaves(old))


def in_float16(start, rollout, ptx, **scales):
    """(state before, state after, metrics) of a step in float16."""
    fresh, step = fresh_and_step(CONFIG, LR, LR, False, False, "float16")
    with jax.set_mesh(mesh_of(False)):
        state = fresh(start)
        for name, scale in scales.items():
            part = getattr(state, name)
            scale = LossScale.fresh().replace(scale=jnp.float32(scale))
            part = dataclasses.replace(part, loss_scale=scale)
            state = dataclasses.replace(state, **{name: part})
        before = jax.device_get(state)
        batches = (put_batch(b, mesh_of(False)) for b in (rollout, ptx))
        state, metrics = step(state, *batches, jax.random.key(5))
    return before, state, jax.device_get(metrics)


def test_float16_updates_policy_value_and_average_as_float32_does(
    start, rollout, ptx, once
):
    before, after, metrics = in_float16(start, rollout, ptx)
    expected, (wanted,) = once
    for name in ("policy", "value", "ema"):
        old, new, want = (getattr(x, name) for x in (before, after, expected))
        if name != "ema":
            old, new, want = old.params, new.params, want.params
        moved = jax.tree.map(lambda a, b: a - b, want, old)
        scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(moved))
        assert 0 < tiny.distance(new, want) < 0.02 * scale, name
    for name in ("policy_grad_norm", "ptx_grad_norm", "value_grad_norm"):
        assert mean(metrics[name]) == pytest.approx(mean(wanted[name]), rel=0.01)


@pytest.mark.parametrize(
    ("skipped", "scaling"),
    [("policy", (2.0**29, 1, 2.0**7, 0)), ("value", (2.0**7, 0, 2.0**29, 1))],
)
def test_policy_and_value_skip_steps_apart(start, rollout, ptx, skipped, scaling):
    before, after, metrics = in_float16(start, rollout, ptx, **{skipped: 2.0**30})
    for name in ("policy", "value"):
        moved = tiny.distance(getattr(after, name).params, getattr(before, name).params)
        assert (moved == 0) == (name == skipped)
        assert metrics[f"{name}_grad_norm"].weight == (name != skipped)
        assert int(getattr(after, name).step) == 1
    if skipped == "policy":
        tiny.assert_equal(jax.device_get(after.ema), before.ema)
    names = "loss_scale", "skipped_steps", "value_loss_scale", "value_skipped_steps"
    assert after.scaling() == dict(zip(names, scaling, strict=True))
