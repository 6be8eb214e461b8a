"""The data card, with sizes, lengths and shares as in Tables 1 and 6 to 11.

`Tally` takes records one by one, so that a set need not fit in memory. It keeps one
count, of some 100 bytes, for each length that occurs in a split, source and category,
so memory grows with the number of different lengths, not of rows.
"""

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from instructgpt.data.curation.ledger import CustomerCounts
from instructgpt.data.records import SPLITS, Record

MAX_NAMES = 100  # categories, and sources; further ones are counted together
OTHER, NONE = "(others)", "(none)"


class Spread(NamedTuple):
    """A distribution of lengths, as in the paper's Table 9."""

    number: int
    mean: float
    std: float  # population standard deviation
    q25: int  # the smallest length that 25 % of the records do not exceed
    median: int
    q75: int
    max: int


class Card(NamedTuple):
    """Statistics of a set, without empty splits, sources and categories."""

    measure: str  # unit of lengths: "characters" or "tokens"
    sizes: dict[str, dict[str, int]]  # records of each source in each split (T6)
    customers: dict[str, CustomerCounts]  # units per customer in each split (T8)
    prompts: dict[str, Spread]  # prompt lengths in each split (T9)
    responses: dict[str, Spread]  # response lengths in each split; none of prompts
    categories: dict[str, Spread]  # prompt lengths in each category (T1, T10)
    source_prompts: dict[str, Spread]  # prompt lengths of each source (T11)
    source_responses: dict[str, Spread]  # response lengths of each source (T11)
    languages: dict[str, float]  # shares of languages in a sample
    language_sample: int  # number of texts in the sample; 0: no sample was taken


class _Cell(NamedTuple):
    split: str
    source: str
    category: str


class Tally:
    """Counts lengths of records that are given one by one."""

    def __init__(self) -> None:
        self._prompts: dict[_Cell, Counter[int]] = {}
        self._responses: dict[_Cell, Counter[int]] = {}
        self._names: dict[str, set[str]] = {"source": set(), "category": set()}

    def add(
        self, record: Record, split: str, *, prompt: int, responses: Sequence[int]
    ) -> None:
        """Counts one record: the length of its prompt and of each of its responses."""
        source = record.get("source") or (
            "customer" if record["customer"] else "labeler"
        )
        category = record["category"] or NONE
        cell = _Cell(
            split, self._fold("source", source), self._fold("category", category)
        )
        if cell not in self._prompts:
            self._prompts[cell], self._responses[cell] = Counter(), Counter()
        self._prompts[cell][prompt] += 1
        if responses:
            self._responses[cell].update(responses)

    def _fold(self, field: str, name: str) -> str:
        """The name itself if it is among the first MAX_NAMES names, else OTHER."""
        names = self._names[field]
        if name in names:
            return name
        if len(names) == MAX_NAMES:
            return OTHER
        names.add(name)
        return name

    def card(
        self,
        *,
        measure: str,
        customers: Mapping[str, CustomerCounts],
        languages: Mapping[str, float],
        language_sample: int,
    ) -> Card:
        """The card of all records so far; the arguments are fields of `Card`."""
        sizes: dict[str, dict[str, int]] = {}
        for cell, lengths in self._prompts.items():
            row = sizes.setdefault(cell.source, {})
            row[cell.split] = row.get(cell.split, 0) + lengths.total()
        categories = _spreads(self._prompts, "category")
        by_size = sorted(
            categories.items(), key=lambda item: (-item[1].number, item[0])
        )
        return Card(
            measure=measure,
            sizes=dict(sorted(sizes.items(), reverse=True)),
            customers={s: customers[s] for s in SPLITS if s in customers},
            prompts=_in_order(_spreads(self._prompts, "split")),
            responses=_in_order(_spreads(self._responses, "split")),
            categories=dict(by_size),
            source_prompts=_spreads(self._prompts, "source"),
            source_responses=_spreads(self._responses, "source"),
            languages=dict(languages),
            language_sample=language_sample,
        )


def spread(lengths: Mapping[int, int]) -> Spread:
    """The spread of lengths, given the number of occurrences of each length."""
    number = sum(lengths.values())
    mean = sum(length * n for length, n in lengths.items()) / number
    square = sum((length - mean) ** 2 * n for length, n in lengths.items()) / number
    ordered = sorted(lengths)
    up_to = list(itertools.accumulate(lengths[length] for length in ordered))
    q25, median, q75 = (
        ordered[bisect.bisect_left(up_to, quarter * number / 4)]
        for quarter in (1, 2, 3)
    )
    return Spread(number, mean, math.sqrt(square), q25, median, q75, ordered[-1])


def _spreads(cells: Mapping[_Cell, Counter[int]], field: str) -> dict[str, Spread]:
    """Spreads by value of a field, over all cells with that value."""
    sums: dict[str, Counter[int]] = {}
    for cell, lengths in cells.items():
        sums.setdefault(getattr(cell, field), Counter()).update(lengths)
    return {value: spread(sums[value]) for value in sorted(sums) if sums[value]}


def _in_order(spreads: dict[str, Spread]) -> dict[str, Spread]:
    return {split: spreads[split] for split in SPLITS if split in spreads}


def card_to_json(card: Card) -> dict[str, Any]:
    """Converts the card to dictionaries by field name, for JSON."""
    plain: dict[str, Any] = _plain(card)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):  # a NamedTuple
        value = value._asdict()  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def render_card(card: Card, *, title: str) -> str:
    """Renders the card as Markdown, with one table for each of the paper's."""
    splits = list(card.prompts)
    total = sum(spread.number for spread in card.prompts.values())
    size_rows = [[source, *_cells(row, splits)] for source, row in card.sizes.items()]
    size_rows.append(["total", *(f"{card.prompts[s].number:,}" for s in splits)])
    sections = [
        f"# {title}\n\nLengths in {card.measure}. Tables in brackets are the paper's.",
        _table("Records (Table 6)", ["source", *splits], size_rows),
        _table(
            "Prompts per customer (Table 8)",
            ["split", "customers", "mean", "max"],
            [
                [split, f"{c.customers:,}", f"{c.mean:.2f}", f"{c.max:,}"]
                for split, c in card.customers.items()
            ],
        ),
        _spread_table("Prompt lengths (Table 9)", "split", card.prompts),
        _spread_table("Response lengths", "split", card.responses),
        _spread_table(
            "Categories and their prompt lengths (Tables 1, 10)",
            "category",
            card.categories,
            total=total,
        ),
        _spread_table(
            "Prompt lengths by source (Table 11)", "source", card.source_prompts
        ),
        _spread_table(
            "Response lengths by source (Table 11)", "source", card.source_responses
        ),
        _table(
            f"Languages, in a sample of {card.language_sample:,}",
            ["language", "share"],
            [[name, f"{share:.1%}"] for name, share in card.languages.items()],
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _cells(row: Mapping[str, int], splits: Iterable[str]) -> Iterator[str]:
    return (f"{row.get(split, 0):,}" for split in splits)


def _spread_table(
    title: str, first: str, spreads: Mapping[str, Spread], *, total: int | None = None
) -> str:
    """A table with a row per spread; with `total`, also each row's share of it."""
    header = [first, "count", "mean", "std", "25 %", "50 %", "75 %", "max"]
    rows = []
    for name, s in spreads.items():
        numbers = [f"{s.number:,}", f"{s.mean:.1f}", f"{s.std:.1f}"]
        quantiles = [f"{value:,}" for value in (s.q25, s.median, s.q75, s.max)]
        share = [f"{s.number / total:.1%}"] if total else []
        rows.append([name, *share, *numbers, *quantiles])
    if total:
        header.insert(1, "share")
    return _table(title, header, rows)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A heading and a Markdown table; "" without rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    cells = (" | ".join(_escape(cell) for cell in line) for line in lines)
    return f"## {title}\n\n" + "\n".join(f"| {row} |" for row in cells)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
