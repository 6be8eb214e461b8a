"""Jitted functions that turn tokens into tokens, scores and log-probs of text.

They are cached by their configs, so that models that differ only in their parameters
share compiled programs.

Letters: B batch, P prompt, R response or continuation, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.data.templates import PromptFormat
from instructgpt.generation import make_sampler
from instructgpt.models.comparisons import response_scores
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.sampling import SamplingConfig

Array = jax.Array


def sampling_ids(
    prompt_format: PromptFormat, *, newline: bool = False
) -> dict[str, Any]:
    """The token ids that `make_sampler` takes, from a tokenizer and a template.

    Args:
      prompt_format: The tokenizer and the template.
      newline: Whether a newline also ends a response, as in a list of solved examples.

    Returns:
      A dict of stop_ids, the template's end mark and EOS; pad_id; and banned_ids, which
      are never drawn: padding, and begin-of-text unless it is also EOS.
    """
    tokenizer = prompt_format.tokenizer
    ends = [prompt_format.end_id, tokenizer.eos_id]
    ends += [tokenizer.token_id("\n")] * newline
    banned = [tokenizer.pad_id]
    if tokenizer.bos_id not in (None, tokenizer.eos_id):
        banned.append(tokenizer.bos_id)
    return {
        "stop_ids": tuple(dict.fromkeys(ends)),
        "pad_id": tokenizer.pad_id,
        "banned_ids": tuple(banned),
    }


@functools.lru_cache(maxsize=64)
def _shared_sampler(
    model: ModelConfig,
    sampling: SamplingConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    banned_ids: tuple[int, ...],
) -> Callable[..., Any]:
    return make_sampler(
        Transformer(model),
        config=sampling,
        stop_ids=stop_ids,
        pad_id=pad_id,
        banned_ids=banned_ids,
    )


def text_sampler(
    model: ModelConfig,
    prompt_format: PromptFormat,
    sampling: SamplingConfig,
    *,
    newline: bool = False,
) -> Callable[..., Any]:
    """A sampler from `make_sampler`, shared by all models of this config."""
    ids = sampling_ids(prompt_format, newline=newline)
    return _shared_sampler(model, sampling, **ids)


@functools.lru_cache(maxsize=64)
def shared_scorer(
    config: ModelConfig,
) -> Callable[[Any, Array, Array, Array, Array], Array]:
    """The jitted (params, prompt, valid, responses, valid) -> scores [B, K]."""
    model = ScalarModel(config)

    @jax.jit
    def run(params, prompt, prompt_valid, responses, response_valid):
        return response_scores(
            model, params, (prompt, prompt_valid), (responses, response_valid)
        )

    return run


@functools.lru_cache(maxsize=64)
def shared_likelihood(config: ModelConfig) -> Callable[..., tuple[Array, Array]]:
    """The jitted (params, prompt, valid, continuation, valid) -> two arrays [B, R].

    The arrays are the log-probs of the continuation's tokens, and whether each token is
    the most probable one. Logits exist for one column at a time.
    """
    model = Transformer(config)

    @jax.jit
    def run(params, prompt, prompt_valid, target, target_valid):
        tokens = jnp.concatenate([prompt, target], axis=1)
        valid = jnp.concatenate([prompt_valid, target_valid], axis=1)
        variables = {"params": params}
        hidden, _ = model.apply(
            variables,
            tokens[:, None],
            valid[:, None],
            output_range=(prompt.shape[1] - 1, tokens.shape[1] - 1),
        )
        columns = jnp.moveaxis(hidden[:, 0], 1, 0), target.T  # [R, B, D], [R, B]

        def column(at: tuple[Array, Array]) -> tuple[Array, Array]:
            logits = model.apply(variables, at[0], method="logits")
            log_probs = jax.nn.log_softmax(logits, axis=-1)
            taken = jnp.take_along_axis(log_probs, at[1][:, None], axis=-1)[:, 0]
            return taken, logits.argmax(axis=-1) == at[1]

        taken, greedy = jax.lax.map(column, columns)
        return jnp.where(valid[:, prompt.shape[1] :], taken.T, 0.0), greedy.T

    return run
