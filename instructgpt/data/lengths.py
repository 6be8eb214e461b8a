"""Lengths of records: percentiles, and how many are over a limit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from instructgpt.data.records import Record
from instructgpt.data.templates import PromptFormat

MOST = 20_000  # records of a kind that are measured
_LONGEST_LIMIT = 1 << 20


def percentiles(values: Sequence[int] | np.ndarray) -> str:
    """A phrase such as "half have up to 12, 90 % up to 40 and the longest 90"."""
    half, most, longest = (percentile(values, p) for p in (50, 90, 100))
    return f"half have up to {half}, 90 % up to {most} and the longest {longest}"


def percentile(values: Sequence[int] | np.ndarray, percent: float) -> int:
    """The least of the lengths that so many percent of them do not exceed."""
    return int(np.percentile(values, percent, method="higher"))


class Measure(NamedTuple):
    """How texts are measured.

    Attributes:
      unit: "tokens" or "words".
      prompt: length of a record's history and prompt.
      answer: length of a response.
      text: length of a document.
    """

    unit: str
    prompt: Callable[[Record], int]
    answer: Callable[[str], int]
    text: Callable[[str], int]


def in_tokens(prompt_format: PromptFormat) -> Measure:
    """Tokens as the stages count them: with the template, and the end of a response."""
    return Measure(
        "tokens",
        lambda record: len(prompt_format.prompt_ids(record)),
        lambda text: len(prompt_format.response_ids(text)),
        lambda text: len(prompt_format.tokenizer.encode(text)),
    )


def in_words() -> Measure:
    """Words between blanks, for texts that have no tokenizer yet."""

    def words(text: str) -> int:
        return len(text.split())

    return Measure(
        "words",
        lambda record: sum(map(words, [*record["history"], record["prompt"]])),
        words,
        words,
    )


class Lengths(NamedTuple):
    """Lengths of one part of records.

    Attributes:
      part: "text", "prompt" or "response".
      values: an array of whole numbers, which is not empty.
      of_all: share of the records that were measured.
    """

    part: str
    values: np.ndarray
    of_all: float

    def at(self, percent: float) -> int:
        """The length that so many percent do not exceed."""
        return percentile(self.values, percent)

    def over(self, limit: int) -> float:
        """The share that is longer than a limit."""
        return float((self.values > limit).mean())


def measure(records: Sequence[Record], how: Measure) -> list[Lengths]:
    """Measures the parts of records of one kind.

    Of more than `MOST` records, evenly spaced ones are measured.
    """
    step = -(-len(records) // MOST)
    some = records[:: max(step, 1)]
    found: dict[str, list[int]] = {}
    for record in some:
        for part, length in _parts(record, how):
            found.setdefault(part, []).append(length)
    share = len(some) / len(records) if records else 1.0
    return [Lengths(part, np.asarray(values), share) for part, values in found.items()]


def _parts(record: Record, how: Measure) -> Iterator[tuple[str, int]]:
    if "text" in record:
        yield "text", how.text(record["text"])
        return
    yield "prompt", how.prompt(record)
    answers = [record["response"]] if "response" in record else []
    for answer in [*answers, *record.get("responses", ())]:
        yield "response", how.answer(answer)


def limits(measured: Mapping[str, Sequence[Lengths]]) -> list[int]:
    """Powers of two from the first that anything fits to the first that all fits."""
    values = [
        length.values
        for lengths in measured.values()
        for length in lengths
        if length.part != "text"
    ]
    if not values:
        return []
    shortest = min(int(v.min()) for v in values)
    longest = max(int(v.max()) for v in values)
    found = []
    limit = 16
    while limit < _LONGEST_LIMIT:
        if limit >= shortest:
            found.append(limit)
        if limit >= longest:
            break
        limit *= 2
    return found
