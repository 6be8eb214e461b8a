"""Records to rows of token ids: pure functions from text to NumPy arrays.

Letters: P max_prompt, R max_response, T tokens (P + R), K max_responses. Prompts are
padded on the left and responses on the right, so that every response starts at
column P.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from instructgpt.batches import ComparisonBatch, PromptBatch, TokenBatch
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
    """One row [T]: the prompt, then the response and EOS (paper §3.5, SFT).

    Args:
      record: has `id`, `prompt` and `response`.
      prompt_format: gives the ids.
      max_prompt: P, room for the prompt with its newline.
      max_response: R, room for the response with its EOS.
      loss_on: the prediction targets: the response and EOS, or every token but the
        first, which has nothing before it.

    Raises:
      UserError: the prompt or the response is too long.
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
    """One prompt, left-padded [P]; its index is -1 until the loader sets it.

    Args:
      record: has `id` and `prompt`.
      prompt_format: gives the ids.
      max_prompt: P, room for the prompt.
      raw: use the prompt as it is, without the template (a few-shot prefix, say).

    Raises:
      UserError: the prompt is too long.
    """
    prompt = prompt_format.prompt_ids(record, raw=raw)
    _check_length(record, "prompt", len(prompt), max_prompt)
    tokens, valid = _pad(prompt, max_prompt, prompt_format.pad_id, left=True)
    return PromptBatch(tokens, valid, np.int32(-1))


def encode_comparison(
    record: Record,
    prompt_format: PromptFormat,
    *,
    max_prompt: int,
    max_response: int,
    max_responses: int,
) -> ComparisonBatch:
    """One prompt with its ranked responses: prompt [P], responses [K, R].

    A response longer than R with its EOS is cut to R tokens and has no EOS, like a
    sample that met the length limit. Responses that are then the same tokens have the
    same `wording`, so that neither can count as better than the other. An empty slot
    has rank 0 and nothing valid.

    Args:
      record: has `id`, `prompt`, `responses` and `ranks`.
      prompt_format: gives the ids.
      max_prompt: P, room for the prompt with its newline.
      max_response: R, room for a response with its EOS.
      max_responses: K, slots for responses.

    Raises:
      UserError: the prompt is too long or there are more than K responses.
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
    )


def count_cut(row: ComparisonBatch, eos_id: int) -> int:
    """How many responses of one `encode_comparison` row were cut to R tokens."""
    full = row.response_valid[:, -1]
    return int((full & (row.responses[:, -1] != eos_id)).sum())


class Kept(NamedTuple):
    """Which rows of a source fit."""

    indices: np.ndarray  # int64[kept], row numbers in the source, ascending
    dropped: int


def filter_long(
    source: Iterable[Record],
    prompt_format: PromptFormat,
    *,
    max_prompt: int,
    max_response: int | None = None,
    on_long: Literal["error", "drop"] = "drop",
    what: str = "records",
) -> Kept:
    """Rows short enough to encode; the paper drops prompts over 1k tokens (App. C).

    Args:
      source: demonstrations, prompts or comparisons.
      prompt_format: gives the ids.
      max_prompt: P, room for the prompt with its newline.
      max_response: R, room for the response with its EOS, for demonstrations; None
        leaves responses unchecked (those of comparisons are cut, not dropped).
      on_long: "drop" leaves a longer row out, "error" raises at the first.
      what: the records are called in the error: "train prompts".

    Raises:
      UserError: a row is too long and on_long is "error", or no row fits.
    """
    if on_long not in ("error", "drop"):
        raise UserError(f"on_long={on_long!r}: choose 'error' or 'drop'.")
    kept, total = [], 0
    for index, record in enumerate(source):
        total += 1
        try:
            prompt = prompt_format.prompt_ids(record)
            _check_length(record, "prompt", len(prompt), max_prompt)
            if max_response is not None:
                length = len(prompt_format.response_ids(record["response"]))
                _check_length(record, "response", length, max_response)
        except _TooLongError:
            if on_long == "error":
                raise
        else:
            kept.append(index)
    if not kept:
        limits = f"config.data.max_prompt={max_prompt}"
        if max_response is not None:
            limits += f" and config.data.max_response={max_response}"
        raise UserError(
            f"none of {total} {what} fits {limits}, in tokens; raise the limit, or give"
            " shorter ones."
        )
    return Kept(np.array(kept, np.int64), total - len(kept))


class _TooLongError(UserError):
    """Apart from other mistakes, so that `filter_long` can drop the record."""


def _check_length(record: Record, field: str, length: int, limit: int) -> None:
    if length > limit:
        raise _TooLongError(
            f"record {record['id']!r}: the {field} has {length} tokens, the limit is"
            f" {limit}; raise max_{field}, shorten the record, or leave long records"
            " out with on_long='drop'."
        )


def _pad(
    ids: Sequence[int], length: int, pad_id: int, *, left: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32[length] and their validity bool[length]."""
    tokens = np.full(length, pad_id, np.int32)
    valid = np.zeros(length, bool)
    where = slice(length - len(ids), length) if left else slice(len(ids))
    tokens[where], valid[where] = ids, True
    return tokens, valid
