"""Scores and log-probs of K responses to a prompt, which is computed once.

The prompt runs through the trunk once and its K responses attend to it: P + K R tokens
rather than K (P + R). A packed batch also avoids most of the padding of K R: short
responses share a row, and each still sees only its prompt and itself.

The reward model is trained on the scores. The log-likelihoods are for methods of your
own that train a language model on rankings, such as DPO; no stage here reads them.

Letters: B batch, P prompt, R response, K responses per prompt, D width; M groups of b
prompts (M b = B), their N packed rows of S tokens.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.arrays import Array, Bool, Float, Int, Params
from instructgpt.batches import ComparisonBatch, PackedComparisonBatch
from instructgpt.models.transformer import ScalarModel, Transformer, as_context


def response_scores(
    model: ScalarModel,
    params: Params,
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    responses: tuple[Int[Array, "B K R"], Bool[Array, "B K R"]],
) -> Float[Array, "B K"]:
    """Score of each response at its last token (paper §3.5).

    Args:
      model: The reward model.
      params: The model's parameters.
      prompt: Token ids and a mask of the real ones, left-padded.
      responses: Token ids and a mask of the real ones, right-padded; the last real
        token is EOS, or the last one sampled if the response was cut.

    Returns:
      float32, meaningless where a response is empty.
    """
    valid = responses[1]
    last = jnp.maximum(valid.sum(axis=-1, dtype=jnp.int32) - 1, 0)[:, :, None, None]
    if valid.shape[1] == 1:  # a single response shares nothing: one row is cheaper
        tokens, real = (
            jnp.concatenate([p[:, None], r], axis=2)
            for p, r in zip(prompt, responses, strict=True)
        )
        hidden, _ = model.apply(
            {"params": params},
            tokens,
            real,
            output_range=(prompt[0].shape[1], tokens.shape[2]),
            method="hidden",
        )
    else:
        _, hidden = _states(model, params, prompt, responses)
    hidden = jnp.take_along_axis(hidden, last, axis=2)[:, :, 0]
    return model.apply({"params": params}, hidden, method="scores")


def response_log_likelihoods(
    model: Transformer,
    params: Params,
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    responses: tuple[Int[Array, "B K R"], Bool[Array, "B K R"]],
    *,
    temperature: float = 1.0,
) -> Float[Array, "B K"]:
    """log p(response | prompt) of each response, in nats.

    Args:
      model: The language model.
      params: The model's parameters.
      prompt: Token ids and a mask of the real ones, left-padded.
      responses: Token ids and a mask of the real ones, right-padded.
      temperature: Divides the logits.

    Returns:
      float32 sums over real tokens; 0 where a response is empty.
    """
    tokens, valid = responses
    states = predicting_states(model, params, prompt, responses)
    log_probs = _log_probs(model, params, states, tokens, temperature=temperature)
    return jnp.where(valid, log_probs, 0.0).sum(axis=-1)


def predicting_states(
    model: Transformer,
    params: Params,
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    responses: tuple[Int[Array, "B K R"], Bool[Array, "B K R"]],
) -> Float[Array, "B K R D"]:
    """The states that predict the responses' tokens: those one token earlier.

    The arguments are those of `response_log_likelihoods`.
    """
    before, hidden = _states(model, params, prompt, responses)
    # The prompt's last state predicts the first token of every response.
    before = jnp.broadcast_to(
        before[:, None, None], (*hidden.shape[:2], 1, before.shape[-1])
    )
    return jnp.concatenate([before, hidden[:, :, :-1]], axis=2)


def comparison_scores(
    model: ScalarModel, params: Params, batch: ComparisonBatch | PackedComparisonBatch
) -> Float[Array, "B K"]:
    """Scores of a batch of rankings, packed or not; see `response_scores`."""
    if isinstance(batch, ComparisonBatch):
        return response_scores(model, params, *_unpacked(batch))
    _, hidden = _packed_states(model, params, batch)
    groups, _, k = batch.last.shape
    hidden = hidden.reshape(groups, -1, hidden.shape[-1])
    last = batch.last.reshape(groups, -1, 1)
    hidden = jnp.take_along_axis(hidden, last, axis=1)
    return model.apply({"params": params}, hidden, method="scores").reshape(-1, k)


def comparison_log_likelihoods(
    model: Transformer,
    params: Params,
    batch: ComparisonBatch | PackedComparisonBatch,
    *,
    temperature: float = 1.0,
) -> Float[Array, "B K"]:
    """Log-likelihoods of a batch of rankings; see `response_log_likelihoods`."""
    if isinstance(batch, ComparisonBatch):
        return response_log_likelihoods(
            model, params, *_unpacked(batch), temperature=temperature
        )
    before, hidden = _packed_states(model, params, batch)
    # Each token is predicted by the state before it. The state before a response's
    # first token is its prompt's last.
    ids = batch.segment_ids
    is_first = ids != jnp.pad(ids[:, :, :-1], [(0, 0), (0, 0), (1, 0)])
    before = jnp.take_along_axis(before, batch.prompt_index[:, :, None], axis=1)
    states = jnp.concatenate([before[:, :, None], hidden[:, :, :-1]], axis=2)
    states = jnp.where(is_first[..., None], before[:, :, None], states)
    log_probs = _log_probs(model, params, states, batch.rows, temperature=temperature)
    total = jax.vmap(_response_sums)(log_probs, ids, batch.last)
    return jnp.where(batch.present, total, 0.0).reshape(-1, total.shape[-1])


def _response_sums(
    log_probs: Float[Array, "N S"], ids: Int[Array, "N S"], last: Int[Array, "b K"]
) -> Float[Array, "b K"]:
    """Sums over the tokens of each response of a group.

    Args:
      log_probs: Log-probs of the group's N packed rows.
      ids: The segment ids of these rows.
      last: Place of each response's last token in the rows, one after the other.
    """
    count, size = ids.shape
    # A response is identified by its row and its number there, from 1 to at most S.
    response_ids = (jnp.arange(count)[:, None] * (size + 1) + ids).reshape(-1)
    sums = jax.ops.segment_sum(
        log_probs.reshape(-1), response_ids, num_segments=count * (size + 1)
    )
    return sums[response_ids[last]]


def _unpacked(
    batch: ComparisonBatch,
) -> tuple[
    tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    tuple[Int[Array, "B K R"], Bool[Array, "B K R"]],
]:
    """The prompts and the responses in the form that `response_scores` takes."""
    prompt = batch.prompt, batch.prompt_valid
    return prompt, (batch.responses, batch.response_valid)


def _trunk(model: nn.Module) -> str:
    """Name of the method that gives a model's hidden states."""
    return "hidden" if isinstance(model, ScalarModel) else "__call__"


def _states(
    model: nn.Module,
    params: Params,
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    responses: tuple[Int[Array, "B K R"], Bool[Array, "B K R"]],
) -> tuple[Float[Array, "B D"], Float[Array, "B K R D"]]:
    """The states at the prompts' last tokens, and at the responses' tokens."""
    variables, method = {"params": params}, _trunk(model)
    tokens, valid = responses
    before, segment = model.apply(
        variables, prompt[0][:, None], prompt[1][:, None], keep_kv=True, method=method
    )
    length = prompt[1].sum(axis=1, dtype=jnp.int32)[:, None]
    hidden, _ = model.apply(
        variables,
        tokens,
        valid,
        context=(as_context(segment),),
        offset=jnp.broadcast_to(length, tokens.shape[:2]),
        method=method,
    )
    return before[:, 0, -1], hidden


def _packed_states(
    model: nn.Module, params: Params, batch: PackedComparisonBatch
) -> tuple[Float[Array, "M b D"], Float[Array, "M N S D"]]:
    """The states at the prompts' last tokens, and at the packed rows' tokens."""
    # 1. every prompt through the trunk once: [M b, 1, P]
    # 2. the packed rows, each reading its prompt's keys and values: [M N, 1, S]
    variables, method = {"params": params}, _trunk(model)

    def row(x: Array) -> Array:
        return x.reshape(-1, 1, x.shape[-1])

    before, segment = model.apply(
        variables,
        row(batch.prompt),
        row(batch.prompt_valid),
        keep_kv=True,
        method=method,
    )
    length = batch.prompt_valid.sum(axis=-1, dtype=jnp.int32)
    hidden, _ = model.apply(
        variables,
        row(batch.rows),
        row(batch.segment_ids) > 0,
        segment_ids=row(batch.segment_ids),
        context=(as_context(segment),),
        prompt_index=batch.prompt_index,
        offset=jnp.take_along_axis(length, batch.prompt_index, axis=1).reshape(-1, 1),
        method=method,
    )
    width = hidden.shape[-1]
    before = before[:, 0, -1].reshape(*batch.prompt.shape[:2], width)
    return before, hidden.reshape(*batch.rows.shape, width)


def _log_probs(
    model: Transformer,
    params: Params,
    states: Float[Array, "*rows D"],
    tokens: Int[Array, "*rows"],
    *,
    temperature: float,
) -> Float[Array, "*rows"]:
    """Log-probs of tokens, given the states that precede them."""
    out = model.apply(
        {"params": params},
        states.reshape(-1, states.shape[-1]),
        tokens.reshape(-1),
        temperature=temperature,
        method="log_probs",
    )
    return out.log_probs.reshape(tokens.shape)
