"""Reward functions, which turn prompts and responses into scores for PPO.

PPO sees only a `RewardFn`, which may be a reward model on the devices, a Python
function on the host, or a weighted sum of both.

Letters: B prompts, one sample each, P prompt, R response.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from instructgpt.arrays import Array, Float, Params
from instructgpt.batches import PromptBatch
from instructgpt.distributed import fetch, is_first
from instructgpt.errors import UserError, shown
from instructgpt.models.comparisons import response_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.named import check_call, find_named
from instructgpt.sampling import Samples
from instructgpt.sharding import join_rows, put_whole_batch, split_rows

Record = Mapping[str, Any]


class RewardFn(Protocol):
    """Scores each response to its prompt."""

    def __call__(self, prompts: PromptBatch, samples: Samples) -> Float[Array, " B"]:
        """Float32 scores of the B prompts' samples, one sample per prompt."""
        ...


class HostFunction(Protocol):
    """A user's reward function, named in the config as module:name."""

    def __call__(
        self, records: Sequence[Record], responses: Sequence[str]
    ) -> Sequence[float]:
        """Returns a score for each response.

        Args:
          records: The prompts' records with all their fields, `reference` among them.
          responses: One text per record, without the template's end mark.
        """
        ...


def make_reward_scorer(
    model: ScalarModel, *, microbatches: int = 1
) -> Callable[[Params, PromptBatch, Samples], Float[Array, " B"]]:
    """Builds the jitted scorer (params, prompts, samples) -> scores of a reward model.

    Args:
      model: The reward model, read at the last token of each response.
      microbatches: Parts of the rows, in memory one at a time; divides B.
    """

    def part(
        params: Params, prompts: PromptBatch, samples: Samples
    ) -> Float[Array, " B"]:
        prompt = prompts.tokens, prompts.valid
        responses = samples.tokens, samples.valid
        return response_scores(model, params, prompt, responses)[:, 0]

    @jax.jit
    def score(
        params: Params, prompts: PromptBatch, samples: Samples
    ) -> Float[Array, " B"]:
        if microbatches == 1:
            return part(params, prompts, samples)
        rows = split_rows((prompts, samples), microbatches)
        return join_rows(jax.lax.map(lambda x: part(params, *x), rows))

    return score


class Decoder(NamedTuple):
    """Turns a batch on the devices into records and texts on the host."""

    records: Sequence[Record]  # indexed by the row numbers of prompt batches
    read: Callable[[Sequence[int]], str]  # token ids of a response -> its text
    mesh: Mesh


def make_host_reward(
    function: HostFunction, decoder: Decoder, *, name: str
) -> RewardFn:
    """Builds a RewardFn that calls a Python function on the first process only.

    Args:
      function: The user's function.
      decoder: Turns the batch into records and texts.
      name: The function's name, for errors.

    Returns:
      A function that raises UserError where the user's function fails, or its scores
      are not one finite number for each response.
    """

    def score(prompts: PromptBatch, samples: Samples) -> Float[Array, " B"]:
        rows, tokens, valid = fetch((prompts.index, samples.tokens, samples.valid))
        scores = np.full(len(rows), np.nan, np.float32)
        problem, failed = "", None
        if is_first():
            records = [decoder.records[int(row)] for row in rows]
            texts = [
                decoder.read(t[v].tolist())
                for t, v in zip(tokens[:, 0], valid[:, 0], strict=True)
            ]
            try:
                given = function(records, texts)
            except Exception as error:  # raised below, where all processes are
                failed = error
                at = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{at.filename}:{at.lineno}"
                problem = f"raised {type(error).__name__}: {error} ({where})"
            else:
                scores, problem = _as_scores(given, scores)
        if jax.process_count() > 1:  # always, because the other processes wait for it
            scores = multihost_utils.broadcast_one_to_all(scores)
        if not np.isfinite(scores).all():
            raise UserError(
                f"config.reward_function.name={name!r}: it "
                f"{problem or 'gave a score that is not finite'}, and must give one "
                f"finite number for each of {len(rows)} responses"
            ) from failed
        return put_whole_batch(scores, decoder.mesh)

    return score


def _as_scores(given: Any, missing: np.ndarray) -> tuple[np.ndarray, str]:
    """(float32[B], "") of what a function gave, or (`missing`, what is wrong)."""
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biuf":
            return missing, f"gave {shown(given)}"
    except ValueError:  # rows of several lengths
        return missing, f"gave {shown(given)}"
    if array.shape != missing.shape:
        return missing, f"gave scores of shape {list(array.shape)}"
    return array.astype(np.float32), ""


def weighted_sum(parts: Sequence[tuple[float, RewardFn]]) -> RewardFn:
    """Builds a RewardFn that is a weighted sum of others."""
    if len(parts) == 1 and parts[0][0] == 1.0:
        return parts[0][1]
    weights = [weight for weight, _ in parts]

    @jax.jit
    def add(scores: list[Array]) -> Array:
        total = jnp.zeros_like(scores[0])
        for weight, score in zip(weights, scores, strict=True):
            total = total + weight * score
        return total

    def score(prompts: PromptBatch, samples: Samples) -> Float[Array, " B"]:
        return add([part(prompts, samples) for _, part in parts])

    return score


def find_function(name: str) -> HostFunction:
    """Imports the function that a config names as module:name.

    Raises:
      UserError: there is no such function, or it does not take two arguments.
    """
    where = "config.reward_function.name"
    function = find_named(name, where=where, example="my_rewards:longest")
    if not callable(function):
        raise UserError(f"{where}={name!r} is not a function")
    check_call(function, ("records", "responses"), f"{where}={name!r}")
    return function
