"""Agreement of labelers with each other: by group and category (paper §3.4)."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from instructgpt.evals.agreement.alpha import ordinal_alpha, places
from instructgpt.evals.agreement.pairs import (
    COUNTS,
    PAPER,
    bootstrap_rates,
    compare,
    rates,
    signs,
)
from instructgpt.evals.agreement.rows import Ranked

EVERYONE = "everyone"  # all labelers, where they are of several groups


class Comparison(NamedTuple):
    """Two labelers' rankings of the same answers, with the counts of `compare`."""

    first: Ranked
    second: Ranked
    counts: np.ndarray  # float[6]

    def of(self, labeler: str) -> Ranked | None:
        """The ranking by a labeler, if it is one of the two."""
        for row in self[:2]:
            if row.labeler == labeler:
                return row
        return None


def comparisons(rows: Iterable[Ranked]) -> list[Comparison]:
    """Compares each two labelers who ranked the same answers.

    Repeats, gold items and skipped tasks are left out (`Ranked.compared`).
    """
    by_id: dict[str, list[tuple[Ranked, np.ndarray]]] = {}
    for row in rows:
        if row.compared:
            by_id.setdefault(row.id, []).append((row, signs(row.ranks)))
    return [
        Comparison(one, other, compare(ours, theirs))
        for own in by_id.values()
        for (one, ours), (other, theirs) in itertools.combinations(own, 2)
    ]


def by_prompt(found: Iterable[Comparison]) -> np.ndarray:
    """The counts of each prompt: float[N, 6]."""
    sums: dict[str, np.ndarray] = {}
    for one in found:
        total = sums.setdefault(one.first.id, np.zeros(COUNTS))
        total += one.counts
    return np.stack(list(sums.values())) if sums else np.zeros((0, COUNTS))


def agreement_within(
    rows: Sequence[Ranked], found: Sequence[Comparison]
) -> dict[str, Any]:
    """All measures of agreement between labelers, and what they are computed from.

    Args:
      rows: The rankings of these labelers.
      found: Their comparisons with each other.

    Returns:
      `without_ties`, `with_ties`, `tau`, `alpha_ranks`, `alpha_likert`, each [value,
      low, high], left out where there is nothing to compute it from; `bootstrap` with
      the first two and their bootstrap intervals; and the numbers of `labelers`,
      `prompts` with two or more labelers, and `comparisons` of two rankings.
    """
    table = by_prompt(found)
    compared = [row for row in rows if row.compared]
    alphas = {
        "alpha_ranks": ordinal_alpha(_units(compared, lambda row: places(row.ranks))),
        "alpha_likert": ordinal_alpha(_units(compared, lambda row: row.likert)),
    }
    measured = {**rates(table), **alphas}
    return {
        **{name: list(x) for name, x in measured.items() if x is not None},
        "bootstrap": {name: list(x) for name, x in bootstrap_rates(table).items()},
        "labelers": len({row.labeler for row in compared}),
        "prompts": len(table),
        "comparisons": len(found),
    }


def _units(
    rows: Iterable[Ranked], values: Callable[[Ranked], Iterable[float | None]]
) -> dict[str, list[list[float]]]:
    """What labelers say of each answer, by prompt; an answer is a unit."""
    units: dict[str, list[list[float]]] = {}
    for row in rows:
        own = units.setdefault(row.id, [[] for _ in row.ranks])
        for unit, value in zip(own, values(row), strict=False):
            if value is not None:
                unit.append(float(value))
    return units


def group_place(group: str) -> tuple[int, str]:
    """Where a group stands in tables: those of the paper first."""
    names = list(PAPER)
    return (names.index(group) if group in PAPER else len(names)), group


def by_group(
    rows: Sequence[Ranked], found: Sequence[Comparison]
) -> dict[str, dict[str, Any]]:
    """Agreement between the labelers within each group, and between all of them.

    Where the paper has a group's agreement, `paper` is [value, what stands after ±].
    """
    groups = sorted({row.group for row in rows}, key=group_place)
    out: dict[str, dict[str, Any]] = {}
    for group in groups:
        out[group or "labelers"] = agreement_within(
            [row for row in rows if row.group == group],
            [x for x in found if x.first.group == x.second.group == group],
        )
        if group in PAPER:
            out[group]["paper"] = list(PAPER[group])
    if len(groups) > 1:
        out[EVERYONE] = agreement_within(rows, found)
    return out


def by_category(
    rows: Sequence[Ranked], found: Sequence[Comparison]
) -> dict[str, dict[str, Any]]:
    """Agreement between all labelers on the prompts of each use case.

    Returns:
      `without_ties`, `with_ties` and `tau`, and the number of `prompts`, of each
      category that has a comparison.
    """
    out = {}
    for category in sorted({row.category for row in rows if row.category}):
        table = by_prompt(x for x in found if x.first.category == category)
        if len(table):
            out[category] = {
                **{name: list(rate) for name, rate in rates(table).items()},
                "prompts": len(table),
            }
    return out
