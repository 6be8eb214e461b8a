"""Log-likelihoods of given text: pairs of a prompt and its continuation.

Letters: B batch, P prompt, R continuation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.batching import power_of_two
from instructgpt.data.templates import PromptFormat
from instructgpt.distributed import fetch
from instructgpt.errors import UserError
from instructgpt.finite import check_finite
from instructgpt.sharding import put_whole_batch

Pair = tuple[list[int], list[int]]  # the tokens of a prompt and of its continuation
_LEAST_WIDTH = 16  # smallest padded length, in tokens


class LogLikelihood(NamedTuple):
    """A model's log-likelihood of a given continuation."""

    log_prob: float  # log-probability in nats, summed over tokens
    num_tokens: int
    greedy: bool  # whether each token is the most probable one


def encode_pair(
    form: PromptFormat,
    record: Mapping[str, Any],
    text: str,
    *,
    raw: bool,
    ended: bool,
    limit: int,
) -> Pair:
    """The tokens of a prompt, one or more, and of its continuation.

    Args:
      form: The tokenizer and the template.
      record: A record with `id` and `prompt`, which may have `history`.
      text: The continuation.
      raw: Whether the two are one text, without a template: they are encoded together,
        white space between them belongs to the continuation, and a prompt that is too
        long loses its beginning.
      ended: Whether the end of text follows the continuation.
      limit: Largest number of tokens of both together.

    Raises:
      UserError: the two do not fit the limit.
    """
    if raw:
        prompt = record["prompt"].rstrip()
        text = record["prompt"][len(prompt) :] + text
        before = form.prompt_ids({"prompt": prompt}, raw=True)
        whole = form.prompt_ids({"prompt": prompt + text}, raw=True)
        target = whole[len(before) :] + [form.end_id] * ended
        # A continuation without a prompt follows the end of another text.
        before = before or [form.tokenizer.eos_id]
        before = before[-max(limit - len(target), 1) :]
    else:
        before = form.prompt_ids(dict(record))
        target = form.response_ids(text)
        target = target if ended else target[:-1]
    if len(before) + len(target) > limit:
        raise UserError(
            f"record {record['id']!r}: {len(before)} tokens and a continuation of "
            f"{len(target)} do not fit the model's context of {limit}; shorten them"
        )
    return before, target


def likelihoods(
    run: Callable[..., tuple[jax.Array, jax.Array]],
    encoded: Sequence[Pair],
    *,
    pad_id: int,
    batch_size: int,
    mesh: Mesh,
) -> list[LogLikelihood]:
    """Log-likelihoods of pairs, in their order.

    Pairs are padded to powers of two, and pairs of equal size share batches.

    Args:
      run: The model's `shared_likelihood`, bound to its parameters.
      encoded: Pairs from `encode_pair`.
      pad_id: The tokenizer's padding id.
      batch_size: Rows of a batch, a number that divides over the mesh.
      mesh: The mesh to run on.

    Raises:
      UserError: a log-prob is not finite.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for number, (before, target) in enumerate(encoded):
        widths = _width(before), _width(target)
        groups.setdefault(widths, []).append(number)
    found: dict[int, LogLikelihood] = {}
    for widths, members in groups.items():
        for start in range(0, len(members), batch_size):
            part = members[start : start + batch_size]
            arrays = _pad([encoded[number] for number in part], widths, pad_id)
            blank = batch_size - len(part)
            arrays = tuple(np.pad(x, [(0, blank), (0, 0)]) for x in arrays)
            log_probs, greedy = fetch(run(*put_whole_batch(arrays, mesh)))
            valid = arrays[3]
            check_finite(log_probs[valid], "log-probs of given tokens")
            for row, number in enumerate(part):
                found[number] = LogLikelihood(
                    float(log_probs[row][valid[row]].sum(dtype=np.float64)),
                    int(valid[row].sum()),
                    bool(greedy[row][valid[row]].all()),
                )
    return [found[number] for number in range(len(encoded))]


def _pad(
    pairs: Sequence[Pair], widths: tuple[int, int], pad_id: int
) -> tuple[np.ndarray, ...]:
    """Pads prompts [B, P] on the left and continuations [B, R] on the right.

    Returns:
      (prompts, mask of prompts, continuations, mask of continuations).
    """
    arrays = []
    for side, width in enumerate(widths):
        tokens = np.full((len(pairs), width), pad_id, np.int32)
        valid = np.zeros((len(pairs), width), bool)
        for row, pair in enumerate(pairs):
            length = len(pair[side])
            first = width - length if side == 0 else 0
            tokens[row, first : first + length] = pair[side]
            valid[row, first : first + length] = True
        arrays += [tokens, valid]
    return tuple(arrays)


def _width(ids: Sequence[int]) -> int:
    """The padded length of the tokens, a power of two."""
    return max(_LEAST_WIDTH, power_of_two(len(ids)))
