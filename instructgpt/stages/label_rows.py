"""Changes rows of answers and rankings, as the label stage writes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def misplace(
    rows: Sequence[dict[str, Any]], number: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Adds responses of other rows to each row's `responses`, at random places.

    Args:
      rows: Prompts with `responses` and a `category`.
      number: Number of responses added to a row. The 2nd, 4th, ... come from other rows
        of its category if there are any; the rest come from any row.
      rng: Generator that draws rows, responses and places.

    Returns:
      New rows. A single row stays as it is, because there is no other.
    """
    if len(rows) < 2:
        return list(rows)
    alike: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(row["category"], []).append(i)
    out = []
    for i, row in enumerate(rows):
        responses = list(row["responses"])
        for turn in range(number):
            pool = alike[row["category"]] if turn % 2 else range(len(rows))
            pool = pool if len(pool) > 1 else range(len(rows))
            # Draws a member of the pool other than row i.
            drawn = int(rng.integers(len(pool) - 1))
            j = pool[drawn] if pool[drawn] != i else pool[-1]
            text = rows[j]["responses"][rng.integers(len(rows[j]["responses"]))]
            responses.insert(int(rng.integers(len(responses) + 1)), text)
        out.append({**row, "responses": responses})
    return out


def mean_ranking(ranked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Joins several labelers' comparisons to one, by mean rank; 1 is best.

    Args:
      ranked: Comparisons of the same responses, each with `ranks` and `labeler`.

    Returns:
      A comparison with dense ranks, in which equal means are a tie. Its `labeler` names
      all labelers.
    """
    means = np.mean([row["ranks"] for row in ranked], axis=0).round(6)
    ranks = np.unique(means, return_inverse=True)[1] + 1
    labeler = "+".join(row["labeler"] for row in ranked)
    return {**ranked[0], "ranks": ranks.tolist(), "labeler": labeler}


def untied_pairs(row: dict[str, Any]) -> int:
    """Number of pairs of answers of which the ranking prefers one."""
    ranks = np.array(row["ranks"])
    return int((ranks[:, None] < ranks[None, :]).sum())
