"""Reading numbers off responses: log-probs, values and reward-model scores.

Letters: B batch, P prompt, R response, K responses per prompt, D width; M groups of b
prompts, their N packed rows of S tokens. Prompts are left-padded, so the state at
column P - 1 predicts the first response token.
"""

from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int, Key
from instructgpt.batches import ComparisonBatch, PackedComparisonBatch
from instructgpt.models.structures import OutputRange, TokenLogProbs
from instructgpt.models.transformer import ScalarModel, Transformer, as_context

Params = Any


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
    """Log-probs of tokens[:, first:] given what precedes each.

    Args:
      model: The language model.
      params: Its parameters.
      tokens: Token ids.
      valid: False on padding.
      segment_ids: Given where a row packs several texts; see Transformer.
      first: First column that is a target, at least 1. Logits exist for no other.
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
    """Sum of the masked tokens' negative log-likelihoods in nats, to train on.

    As a sum over `target_log_probs`, but its gradient takes three products with the
    unembedding, not four.

    Args:
      model: The language model.
      params: Its parameters.
      tokens: Token ids.
      valid: False on padding; None where no row begins with padding.
      loss_mask: How much a token counts; its first columns are not read.
      segment_ids: Given where a row packs several texts; see Transformer.
      first: First column that is a target.
      dropout_key: Turns residual dropout on.
    """
    weights = loss_mask[:, first:].astype(jnp.float32)
    targets, output_range = tokens[:, first:], None
    if first == 1:
        # The last state predicts nothing, but without it rows of tokens would no longer
        # be cut over devices where the chunks of the head are.
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
    """The states of the output range."""
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
      params: Its parameters.
      prompt: Token ids and which are real, left-padded.
      response: Token ids and which are real, right-padded.
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


def response_scores(
    model: ScalarModel,
    params: Params,
    prompt: tuple[Int[Array, "B P"], Bool[Array, "B P"]],
    responses: tuple[Int[Array, "B K R"], Bool[Array, "B K R"]],
) -> Float[Array, "B K"]:
    """Score of each of K responses at its last token, the prompt computed once.

    The prompt runs through the trunk once and its K responses attend to it: P + K*R
    tokens a row rather than K*(P + R).

    Args:
      model: The reward model.
      params: Its parameters.
      prompt: Token ids and which are real, left-padded.
      responses: Token ids and which are real, right-padded; the last real token is
        EOS, or the last one sampled if the response was cut.

    Returns:
      float32, meaningless where a response is empty.
    """
    variables = {"params": params}
    tokens, valid = responses
    last = jnp.maximum(valid.sum(axis=-1, dtype=jnp.int32) - 1, 0)[:, :, None, None]
    if tokens.shape[1] == 1:  # with nothing to share, one row is cheaper
        tokens, valid = (
            jnp.concatenate([p[:, None], r], axis=2)
            for p, r in zip(prompt, responses, strict=True)
        )
        hidden, _ = model.apply(
            variables,
            tokens,
            valid,
            output_range=(prompt[0].shape[1], tokens.shape[2]),
            method="hidden",
        )
    else:
        _, segment = model.apply(
            variables,
            prompt[0][:, None],
            prompt[1][:, None],
            keep_kv=True,
            method="hidden",
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
    hidden = jnp.take_along_axis(hidden, last, axis=2)[:, :, 0]
    return model.apply(variables, hidden, method="scores")


def comparison_scores(
    model: ScalarModel, params: Params, batch: ComparisonBatch | PackedComparisonBatch
) -> Float[Array, "B K"]:
    """`response_scores` of a batch of rankings, packed or not."""
    if isinstance(batch, PackedComparisonBatch):
        return _packed_scores(model, params, batch)
    return response_scores(
        model,
        params,
        (batch.prompt, batch.prompt_valid),
        (batch.responses, batch.response_valid),
    )


def _packed_scores(
    model: ScalarModel, params: Params, batch: PackedComparisonBatch
) -> Float[Array, "B K"]:
    # 1. every prompt through the trunk once: [M b, 1, P]
    # 2. the packed rows, each reading its prompt's keys and values: [M N, 1, S]
    # 3. the state at each response's last token: [M, b K, D] -> [B, K]
    variables = {"params": params}

    def row(x: Array) -> Array:
        return x.reshape(-1, 1, x.shape[-1])

    valid = row(batch.prompt_valid)
    _, segment = model.apply(
        variables, row(batch.prompt), valid, keep_kv=True, method="hidden"
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
        method="hidden",
    )
    groups, _, slots = batch.last.shape
    hidden = hidden.reshape(groups, -1, hidden.shape[-1])
    last = batch.last.reshape(groups, -1, 1)
    hidden = jnp.take_along_axis(hidden, last, axis=1)
    return model.apply(variables, hidden, method="scores").reshape(-1, slots)


def responses_log_probs(
    model: Transformer,
    params: Params,
    prompt: tuple[Array, Array],
    responses: tuple[Array, Array],
    *,
    temperature: float = 1.0,
) -> Array:
    """log p(response | prompt) of each of K responses, the prompt computed once.

    As `response_scores` the prompt runs through the trunk once. Its last state predicts
    the first token of every response.

    Args:
      model: The language model.
      params: Its parameters.
      prompt: (int32[B, P], bool[B, P]).
      responses: (int32[B, K, R], bool[B, K, R]), right-padded.
      temperature: Divides the logits.

    Returns:
      float32[B, K], sums over real tokens in nats; 0 where a response is empty.
    """
    variables = {"params": params}
    tokens, valid = responses
    before, segment = model.apply(
        variables, prompt[0][:, None], prompt[1][:, None], keep_kv=True
    )
    length = prompt[1].sum(axis=1, dtype=jnp.int32)[:, None]
    hidden, _ = model.apply(
        variables,
        tokens,
        valid,
        context=(as_context(segment),),
        offset=jnp.broadcast_to(length, tokens.shape[:2]),
    )
    # [B, 1, 1, D] of the prompt, and of the response all but its last state.
    first = jnp.broadcast_to(before[:, :, -1:], (*tokens.shape[:2], 1, hidden.shape[3]))
    states = jnp.concatenate([first, hidden[:, :, :-1]], axis=2)
    log_probs = _log_probs_of(model, params, states, tokens, temperature)
    return jnp.where(valid, log_probs, 0.0).sum(axis=-1)


def comparison_log_probs(
    model: Transformer,
    params: Params,
    batch: ComparisonBatch | PackedComparisonBatch,
    *,
    temperature: float = 1.0,
) -> Array:
    """`responses_log_probs` of a batch of rankings, packed or not: float32[B, K]."""
    if isinstance(batch, PackedComparisonBatch):
        return _packed_log_probs(model, params, batch, temperature)
    return responses_log_probs(
        model,
        params,
        (batch.prompt, batch.prompt_valid),
        (batch.responses, batch.response_valid),
        temperature=temperature,
    )


def _packed_log_probs(
    model: Transformer,
    params: Params,
    batch: PackedComparisonBatch,
    temperature: float,
) -> Array:
    # 1. every prompt through the trunk once, 2. the packed rows: as `_packed_scores`
    # 3. the state before each token, which for a response's first is its prompt's last
    # 4. sums over each response's tokens: [M, N S] -> [M, b, K] -> [B, K]
    variables = {"params": params}

    def row(x: Array) -> Array:
        return x.reshape(-1, 1, x.shape[-1])

    before, segment = model.apply(
        variables, row(batch.prompt), row(batch.prompt_valid), keep_kv=True
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
    )
    groups, count, size = batch.rows.shape
    hidden = hidden.reshape(groups, count, size, -1)
    before = before[:, 0, -1].reshape(groups, -1, hidden.shape[-1])
    before = jnp.take_along_axis(before, batch.prompt_index[:, :, None], axis=1)
    states = jnp.concatenate([before[:, :, None], hidden[:, :, :-1]], axis=2)
    ids = batch.segment_ids
    is_first = ids != jnp.pad(ids[:, :, :-1], [(0, 0), (0, 0), (1, 0)])
    states = jnp.where(is_first[..., None], before[:, :, None], states)
    log_probs = _log_probs_of(model, params, states, batch.rows, temperature)

    def totals(log_probs: Array, ids: Array, last: Array) -> Array:
        # A response is known by its row and its number there, from 1 to at most S.
        names = (jnp.arange(count)[:, None] * (size + 1) + ids).reshape(-1)
        sums = jax.ops.segment_sum(
            log_probs.reshape(-1), names, num_segments=count * (size + 1)
        )
        return sums[names[last]]

    total = jax.vmap(totals)(log_probs, ids, batch.last)
    return jnp.where(batch.present, total, 0.0).reshape(-1, total.shape[-1])


def _log_probs_of(
    model: Transformer,
    params: Params,
    states: Array,
    tokens: Array,
    temperature: float,
) -> Array:
    """Log-probs of tokens [..., S] by the states [..., S, D] before them."""
    out = model.apply(
        {"params": params},
        states.reshape(-1, states.shape[-1]),
        tokens.reshape(-1),
        temperature=temperature,
        method="log_probs",
    )
    return out.log_probs.reshape(tokens.shape)
