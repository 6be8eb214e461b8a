"""Prompts -> rollouts: sample, score, and the log-probs of the frozen reference.

Letters: B prompts, P prompt, R response, K samples per prompt.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from instructgpt.arrays import Array, Key
from instructgpt.batches import PromptBatch, Rollout
from instructgpt.distributed import fetch
from instructgpt.finite import check_finite
from instructgpt.losses import masked_sum
from instructgpt.models.comparisons import response_scores
from instructgpt.models.scoring import response_log_probs, response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.rl import sequence_kl
from instructgpt.sampling import Samples, SamplingConfig, sample
from instructgpt.sharding import put_whole_batch
from instructgpt.steps.update import Metrics, join_rows, split_rows

Params = Any


class Frozen(NamedTuple):
    """The two models PPO does not train, in the compute dtype."""

    reference: Params  # what the KL is measured against
    reward: Params


def cast(params: Params, dtype: str) -> Params:
    """A copy of the parameters in a compute dtype, for models that only run.

    LayerNorms and scalar heads compute in float32 and stay in it, so that the copy
    gives the same numbers as the float32 parameters do in training.
    """

    def one(path: tuple[Any, ...], x: Array) -> Array:
        *parents, name = (str(entry.key) for entry in path)
        head = not parents and name in ("kernel", "bias")
        norm = bool(parents) and parents[-1].startswith("ln_")
        return jnp.array(x, jnp.float32 if head or norm else dtype)

    return jax.tree_util.tree_map_with_path(one, params)


def make_sampler(
    model: nn.Module,
    *,
    config: SamplingConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    banned_ids: tuple[int, ...] = (),
) -> Callable[[Params, PromptBatch, Array], Samples]:
    """A jitted sampler: (params, prompts, key) -> Samples [B, K, R].

    Noise is keyed by each prompt's row number, not by its place in the batch.
    """

    def roll_out(params: Params, prompts: PromptBatch, key: Array) -> Samples:
        return sample(
            model,
            cast(params, model.config.compute_dtype),
            (prompts.tokens, prompts.valid),
            key,
            config=config,
            stop_ids=stop_ids,
            pad_id=pad_id,
            banned_ids=banned_ids,
            row_ids=prompts.index,
        )

    return jax.jit(roll_out)


def make_rollout_fn(
    policy_model: Transformer,
    reward_model: ScalarModel,
    value_model: ScalarModel,
    *,
    temperature: float,
    stop_ids: tuple[int, ...],
    truncation_score: float | None = None,
    microbatches: int = 1,
) -> Callable[[Samples, PromptBatch, Frozen, Params], Rollout]:
    """A jitted scorer of one sample per prompt: log-probs, values and scores.

    Args:
      policy_model: Also the reference's shape.
      reward_model: Read at the last response token.
      value_model: Read before each response token.
      temperature: The sampling temperature; log-probs are always taken at it.
      stop_ids: What ends a response.
      truncation_score: Score of a response cut at the length limit; None leaves it
        the reward model's.
      microbatches: Parts the episodes are cut into, one at a time in memory; divides B.
    """

    def part(
        samples: Samples, prompts: PromptBatch, frozen: Frozen, value: Params
    ) -> Rollout:
        prompt = prompts.tokens, prompts.valid
        tokens, valid = samples.tokens[:, 0], samples.valid[:, 0]
        scores = response_scores(
            reward_model, frozen.reward, prompt, (samples.tokens, samples.valid)
        )[:, 0]
        if truncation_score is not None:
            ended = (jnp.isin(tokens, jnp.array(stop_ids)) & valid).any(axis=1)
            scores = jnp.where(ended, scores, truncation_score)
        ref = response_log_probs(
            policy_model,
            frozen.reference,
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

    def score(
        samples: Samples, prompts: PromptBatch, frozen: Frozen, value: Params
    ) -> Rollout:
        if microbatches == 1:
            return part(samples, prompts, frozen, value)
        rows = split_rows((samples, prompts), microbatches)
        return join_rows(jax.lax.map(lambda x: part(x[0], x[1], frozen, value), rows))

    return jax.jit(score)


def rollout_metrics(rollout: Rollout, *, kl_coef: float) -> Metrics:
    """What the curves of a run show: score, KL, reward and length per response."""
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
    """[B, ...] -> `num` batches [B / num, ...], in order."""
    leaves, tree = jax.tree.flatten(batch)
    parts = zip(*(jnp.split(x, num) for x in leaves), strict=True)
    return [jax.tree.unflatten(tree, part) for part in parts]


def make_minibatches(num: int) -> Callable[[Rollout, Array], list[Rollout]]:
    """Jitted: shuffles the episodes by a key and cuts them into minibatches."""

    def cut(rollout: Rollout, key: Array) -> list[Rollout]:
        order = jax.random.permutation(key, rollout.score.shape[0])
        return split_batch(jax.tree.map(lambda x: x[order], rollout), num)

    return jax.jit(cut)


class Generated(NamedTuple):
    """One prompt's responses as the host sees them."""

    row: int  # number in the source
    tokens: list[list[int]]  # K responses, up to and including their stop token


def generate(
    sampler: Callable[[Params, PromptBatch, Array], Samples],
    params: Params,
    batches: Iterable[PromptBatch],
    key: Key[Array, ""],
    *,
    mesh: Mesh,
) -> Iterator[list[Generated]]:
    """Samples responses to batches of prompts, in order, and fetches each batch.

    Args:
      sampler: Of `make_sampler`.
      params: The policy's.
      batches: Whole prompt batches, on every process; rows with index -1 are padding
        and are left out.
      key: One for the whole source.
      mesh: Where to run.

    Yields:
      What each batch gave.

    Raises:
      UserError: a log-prob of a sampled token is not finite.
    """
    for batch in batches:
        samples = fetch(sampler(params, put_whole_batch(batch, mesh), key))
        index = np.asarray(batch.index)
        real = index >= 0
        drawn = samples.log_probs[real][samples.valid[real]]
        check_finite(drawn, "log-probs of sampled tokens")
        out = []
        for row in np.flatnonzero(real):
            tokens, valid = samples.tokens[row], samples.valid[row]
            kept = [t[v].tolist() for t, v in zip(tokens, valid, strict=True)]
            out.append(Generated(int(index[row]), kept))
        yield out


def make_response_scorer(
    reward_model: ScalarModel,
) -> Callable[[Params, Array, Array, Array, Array], Array]:
    """Jitted scores [B, K] of (params, prompt, valid, responses, valid)."""

    @jax.jit
    def run(params, prompt, prompt_valid, responses, response_valid):
        return response_scores(
            reward_model, params, (prompt, prompt_valid), (responses, response_valid)
        )

    return run
