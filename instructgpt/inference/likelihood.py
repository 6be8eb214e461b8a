"""Log-likelihoods of given text: pairs of a prompt and its continuation.

Continuations of one prompt, such as the choices of a question, are computed together:
their prompt runs through the model once.

Letters: B batch, P prompt, K continuations of a prompt, R continuation.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.batching import power_of_two, rows_of_width
from instructgpt.data.templates import PromptFormat
from instructgpt.distributed import fetch
from instructgpt.errors import UserError
from instructgpt.finite import check_finite
from instructgpt.sharding import put_whole_batch, round_up

Pair = tuple[list[int], list[int]]  # the tokens of a prompt and of its continuation
_LEAST_WIDTH = 16  # smallest padded length, in tokens
_MOST_CHOICES = 8  # continuations that share one computation of their prompt


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
        as in training, white space between them belongs to the continuation, and a
        prompt that is too long loses its beginning. Where a token spans the border,
        it belongs to the continuation, which so has at least one token.
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
        border = _common(before, whole)
        if text and border == len(whole):
            border -= 1
        before, target = whole[:border], whole[border:] + [form.end_id] * ended
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


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of equal tokens at the beginning of both."""
    return next(
        (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
        min(len(a), len(b)),
    )


class _Group(NamedTuple):
    """Some continuations of one prompt."""

    prompt: list[int]
    targets: list[list[int]]
    numbers: list[int]  # the numbers of their pairs
    width: int = 0  # smallest padded size P

    @property
    def shape(self) -> tuple[int, int, int]:
        """The padded sizes P, K and R, all powers of two."""
        longest = max(self.targets, key=len)
        return (
            max(padded_width(self.prompt), self.width),
            power_of_two(len(self.targets)),
            padded_width(longest),
        )


def in_groups(encoded: Sequence[Pair], *, width: int = 0) -> list[_Group]:
    """Pairs by prompt, in the order in which `likelihoods` computes them.

    Prompts are padded to `width` tokens at least.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for number, (before, _) in enumerate(encoded):
        by_prompt.setdefault(tuple(before), []).append(number)
    groups = []
    for prompt, numbers in by_prompt.items():
        for start in range(0, len(numbers), _MOST_CHOICES):
            part = numbers[start : start + _MOST_CHOICES]
            targets = [encoded[n][1] for n in part]
            groups.append(_Group(list(prompt), targets, part, width))
    return sorted(groups, key=lambda group: group.shape)


def groups_from(groups: Sequence[_Group], start: int) -> Sequence[_Group]:
    """The groups after those that hold the first `start` pairs."""
    starts = itertools.accumulate((len(g.targets) for g in groups), initial=0)
    return [g for g, first in zip(groups, starts, strict=False) if first >= start]


def likelihoods(
    run: Callable[..., tuple[jax.Array, jax.Array]],
    groups: Sequence[_Group],
    *,
    pad_id: int,
    batch_size: int,
    mesh: Mesh,
) -> Iterator[list[LogLikelihood]]:
    """Yields the log-likelihoods of each batch of groups, in the order of the groups.

    Args:
      run: The model's `shared_likelihood`, bound to its parameters.
      groups: The pairs, from `in_groups`.
      pad_id: The tokenizer's padding id.
      batch_size: Prompts in a batch, fewer where texts are long; rounded up for the
        mesh.
      mesh: The mesh to run on.

    Raises:
      UserError: a log-prob is not finite.
    """
    start = 0
    while start < len(groups):
        shape = groups[start].shape
        width, choices, length = shape
        rows = round_up(rows_of_width(batch_size, width + choices * length), mesh)
        part = [g for g in groups[start : start + rows] if g.shape == shape]
        arrays = _pad(part, shape, rows, pad_id)
        log_probs, greedy = fetch(run(*put_whole_batch(arrays, mesh)))
        valid = arrays[3]
        check_finite(log_probs[valid], "log-probs of given tokens")
        yield [
            LogLikelihood(
                float(log_probs[at][valid[at]].sum(dtype=np.float64)),
                int(valid[at].sum()),
                bool(greedy[at][valid[at]].all()),
            )
            for row, group in enumerate(part)
            for at in ((row, k) for k in range(len(group.targets)))
        ]
        start += len(part)


def _pad(
    groups: Sequence[_Group], shape: tuple[int, int, int], rows: int, pad_id: int
) -> tuple[np.ndarray, ...]:
    """Pads prompts [B, P] on the left and continuations [B, K, R] on the right.

    Returns:
      (prompts, mask of prompts, continuations, mask of continuations), B = `rows`.
    """
    width, choices, length = shape
    prompts = np.full((rows, width), pad_id, np.int32)
    targets = np.full((rows, choices, length), pad_id, np.int32)
    prompt_valid, target_valid = (np.zeros(x.shape, bool) for x in (prompts, targets))
    for row, group in enumerate(groups):
        first = width - len(group.prompt)
        prompts[row, first:], prompt_valid[row, first:] = group.prompt, True
        for k, target in enumerate(group.targets):
            targets[row, k, : len(target)] = target
            target_valid[row, k, : len(target)] = True
    return prompts, prompt_valid, targets, target_valid


def padded_width(ids: Sequence[int] | np.ndarray) -> int:
    """The padded length of tokens, a power of two."""
    return max(_LEAST_WIDTH, power_of_two(len(ids)))
