"""The PPO-ptx step: one minibatch, two optimisers (paper §3.5, Eq. 2, C.4).

Letters: B episodes of a minibatch, R response tokens. Data flow: shaped rewards and
GAE from the rollout's records -> policy gradient plus gamma times the pretraining
gradient, one policy update -> value gradient, one value update -> EMA.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from instructgpt.arrays import Array, Float, Key
from instructgpt.batches import Rollout, TokenBatch
from instructgpt.losses import Weighted, masked_sum
from instructgpt.models.scoring import response_log_probs, response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.ranges import (
    Fraction,
    FractionBelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from instructgpt.rl import (
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    shaped_rewards,
    whiten,
)
from instructgpt.state import PPOState, TrainState
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import (
    LossFn,
    Metrics,
    Params,
    gradients,
    norm_metric,
    update,
)


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """The PPO-ptx objective; defaults are the simplest behaviour, not the paper's."""

    kl_coef: NonNegativeFloat = 0.0  # beta: per nat of log p - log q, in the reward
    ptx_coef: NonNegativeFloat = (
        0.0  # gamma: weight of the pretraining gradient; 0 is plain PPO
    )
    clip: PositiveFloat = 0.2  # the probability ratio is clipped to 1 +- clip
    value_clip: NonNegativeFloat = (
        0.0  # how far V may move from the rollout's; 0: no clipping
    )
    discount: Fraction = 1.0
    gae_lambda: Fraction = 1.0
    whiten_advantages: bool = False  # per minibatch, over real tokens
    ema_decay: FractionBelowOne = (
        0.0  # decay of the policy's EMA per optimiser step; 0: no averaging
    )
    microbatches: PositiveInt = 1  # parts of a minibatch, in memory one at a time
    ptx_microbatches: NonNegativeInt = 0  # the same for ptx rows; 0: microbatches


class Episodes(NamedTuple):
    """A minibatch of rollouts with their advantages and returns."""

    rollout: Rollout
    advantages: Float[Array, "B R"]  # whitened if config.whiten_advantages is set
    returns: Float[Array, "B R"]  # computed before advantages are whitened


def with_advantages(rollout: Rollout, *, config: PPOConfig) -> Episodes:
    """Adds the advantages and returns of a minibatch, by shaped rewards and GAE."""
    mask = rollout.response_valid
    rewards = shaped_rewards(
        rollout.score,
        log_probs=rollout.log_probs,
        ref_log_probs=rollout.ref_log_probs,
        mask=mask,
        kl_coef=config.kl_coef,
    )
    advantages, returns = gae(
        rewards=rewards,
        values=rollout.values,
        mask=mask,
        discount=config.discount,
        lam=config.gae_lambda,
    )
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Episodes(rollout, advantages, returns)


def make_policy_loss(
    model: Transformer, config: PPOConfig, temperature: float
) -> LossFn:
    """Builds the clipped surrogate, a mean over a minibatch's real response tokens."""

    def loss_fn(
        params: Params, batch: Episodes, key: Key[Array, ""]
    ) -> tuple[Weighted, Metrics]:
        del key
        rollout, mask = batch.rollout, batch.rollout.response_valid
        now = response_log_probs(
            model,
            params,
            (rollout.prompt, rollout.prompt_valid),
            (rollout.response, rollout.response_valid),
            temperature=temperature,
        )
        loss, ratio, clipped = clipped_policy_loss(
            log_probs=now.log_probs,
            old_log_probs=rollout.log_probs,
            advantages=batch.advantages,
            clip=config.clip,
        )
        drift = now.log_probs - rollout.log_probs
        return masked_sum(loss, mask), {
            "policy_loss": masked_sum(loss, mask),
            "ratio": masked_sum(ratio, mask),
            "approx_kl": masked_sum(0.5 * drift * drift, mask),
            "log_prob_gap": masked_sum(abs(drift), mask),
            "clip_fraction": masked_sum(clipped, mask),
            "entropy": masked_sum(now.entropy, mask),
        }

    return loss_fn


def make_value_loss(model: ScalarModel, config: PPOConfig) -> LossFn:
    """Builds the clipped squared error to the returns, a mean over real tokens."""

    def loss_fn(
        params: Params, batch: Episodes, key: Key[Array, ""]
    ) -> tuple[Weighted, Metrics]:
        del key
        rollout, mask = batch.rollout, batch.rollout.response_valid
        values = response_values(
            model,
            params,
            (rollout.prompt, rollout.prompt_valid),
            (rollout.response, rollout.response_valid),
        )
        loss, clipped = clipped_value_loss(
            values=values,
            old_values=rollout.values,
            returns=batch.returns,
            clip=config.value_clip or None,
        )
        return masked_sum(loss, mask), {
            "value_loss": masked_sum(loss, mask),
            "value_clip_fraction": masked_sum(clipped, mask),
            "value": masked_sum(values, mask),
            "return": masked_sum(batch.returns, mask),
        }

    return loss_fn


PPOStep = Callable[
    [PPOState, Rollout, TokenBatch | None, Array], tuple[PPOState, Metrics]
]


def make_ppo_step(
    policy_model: Transformer,
    value_model: ScalarModel,
    *,
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation,
    config: PPOConfig,
    temperature: float = 1.0,
    shardings: Any = None,
) -> PPOStep:
    """Builds the jitted update (state, rollout, ptx, key) -> (state, metrics).

    `ptx` are pretraining rows for the minibatch, None when gamma is 0. The gradient of
    their mean negative log-likelihood per token, times gamma, is added to the PPO
    gradient before the one policy update. The state is donated.
    """
    policy_loss = make_policy_loss(policy_model, config, temperature)
    value_loss = make_value_loss(value_model, config)
    ptx_loss = make_sft_loss(policy_model, leading_padding=False, train=False)
    parts = config.microbatches
    text_parts = config.ptx_microbatches or parts

    def step(
        state: PPOState,
        rollout: Rollout,
        ptx: TokenBatch | None,
        key: Key[Array, ""],
    ) -> tuple[PPOState, Metrics]:
        key = jax.random.fold_in(key, state.policy.step)
        episodes = with_advantages(rollout, config=config)

        def gradient(loss_fn: LossFn, of: TrainState, batch: Any, parts: int = parts):
            return gradients(
                loss_fn,
                of.params,
                batch,
                key,
                microbatches=parts,
                loss_scale=of.loss_scale,
            )

        scale = state.policy.loss_scale
        grads, _, metrics = gradient(policy_loss, state.policy, episodes)
        metrics["policy_grad_norm"] = norm_metric(grads, scale)
        if ptx is not None:
            more, loss, _ = gradient(ptx_loss, state.policy, ptx, text_parts)
            metrics["ptx_loss"] = loss
            metrics["ptx_grad_norm"] = norm_metric(more, scale)
            grads = jax.tree.map(lambda g, m: g + config.ptx_coef * m, grads, more)
        policy = update(state.policy, grads, policy_optimizer)
        grads, _, value_metrics = gradient(value_loss, state.value, episodes)
        metrics["value_grad_norm"] = norm_metric(grads, state.value.loss_scale)
        value = update(state.value, grads, value_optimizer).state
        decay = config.ema_decay
        ema = jax.tree.map(
            lambda e, p: decay * e + (1.0 - decay) * p, state.ema, policy.state.params
        )
        ema = policy.choose(ema, state.ema)
        return PPOState(policy.state, value, ema), {**metrics, **value_metrics}

    out = None if shardings is None else (shardings, None)
    return jax.jit(step, donate_argnums=0, out_shardings=out)
