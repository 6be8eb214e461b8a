"""Samples and scores -> rollouts, with the reference's log-probs and the values.

Letters: B prompts, P prompt, R response, K samples per prompt.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Float, Params
from instructgpt.batches import PromptBatch, Rollout
from instructgpt.losses import masked_sum
from instructgpt.models.scoring import response_log_probs, response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.rl import sequence_kl
from instructgpt.sampling import Samples
from instructgpt.sharding import join_rows, split_rows
from instructgpt.steps.update import Metrics


def make_rollout_fn(
    reference_model: Transformer,
    value_model: ScalarModel,
    *,
    temperature: float,
    stop_ids: tuple[int, ...],
    truncation_score: float | None = None,
    microbatches: int = 1,
) -> Callable[[PromptBatch, Samples, Float[Array, " B"], Params, Params], Rollout]:
    """Builds the jitted (prompts, samples, scores, reference, value) -> Rollout.

    `reference` and `value` are parameters. They give the log-probs of the reference and
    the values, which are added to one sample per prompt and its score.

    Args:
      reference_model: Model that the KL is measured against.
      value_model: Model of the value of the state before each response token.
      temperature: Sampling temperature, at which log-probs are always computed.
      stop_ids: Tokens that end a response.
      truncation_score: Score of a response cut at the length limit; None keeps the
        score that it was given.
      microbatches: Parts of the episodes, in memory one at a time; divides B.
    """

    def part(
        prompts: PromptBatch,
        samples: Samples,
        scores: Float[Array, " B"],
        reference: Params,
        value: Params,
    ) -> Rollout:
        prompt = prompts.tokens, prompts.valid
        tokens, valid = samples.tokens[:, 0], samples.valid[:, 0]
        if truncation_score is not None:
            ended = (jnp.isin(tokens, jnp.array(stop_ids)) & valid).any(axis=1)
            scores = jnp.where(ended, scores, truncation_score)
        ref = response_log_probs(
            reference_model,
            reference,
            prompt,
            (tokens, valid),
            temperature=temperature,
        )
        values = response_values(value_model, value, prompt, (tokens, valid))
        return Rollout(
            prompt=prompts.tokens,
            prompt_valid=prompts.valid,
            response=tokens,
            response_valid=valid,
            log_probs=samples.log_probs[:, 0],
            ref_log_probs=jnp.where(valid, ref.log_probs, 0.0),
            values=jnp.where(valid, values, 0.0),
            score=scores,
        )

    @jax.jit
    def roll_out(
        prompts: PromptBatch,
        samples: Samples,
        scores: Float[Array, " B"],
        reference: Params,
        value: Params,
    ) -> Rollout:
        if microbatches == 1:
            return part(prompts, samples, scores, reference, value)
        rows = split_rows((prompts, samples, scores), microbatches)

        def one(x: tuple[PromptBatch, Samples, Array]) -> Rollout:
            return part(x[0], x[1], x[2], reference, value)

        return join_rows(jax.lax.map(one, rows))

    return roll_out


def rollout_metrics(rollout: Rollout, *, kl_coef: float) -> Metrics:
    """Metrics of a rollout: score, KL, reward and length per response."""
    mask = rollout.response_valid
    real = mask.any(axis=1)
    kl = sequence_kl(
        log_probs=rollout.log_probs, ref_log_probs=rollout.ref_log_probs, mask=mask
    )
    score = masked_sum(rollout.score, real)
    return {
        "score": score,
        "kl": kl,
        "reward": score._replace(sum=score.sum - kl_coef * kl.sum),
        "response_length": masked_sum(mask.sum(axis=1).astype(jnp.float32), real),
    }


def split_batch(batch: Any, num: int) -> list[Any]:
    """Splits arrays [B, ...] into `num` batches [B / num, ...], in order."""
    leaves, tree = jax.tree.flatten(batch)
    parts = zip(*(jnp.split(x, num) for x in leaves), strict=True)
    return [jax.tree.unflatten(tree, part) for part in parts]


def make_minibatches(num: int) -> Callable[[Rollout, Array], list[Rollout]]:
    """Builds the jitted shuffle of episodes by a key and their split in minibatches."""

    def cut(rollout: Rollout, key: Array) -> list[Rollout]:
        order = jax.random.permutation(key, rollout.score.shape[0])
        return split_batch(jax.tree.map(lambda x: x[order], rollout), num)

    return jax.jit(cut)
