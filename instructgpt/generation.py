"""Sampling of prompt batches: the jitted sampler, and its results on the host.

Letters: B prompts, P prompt, R response, K samples per prompt.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from instructgpt.arrays import Array, Key, Params
from instructgpt.batches import PromptBatch
from instructgpt.distributed import fetch
from instructgpt.finite import check_finite
from instructgpt.sampling import Samples, SamplingConfig, sample
from instructgpt.sharding import put_whole_batch
from instructgpt.state import cast


def make_sampler(
    model: nn.Module,
    *,
    config: SamplingConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    banned_ids: tuple[int, ...] = (),
) -> Callable[[Params, PromptBatch, Array], Samples]:
    """Builds a jitted sampler (params, prompts, key) -> Samples [B, K, R].

    The noise depends on each prompt's row number, not on its place in the batch.
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


class Generated(NamedTuple):
    """One prompt's responses on the host."""

    row: int  # row number of the prompt in the source
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
      sampler: The result of `make_sampler`.
      params: The policy's parameters.
      batches: Whole prompt batches, on every process; rows with index -1 are padding
        and are left out.
      key: Random key, the same for all batches of the source.
      mesh: The mesh to run on.

    Yields:
      The responses to the prompts of each batch.

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
