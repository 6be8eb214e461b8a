"""Rewards, advantages and objectives against naive loops, and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.rl import (
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    sequence_kl,
    shaped_rewards,
    whiten,
)

LENGTHS = (5, 1, 3, 4)
B, R = len(LENGTHS), max(LENGTHS)
MASK = np.arange(R) < np.array(LENGTHS)[:, None]


def per_token(rng, mean=0.0):
    return rng.normal(mean, 1.0, (B, R)).astype(np.float32)


def with_garbage(x):
    return np.where(MASK, x, np.float32(37.0))


def naive_rewards(score, log_probs, ref, beta):
    out = np.zeros((B, R))
    for b, length in enumerate(LENGTHS):
        for t in range(length):
            out[b, t] = -beta * (log_probs[b, t] - ref[b, t])
        out[b, length - 1] += score[b]
    return out


def naive_gae(rewards, values, discount, lam):
    """The sum of discounted residuals, straight from the definition."""
    advantages = np.zeros((B, R))
    for b, length in enumerate(LENGTHS):
        v = [*values[b, :length], 0.0]
        for t in range(length):
            for i in range(t, length):
                delta = rewards[b, i] + discount * v[i + 1] - v[i]
                advantages[b, t] += (discount * lam) ** (i - t) * delta
    return advantages, np.where(MASK, advantages + values, 0.0)


def test_rewards_by_hand():
    rewards = shaped_rewards(
        jnp.array([0.5]),
        log_probs=jnp.array([[-1.0, -2.0, 0.0]]),
        ref_log_probs=jnp.array([[-1.5, -1.0, 0.0]]),
        mask=jnp.array([[True, True, False]]),
        kl_coef=0.1,
    )
    np.testing.assert_allclose(rewards, [[-0.05, 0.1 + 0.5, 0.0]], rtol=1e-6)


def test_rewards_against_a_loop(rng):
    score = rng.normal(size=B).astype(np.float32)
    log_probs, ref = per_token(rng, -3.0), per_token(rng, -3.0)
    rewards = shaped_rewards(
        score, log_probs=log_probs, ref_log_probs=ref, mask=MASK, kl_coef=0.02
    )
    expected = naive_rewards(score, log_probs, ref, 0.02)
    np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-7)


def test_rewards_sum_to_score_minus_beta_kl(rng):
    score = rng.normal(size=B).astype(np.float32)
    log_probs, ref = per_token(rng, -3.0), per_token(rng, -3.0)
    rewards = shaped_rewards(
        score, log_probs=log_probs, ref_log_probs=ref, mask=MASK, kl_coef=0.3
    )
    kl = np.where(MASK, log_probs - ref, 0.0).sum(axis=1)
    np.testing.assert_allclose(rewards.sum(axis=1), score - 0.3 * kl, rtol=1e-5)


def test_a_negative_kl_estimate_is_a_positive_reward():
    rewards = shaped_rewards(
        jnp.zeros(1),
        log_probs=jnp.array([[-2.0, -1.0]]),
        ref_log_probs=jnp.array([[-1.0, -3.0]]),
        mask=jnp.ones((1, 2), bool),
        kl_coef=0.5,
    )
    np.testing.assert_allclose(rewards, [[0.5, -1.0]])


def test_integer_scores_do_not_truncate_the_penalty():
    rewards = shaped_rewards(
        jnp.array([1]),
        log_probs=jnp.array([[-1.0, -1.0]]),
        ref_log_probs=jnp.array([[-1.5, -1.25]]),
        mask=jnp.ones((1, 2), bool),
        kl_coef=0.5,
    )
    assert rewards.dtype == jnp.float32
    np.testing.assert_allclose(rewards, [[-0.25, 0.875]])


def test_score_is_paid_at_a_full_rows_last_column_too():
    zeros = jnp.zeros((1, 3))
    rewards = shaped_rewards(
        jnp.array([0.5]),
        log_probs=zeros,
        ref_log_probs=zeros,
        mask=jnp.ones((1, 3), bool),
        kl_coef=0.1,
    )
    np.testing.assert_array_equal(rewards, [[0.0, 0.0, 0.5]])


def test_blank_rows_earn_nothing():
    zeros = jnp.zeros((1, 3))
    rewards = shaped_rewards(
        jnp.array([0.5]),
        log_probs=zeros,
        ref_log_probs=zeros,
        mask=jnp.zeros((1, 3), bool),
        kl_coef=0.1,
    )
    assert not rewards.any()


def test_gae_by_hand():
    advantages, returns = gae(
        rewards=jnp.array([[0.0, 1.0]]),
        values=jnp.array([[0.5, 0.25]]),
        mask=jnp.ones((1, 2), bool),
        discount=1.0,
        lam=0.5,
    )
    # delta = (0.25 - 0.5, 1 - 0.25); A_1 = 0.75, A_0 = -0.25 + 0.5 * 0.75.
    np.testing.assert_allclose(advantages, [[0.125, 0.75]])
    np.testing.assert_allclose(returns, [[0.625, 1.0]])


@pytest.mark.parametrize(("discount", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0)])
def test_gae_against_the_definition(rng, discount, lam):
    rewards, values = np.where(MASK, per_token(rng), 0.0), per_token(rng)
    out = gae(
        rewards=jnp.asarray(rewards, jnp.float32),
        values=values,
        mask=MASK,
        discount=discount,
        lam=lam,
    )
    expected = naive_gae(rewards, values, discount, lam)
    np.testing.assert_allclose(out[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[1], expected[1], rtol=1e-4, atol=1e-5)


def test_lambda_zero_is_one_step_and_lambda_one_is_the_return_to_go(rng):
    rewards, values = np.where(MASK, per_token(rng), 0.0), per_token(rng)
    _, returns = gae(rewards=rewards, values=values, mask=MASK, discount=1.0, lam=1.0)
    to_go = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(returns, np.where(MASK, to_go, 0.0), atol=1e-5)
    advantages, _ = gae(
        rewards=rewards, values=values, mask=MASK, discount=1.0, lam=0.0
    )
    last = advantages[0, LENGTHS[0] - 1]
    np.testing.assert_allclose(last, rewards[0, -1] - values[0, -1], rtol=1e-5)


def test_padding_content_changes_no_reward_or_advantage(rng):
    score = rng.normal(size=B).astype(np.float32)
    log_probs, ref, values = per_token(rng), per_token(rng), per_token(rng)

    def run(change):
        rewards = shaped_rewards(
            score,
            log_probs=change(log_probs),
            ref_log_probs=change(ref) + 1.0,
            mask=MASK,
            kl_coef=0.1,
        )
        return rewards, *gae(
            rewards=change(rewards),
            values=change(values),
            mask=MASK,
            discount=0.9,
            lam=0.9,
        )

    for clean, garbage in zip(run(np.asarray), run(with_garbage), strict=True):
        np.testing.assert_array_equal(clean, garbage)
        assert not np.asarray(clean)[~MASK].any()


def test_whiten_by_hand():
    mask = jnp.array([[True, True, False]])
    # Mean 2, biased variance 1 (the unbiased one would be 2).
    out = whiten(jnp.array([[1.0, 3.0, 99.0]]), mask)
    np.testing.assert_allclose(out, [[-1.0, 1.0, 0.0]], rtol=1e-6)


def test_whiten_uses_real_tokens_only(rng):
    x = per_token(rng, mean=2.0)
    out = np.asarray(whiten(x, MASK))
    real = x[MASK].astype(np.float64)
    expected = (x - real.mean()) / np.sqrt(np.square(real - real.mean()).mean())
    np.testing.assert_allclose(out[MASK], expected[MASK], rtol=1e-4, atol=1e-5)
    assert not out[~MASK].any()
    np.testing.assert_array_equal(out, whiten(with_garbage(x), MASK))


def test_policy_loss_by_hand():
    old = jnp.zeros((1, 4))
    new = jnp.log(jnp.array([[1.5, 1.5, 0.5, 0.5]]))
    advantages = jnp.array([[2.0, -2.0, 2.0, -2.0]])
    loss, ratio, clipped = clipped_policy_loss(
        log_probs=new, old_log_probs=old, advantages=advantages, clip=0.2
    )
    # Only moves that already went too far in the good direction are cut.
    np.testing.assert_allclose(loss, [[-2.4, 3.0, -1.0, 1.6]], rtol=1e-6)
    np.testing.assert_allclose(ratio, [[1.5, 1.5, 0.5, 0.5]], rtol=1e-6)
    np.testing.assert_array_equal(clipped, [[True, False, False, True]])


def test_policy_loss_against_a_loop(rng):
    new, old, advantages = per_token(rng), per_token(rng), per_token(rng)
    loss, ratio, clipped = clipped_policy_loss(
        log_probs=new, old_log_probs=old, advantages=advantages, clip=0.1
    )
    for b in range(B):
        for t in range(R):
            r = np.exp(new[b, t] - old[b, t])
            free = -advantages[b, t] * r
            bound = -advantages[b, t] * min(max(r, 0.9), 1.1)
            np.testing.assert_allclose(ratio[b, t], r, rtol=1e-5)
            np.testing.assert_allclose(loss[b, t], max(free, bound), rtol=1e-5)
            assert bool(clipped[b, t]) == (bound > free)


def test_value_loss_by_hand():
    loss, clipped = clipped_value_loss(
        values=jnp.array([[1.0, 1.0]]),
        old_values=jnp.zeros((1, 2)),
        returns=jnp.array([[2.0, 0.5]]),
        clip=0.2,
    )
    # Clipped values are 0.2: errors 1.8 and 0.3 against the free 1.0 and 0.5.
    np.testing.assert_allclose(loss, [[0.5 * 1.8**2, 0.5 * 0.5**2]], rtol=1e-6)
    np.testing.assert_array_equal(clipped, [[True, False]])


def test_value_loss_against_a_loop(rng):
    new, old, returns = per_token(rng), per_token(rng), per_token(rng)
    loss, _ = clipped_value_loss(values=new, old_values=old, returns=returns, clip=0.2)
    plain, clipped = clipped_value_loss(
        values=new, old_values=old, returns=returns, clip=None
    )
    assert not clipped.any()
    for b in range(B):
        for t in range(R):
            near = min(max(new[b, t], old[b, t] - 0.2), old[b, t] + 0.2)
            free = (new[b, t] - returns[b, t]) ** 2
            bound = (near - returns[b, t]) ** 2
            np.testing.assert_allclose(loss[b, t], max(free, bound) / 2, rtol=1e-4)
            np.testing.assert_allclose(plain[b, t], free / 2, rtol=1e-4, atol=1e-7)


def test_sequence_kl_is_a_sum_per_response_and_a_mean_over_responses(rng):
    log_probs, ref = per_token(rng), per_token(rng)
    mask = MASK & np.array([True, True, False, True])[:, None]  # one blank row
    out = sequence_kl(log_probs=with_garbage(log_probs), ref_log_probs=ref, mask=mask)
    expected = [(log_probs - ref)[b, : LENGTHS[b]].sum() for b in (0, 1, 3)]
    np.testing.assert_allclose(out.mean(), np.mean(expected), rtol=1e-5)
    assert float(out.weight) == 3.0
