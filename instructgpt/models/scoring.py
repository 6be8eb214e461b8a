"""Reading numbers off responses: log-probs, values and reward-model scores.

Letters: B batch, P prompt, R response, K responses per prompt, D width. Prompts
are left-padded, so the state at column P - 1 predicts the first response token.
"""

from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.models.transformer import (
    ScalarModel,
    TokenLogProbs,
    Transformer,
    as_context,
)

Array = jax.Array
Params = Any


def target_log_probs(
    model: Transformer,
    params: Params,
    tokens: Array,
    valid: Array,
    *,
    texts: Array | None = None,
    first: int = 1,
    temperature: float = 1.0,
    dropout_key: Array | None = None,
) -> TokenLogProbs:
    """Log-probs of tokens[:, first:] given what precedes each.

    Args:
      model: The language model.
      params: Its parameters.
      tokens: int32[B, T].
      valid: bool[B, T].
      texts: int32[B, T] where a row packs several texts; see Transformer.
      first: First column that is a target, at least 1. Logits exist for no other.
      temperature: Divides the logits.
      dropout_key: Turns residual dropout on.

    Returns:
      float32[B, T - first] log-probs and entropies.
    """
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    hidden, _ = model.apply(
        {"params": params},
        tokens[:, None],
        valid[:, None],
        texts=None if texts is None else texts[:, None],
        deterministic=dropout_key is None,
        rngs=rngs,
    )
    hidden, targets = hidden[:, 0, first - 1 : -1], tokens[:, first:]
    out = model.apply(
        {"params": params},
        hidden.reshape(-1, hidden.shape[-1]),
        targets.reshape(-1),
        temperature=temperature,
        method="log_probs",
    )
    return jax.tree.map(lambda x: x.reshape(targets.shape), out)


def response_log_probs(
    model: Transformer,
    params: Params,
    prompt: tuple[Array, Array],
    response: tuple[Array, Array],
    *,
    temperature: float = 1.0,
) -> TokenLogProbs:
    """Log-probs of a response's tokens: float32[B, R].

    Args:
      model: The language model.
      params: Its parameters.
      prompt: (int32[B, P], bool[B, P]).
      response: (int32[B, R], bool[B, R]).
      temperature: The one the response was sampled at.
    """
    tokens = jnp.concatenate([prompt[0], response[0]], axis=1)
    valid = jnp.concatenate([prompt[1], response[1]], axis=1)
    first = prompt[0].shape[1]
    return target_log_probs(
        model, params, tokens, valid, first=first, temperature=temperature
    )


def response_values(
    model: ScalarModel,
    params: Params,
    prompt: tuple[Array, Array],
    response: tuple[Array, Array],
) -> Array:
    """Value of the state before each response token: float32[B, R]."""
    tokens = jnp.concatenate([prompt[0], response[0]], axis=1)
    valid = jnp.concatenate([prompt[1], response[1]], axis=1)
    first = prompt[0].shape[1]
    variables = {"params": params}
    hidden, _ = model.apply(variables, tokens[:, None], valid[:, None], method="hidden")
    return model.apply(variables, hidden[:, 0, first - 1 : -1], method="scores")


def response_scores(
    model: ScalarModel,
    params: Params,
    prompt: tuple[Array, Array],
    responses: tuple[Array, Array],
) -> Array:
    """Score of each of K responses at its last token, the prompt computed once.

    The prompt runs through the trunk once and its K responses attend to it: P + K*R
    tokens a row rather than K*(P + R).

    Args:
      model: The reward model.
      params: Its parameters.
      prompt: (int32[B, P], bool[B, P]).
      responses: (int32[B, K, R], bool[B, K, R]); the last valid token is EOS, or
        the last one sampled if the response was cut.

    Returns:
      float32[B, K]; meaningless where a response is empty.
    """
    variables = {"params": params}
    tokens, valid = responses
    _, segment = model.apply(
        variables, prompt[0][:, None], prompt[1][:, None], keep_kv=True, method="hidden"
    )
    length = prompt[1].sum(axis=1, dtype=jnp.int32)[:, None]
    hidden, _ = model.apply(
        variables,
        tokens,
        valid,
        context=(as_context(segment),),
        offset=jnp.broadcast_to(length, tokens.shape[:2]),
        method="hidden",
    )
    last = jnp.maximum(valid.sum(axis=-1, dtype=jnp.int32) - 1, 0)
    hidden = jnp.take_along_axis(hidden, last[:, :, None, None], axis=2)[:, :, 0]
    return model.apply(variables, hidden, method="scores")
