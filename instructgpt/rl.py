"""The formulas of PPO on arrays, without a model: rewards, advantages, objectives.

Letters: B batch, R response tokens. `mask` is True on real response tokens, EOS
included. Every function is one formula; paper §3.5 and App. C.4.
"""

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Num
from instructgpt.losses import Weighted, masked_sum


def shaped_rewards(
    score: Num[Array, " B"],
    *,
    log_probs: Float[Array, "B R"],
    ref_log_probs: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    kl_coef: float,
) -> Float[Array, "B R"]:
    """Rewards r_t = -beta * log(pi / pi_ref) at token t; the last adds the score.

    Their sum over a response is score - beta * KL, the bracket of Eq. 2. The KL
    estimate is not clipped and may be negative at a token.

    Args:
      score: The reward model's score of each response.
      log_probs: Log-probs log pi of the policy that sampled.
      ref_log_probs: Log-probs log pi_ref of the frozen reference.
      mask: True on real tokens.
      kl_coef: Coefficient beta, per nat.

    Returns:
      r_t, 0 on padding.
    """
    kl = log_probs - ref_log_probs
    following = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    last = (mask & ~following).astype(jnp.float32)
    rewards = -kl_coef * kl + last * score.astype(jnp.float32)[:, None]
    return jnp.where(mask, rewards, 0.0)


def gae(
    *,
    rewards: Float[Array, "B R"],
    values: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    discount: float,
    lam: float,
) -> tuple[Float[Array, "B R"], Float[Array, "B R"]]:
    """Generalised advantage estimation, backwards over the response.

    delta_t = r_t + discount * V_{t+1} - V_t and A_t = delta_t + discount * lam *
    A_{t+1}; the value after the last token is 0, because the episode ends there.

    Args:
      rewards: Rewards r_t, 0 on padding.
      values: Values V_t.
      mask: True on real tokens.
      discount: Discount factor, 1 in the paper ("no discount").
      lam: Lambda of GAE.

    Returns:
      (advantages, returns = advantages + values), 0 on padding.
    """
    values = jnp.where(mask, values, 0.0)
    next_values = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    deltas = jnp.where(mask, rewards + discount * next_values - values, 0.0)

    def backward(carry: Array, delta: Array) -> tuple[Array, Array]:
        advantage = delta + discount * lam * carry
        return advantage, advantage

    _, advantages = jax.lax.scan(
        backward, jnp.zeros_like(deltas[:, 0]), deltas.T, reverse=True
    )
    advantages = jnp.where(mask, advantages.T, 0.0)
    return advantages, jnp.where(mask, advantages + values, 0.0)


def whiten(x: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Float[Array, "B R"]:
    """Scales to mean 0 and unit variance over the real tokens only; 0 on padding.

    The variance is the biased one and epsilon is 1e-8, as in Ziegler et al. 2019.
    """
    mean = masked_sum(x, mask).mean()
    variance = masked_sum(jnp.square(x - mean), mask).mean()
    scaled = (x - mean) * jax.lax.rsqrt(variance + 1e-8)
    return jnp.where(mask, scaled, 0.0)


def clipped_policy_loss(
    *,
    log_probs: Float[Array, "B R"],
    old_log_probs: Float[Array, "B R"],
    advantages: Float[Array, "B R"],
    clip: float,
) -> tuple[Float[Array, "B R"], Float[Array, "B R"], Bool[Array, "B R"]]:
    """PPO's surrogate max(-A * ratio, -A * clip(ratio, 1 - clip, 1 + clip)).

    Returns:
      (loss, ratio, whether the clip binds) of each token.
    """
    ratio = jnp.exp(log_probs - old_log_probs)
    unclipped = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return jnp.maximum(unclipped, clipped), ratio, clipped > unclipped


def clipped_value_loss(
    *,
    values: Float[Array, "B R"],
    old_values: Float[Array, "B R"],
    returns: Float[Array, "B R"],
    clip: float | None,
) -> tuple[Float[Array, "B R"], Bool[Array, "B R"]]:
    """Value loss 0.5 * max((V - V_targ)^2, (V_old + clip(V - V_old) - V_targ)^2).

    Args:
      values: Values V of the value net now.
      old_values: Values V_old at the time of the rollout.
      returns: Targets V_targ.
      clip: Largest change that counts; None for the plain squared error.

    Returns:
      (loss, whether the clip binds) of each token.
    """
    unclipped = jnp.square(values - returns)
    if clip is None:
        return 0.5 * unclipped, jnp.zeros_like(unclipped, dtype=bool)
    clipped_values = old_values + jnp.clip(values - old_values, -clip, clip)
    clipped = jnp.square(clipped_values - returns)
    return 0.5 * jnp.maximum(unclipped, clipped), clipped > unclipped


def sequence_kl(
    *,
    log_probs: Float[Array, "B R"],
    ref_log_probs: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
) -> Weighted:
    """Estimate of KL(policy || reference) in nats per response: sum log(pi/pi_ref)."""
    kl = jnp.where(mask, log_probs - ref_log_probs, 0.0).sum(axis=1)
    return masked_sum(kl, mask.any(axis=1))
