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
from instructgpt.models.comparisons import predicting_states, response_scores
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.sampling import SamplingConfig
from instructgpt.tokenizer import Tokenizer

Array = jax.Array


def sampling_ids(
    prompt_format: PromptFormat,
    *,
    newline: bool = False,
    stops: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The token ids that `make_sampler` takes, from a tokenizer and a template.

    Args:
      prompt_format: The tokenizer and the template.
      newline: Whether a newline also ends a response, as in a list of solved examples.
      stops: Texts; each token whose text contains one of them also ends a response.

    Returns:
      A dict of stop_ids, the template's end mark and EOS; pad_id; and banned_ids, which
      are never drawn: padding, and begin-of-text unless it is also EOS.
    """
    tokenizer = prompt_format.tokenizer
    ends = [prompt_format.end_id, tokenizer.eos_id]
    ends += [tokenizer.token_id("\n")] * newline
    ends += _ids_with(tokenizer, stops) if stops else ()
    banned = [tokenizer.pad_id]
    if tokenizer.bos_id not in (None, tokenizer.eos_id):
        banned.append(tokenizer.bos_id)
    return {
        "stop_ids": tuple(dict.fromkeys(ends)),
        "pad_id": tokenizer.pad_id,
        "banned_ids": tuple(banned),
    }


def _ids_with(tokenizer: Tokenizer, texts: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of the tokens whose text contains one of the texts."""
    pieces = ((i, tokenizer.decode([i])) for i in range(tokenizer.vocab_size))
    return tuple(i for i, piece in pieces if any(text in piece for text in texts))


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
    stops: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """A sampler from `make_sampler`, shared by all models of this config."""
    ids = sampling_ids(prompt_format, newline=newline, stops=stops)
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
    """The jitted (params, prompt, valid, continuations, valid) -> two arrays [B, K, R].

    The prompts [B, P] are left-padded, and their K continuations [B, K, R] are
    right-padded; a prompt runs through the model once. The arrays are the log-probs of
    the continuations' tokens, and whether each token is the most probable one. Logits
    exist for one column at a time.
    """
    model = Transformer(config)

    @jax.jit
    def run(params, prompt, prompt_valid, target, target_valid):
        variables = {"params": params}
        if target.shape[1] == 1:  # a single continuation shares nothing
            tokens = jnp.concatenate([prompt[:, None], target], axis=2)
            states, _ = model.apply(
                variables,
                tokens,
                jnp.concatenate([prompt_valid[:, None], target_valid], axis=2),
                output_range=(prompt.shape[1] - 1, tokens.shape[2] - 1),
            )
        else:
            states = predicting_states(
                model, params, (prompt, prompt_valid), (target, target_valid)
            )

        def column(at: tuple[Array, Array]) -> tuple[Array, Array]:
            """Of states [B K, D] and tokens [B K]."""
            logits = model.apply(variables, at[0], method="logits")
            log_probs = jax.nn.log_softmax(logits, axis=-1)
            taken = jnp.take_along_axis(log_probs, at[1][:, None], axis=-1)[:, 0]
            return taken, logits.argmax(axis=-1) == at[1]

        length = target.shape[2]
        rows = states.reshape(-1, length, states.shape[-1]), target.reshape(-1, length)
        columns = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), rows)
        taken, greedy = (
            x.T.reshape(target.shape) for x in jax.lax.map(column, columns)
        )
        return jnp.where(target_valid, taken, 0.0), greedy

    return run
