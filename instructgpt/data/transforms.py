"""Encodes records as rows of token ids: pure functions from text to NumPy arrays.

Letters: P max_prompt, R max_response, T tokens (P + R), K max_responses. Prompts are
padded on the left and responses on the right, so that every response starts at
column P.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from instructgpt.batches import ComparisonBatch, PromptBatch, TokenBatch
from instructgpt.data.packing import rows_of_responses
from instructgpt.data.rows import TooLongError
from instructgpt.data.templates import PromptFormat
from instructgpt.errors import UserError

Record = dict[str, Any]


def encode_demonstration(
    record: Record,
    prompt_format: PromptFormat,
    *,
    max_prompt: int,
    max_response: int,
    loss_on: Literal["response", "all"] = "response",
) -> TokenBatch:
    """Encodes a demonstration as a row [T]: prompt, response and EOS (paper §3.5, SFT).

    Args:
      record: a record with `id`, `prompt` and `response`.
      prompt_format: tokenizer and template.
      max_prompt: largest number of tokens of the prompt with its newline, P.
      max_response: largest number of tokens of the response with its EOS, R.
      loss_on: the prediction targets: the response and EOS, or every token except the
        first, which has no context.

    Raises:
      TooLongError: the prompt or the response is too long.
    """
    prompt = prompt_format.prompt_ids(record)
    response = prompt_format.response_ids(record["response"])
    _check_length(record, "prompt", len(prompt), max_prompt)
    _check_length(record, "response", len(response), max_response)
    left, left_valid = _pad(prompt, max_prompt, prompt_format.pad_id, left=True)
    right, right_valid = _pad(response, max_response, prompt_format.pad_id)
    valid = np.concatenate([left_valid, right_valid])
    loss_mask = valid.copy()
    if loss_on == "response":
        loss_mask[:max_prompt] = False
    elif loss_on == "all":
        loss_mask[valid.argmax()] = False
    else:
        raise UserError(f"loss_on={loss_on!r}: choose 'response' or 'all'.")
    segment_ids = valid.astype(np.int32)
    return TokenBatch(np.concatenate([left, right]), segment_ids, loss_mask)


def encode_prompt(
    record: Record, prompt_format: PromptFormat, *, max_prompt: int, raw: bool = False
) -> PromptBatch:
    """Encodes a prompt, left-padded [P]; its index is -1 until the loader sets it.

    Args:
      record: a record with `id` and `prompt`.
      prompt_format: tokenizer and template.
      max_prompt: largest number of tokens of the prompt, P.
      raw: whether to omit the template, for example with a few-shot prefix.

    Raises:
      TooLongError: the prompt is too long.
    """
    prompt = prompt_format.prompt_ids(record, raw=raw)
    _check_length(record, "prompt", len(prompt), max_prompt)
    return prompt_row(prompt, max_prompt=max_prompt, pad_id=prompt_format.pad_id)


def prompt_row(
    ids: Sequence[int] | np.ndarray, *, max_prompt: int, pad_id: int
) -> PromptBatch:
    """The ids of a prompt, left-padded [P]; its index is -1 until the loader sets it.

    Args:
      ids: at most P token ids.
      max_prompt: number of tokens of the row, P.
      pad_id: the tokenizer's padding id.
    """
    tokens, valid = _pad(ids, max_prompt, pad_id, left=True)
    return PromptBatch(tokens, valid, np.int32(-1))


def encode_comparison(
    record: Record,
    prompt_format: PromptFormat,
    *,
    max_prompt: int,
    max_response: int,
    max_responses: int,
) -> ComparisonBatch:
    """Encodes a prompt [P] with its ranked responses [K, R].

    A response that is longer than R with its EOS is cut to R tokens and has no EOS,
    like a sample that reached the length limit. Responses whose tokens are then equal
    have the same `wording`, so that neither counts as better than the other. An empty
    slot has rank 0 and no valid token. The responses are assigned to packed rows here,
    once for all batches.

    Args:
      record: a record with `id`, `prompt`, `responses` and `ranks`.
      prompt_format: tokenizer and template.
      max_prompt: largest number of tokens of the prompt with its newline, P.
      max_response: largest number of tokens of a response with its EOS, R.
      max_responses: number of slots for responses, K.

    Raises:
      TooLongError: the prompt is too long.
      UserError: there are more than K responses.
    """
    prompt = prompt_format.prompt_ids(record)
    _check_length(record, "prompt", len(prompt), max_prompt)
    found = len(record["responses"])
    if found > max_responses:
        raise UserError(
            f"record {record['id']!r}: {found} responses, the limit is"
            f" {max_responses}; raise max_responses or leave some out."
        )
    responses = np.full((max_responses, max_response), prompt_format.pad_id, np.int32)
    response_valid = np.zeros((max_responses, max_response), bool)
    ranks, wording = np.zeros((2, max_responses), np.int32)
    first: dict[tuple[int, ...], int] = {}
    for k, text in enumerate(record["responses"]):
        ids = prompt_format.response_ids(text)[:max_response]
        responses[k], response_valid[k] = _pad(ids, max_response, prompt_format.pad_id)
        wording[k] = first.setdefault(tuple(ids), k)
    ranks[:found] = record["ranks"]
    return ComparisonBatch(
        *_pad(prompt, max_prompt, prompt_format.pad_id, left=True),
        responses=responses,
        response_valid=response_valid,
        ranks=ranks,
        present=np.arange(max_responses) < found,
        wording=wording,
        packed_row=rows_of_responses(response_valid),
    )


def count_cut(row: ComparisonBatch, eos_id: int) -> int:
    """Number of responses of an `encode_comparison` row that were cut to R tokens."""
    full = row.response_valid[:, -1]
    return int((full & (row.responses[:, -1] != eos_id)).sum())


def _check_length(record: Record, field: str, length: int, limit: int) -> None:
    if length > limit:
        raise TooLongError(
            f"record {record['id']!r}: the {field} has {length} tokens, the limit is"
            f" {limit}; raise max_{field} or shorten the record.",
            part=field,
            length=length,
        )


def _pad(
    ids: Sequence[int] | np.ndarray, length: int, pad_id: int, *, left: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pads ids: returns tokens int32[length] and their mask bool[length]."""
    tokens = np.full(length, pad_id, np.int32)
    valid = np.zeros(length, bool)
    where = slice(length - len(ids), length) if left else slice(len(ids))
    tokens[where], valid[where] = ids, True
    return tokens, valid
