"""Completions of raw text: which texts are computed together, and where they end.

Letters: P prompt.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from instructgpt.batches import PromptBatch
from instructgpt.batching import mesh_batches, rows_of_width
from instructgpt.data.rows import Rows
from instructgpt.data.templates import PromptFormat
from instructgpt.data.transforms import prompt_row
from instructgpt.errors import UserError, shown
from instructgpt.inference.likelihood import padded_width


def check_texts(texts: Sequence[str]) -> None:
    """Raises UserError unless each entry is a text."""
    if isinstance(texts, str):
        raise UserError("give a list of texts, not a single text")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {number}: give a text, not {shown(text)}")


def before_stop(text: str, stops: Iterable[str]) -> str:
    """The text before the first of the stops."""
    ends = [at for at in map(text.find, stops) if at >= 0]
    return text[: min(ends)] if ends else text


class Completions(NamedTuple):
    """The order in which prompts are continued: by their padded length."""

    prompts: Sequence[np.ndarray]  # token ids, int32
    widths: Sequence[int]  # padded length P of each
    order: Sequence[int]  # numbers of the prompts
    max_response: int  # tokens of a completion

    def batches(
        self, start: int, batch_size: int, *, pad_id: int, mesh: Mesh
    ) -> Iterator[Iterable[PromptBatch]]:
        """Yields the batches of each padded length, from place `start` of the order.

        A prompt keeps its number, and with it its random key.
        """
        for width, numbers in itertools.groupby(
            self.order[start:], self.widths.__getitem__
        ):
            encode = functools.partial(prompt_row, max_prompt=width, pad_id=pad_id)
            rows = Rows(self.prompts, encode, list(numbers))
            size = rows_of_width(batch_size, width + self.max_response)
            yield mesh_batches(rows, None, batch_size=size, mesh=mesh, whole=True)

    def in_order(self, found: Sequence[Any]) -> list[Any]:
        """Results, given in the order of computation, in the order of the prompts."""
        by_number = dict(zip(self.order, found, strict=True))
        return [by_number[number] for number in range(len(found))]


def end_of(form: PromptFormat, text: str, room: int) -> np.ndarray:
    """The last `room` token ids of a raw text, int32; EOS if the text is empty."""
    ids = form.prompt_ids({"prompt": text}, raw=True)[-room:]
    return np.array(ids or [form.tokenizer.eos_id], np.int32)


def plan_completions(
    prompts: Sequence[np.ndarray], room: int, max_response: int, *, width: int = 0
) -> Completions:
    """Orders prompts of at most `room` tokens by their padded length.

    They are padded to `width` tokens at least.
    """
    widths = [min(max(padded_width(ids), width), room) for ids in prompts]
    order = sorted(range(len(prompts)), key=lambda n: (widths[n], n))
    return Completions(prompts, widths, order, max_response)
