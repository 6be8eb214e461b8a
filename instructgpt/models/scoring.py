"""Log-probs, losses and values of tokens.

Several responses to one prompt are scored by comparisons.py.

Letters: B batch, T tokens, P prompt, R response, D width. Prompts are left-padded, so
the state at column P - 1 predicts the first response token.
"""

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int, Key, Params
from instructgpt.models.structures import OutputRange, TokenLogProbs
from instructgpt.models.transformer import ScalarModel, Transformer


def target_log_probs(
    model: Transformer,
    params: Params,
    tokens: Int[Array, "B T"],
    valid: Bool[Array, "B T"],
    *,
    segment_ids: Int[Array, "B T"] | None = None,
    first: int = 1,
    temperature: float = 1.0,
    dropout_key: Key[Array, ""] | None = None,
) -> TokenLogProbs:
    """Log-probs of tokens[:, first:], each given the tokens before it.

    Args:
      model: The language model.
      params: The model's parameters.
      tokens: Token ids.
      valid: False on padding.
      segment_ids: Given where a row packs several texts; see Transformer.
      first: First column that is a target, at least 1; earlier ones get no logits.
      temperature: Divides the logits.
      dropout_key: Turns residual dropout on.

    Returns:
      float32[B, T - first] log-probs and entropies.
    """
    hidden = _hidden(
        model,
        params,
        tokens,
        valid,
        segment_ids=segment_ids,
        dropout_key=dropout_key,
        output_range=(first - 1, tokens.shape[1] - 1),
    )
    targets = tokens[:, first:]
    out = model.apply(
        {"params": params},
        hidden.reshape(-1, hidden.shape[-1]),
        targets.reshape(-1),
        temperature=temperature,
        method="log_probs",
    )
    return jax.tree.map(lambda x: x.reshape(targets.shape), out)


def target_nll(
    model: Transformer,
    params: Params,
    tokens: Int[Array, "B T"],
    valid: Bool[Array, "B T"] | None,
    *,
    loss_mask: Bool[Array, "B T"] | Float[Array, "B T"],
    segment_ids: Int[Array, "B T"] | None = None,
    first: int = 1,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Sum over target tokens of weight * -log p, in nats, to train on.

    The value is that of a sum over `target_log_probs`, but the gradient takes three
    products with the unembedding, not four.

    Args:
      model: The language model.
      params: The model's parameters.
      tokens: Token ids.
      valid: False on padding; None where no row begins with padding.
      loss_mask: Weight of each token; its first `first` columns are not read.
      segment_ids: Given where a row packs several texts; see Transformer.
      first: First column that is a target.
      dropout_key: Turns residual dropout on.
    """
    weights = loss_mask[:, first:].astype(jnp.float32)
    targets, output_range = tokens[:, first:], None
    if first == 1:
        # The last state predicts nothing. With it a row has T states, so that devices
        # and the head's chunks divide the B T states at the same places.
        weights, targets = (jnp.pad(x, [(0, 0), (0, 1)]) for x in (weights, targets))
    else:
        output_range = first - 1, tokens.shape[1] - 1
    hidden = _hidden(
        model,
        params,
        tokens,
        valid,
        segment_ids=segment_ids,
        dropout_key=dropout_key,
        output_range=output_range,
    )
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets, weights = targets.reshape(-1), weights.reshape(-1)
    return model.apply({"params": params}, hidden, targets, weights, method="nll")


def _hidden(
    model: Transformer,
    params: Params,
    tokens: Int[Array, "B T"],
    valid: Bool[Array, "B T"] | None,
    *,
    segment_ids: Int[Array, "B T"] | None,
    dropout_key: Key[Array, ""] | None,
    output_range: OutputRange | None,
) -> Float[Array, "B _ D"]:
    """Hidden states of the columns in the output range."""
    hidden, _ = model.apply(
        {"params": params},
        tokens[:, None],
        None if valid is None else valid[:, None],
        segment_ids=None if segment_ids is None else segment_ids[:, None],
        output_range=output_range,
        deterministic=dropout_key is None,
        rngs={} if dropout_key is None else {"dropout": dropout_key},
    )
    return hidden[:, 0]


def response_log_probs(
    model: Transformer,
    params: Params,
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    response: tuple[Int[Array, "B R"], Bool[Array, "B R"]],
    *,
    temperature: float = 1.0,
) -> TokenLogProbs:
    """Log-probs of a response's tokens: float32[B, R].

    Args:
      model: The language model.
      params: The model's parameters.
      prompt: Token ids and a mask of the real ones, left-padded.
      response: Token ids and a mask of the real ones, right-padded.
      temperature: The temperature at which the response was sampled.
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
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    response: tuple[Int[Array, "B R"], Bool[Array, "B R"]],
) -> Float[Array, "B R"]:
    """Value of the state before each response token."""
    tokens = jnp.concatenate([prompt[0], response[0]], axis=1)
    valid = jnp.concatenate([prompt[1], response[1]], axis=1)
    variables = {"params": params}
    hidden, _ = model.apply(
        variables,
        tokens[:, None],
        valid[:, None],
        output_range=(prompt[0].shape[1] - 1, tokens.shape[1] - 1),
        method="hidden",
    )
    return model.apply(variables, hidden[:, 0], method="scores")
