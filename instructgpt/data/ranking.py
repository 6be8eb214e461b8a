"""Rankings from scores and from pairwise preferences."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


def dense_ranks(positions: Sequence[float]) -> list[int]:
    """Ranks 1, 2, ... in the order of `positions`; equal positions tie.

    dense_ranks([5, 0, 0, 7]) is [2, 1, 1, 3].
    """
    order = {position: rank for rank, position in enumerate(sorted(set(positions)), 1)}
    return [order[position] for position in positions]


class Ranking(NamedTuple):
    """Ranks of K responses, 1 is best, and whether all preferences agree with them."""

    ranks: list[int]
    consistent: bool


def copeland_ranks(preferences: Sequence[int], count: int) -> Ranking:
    """Ranks K responses by Copeland's score: pairs won minus pairs lost.

    People's pairwise preferences need not follow from a ranking: they may be cyclic, or
    tie 1 with 2 and 2 with 3 but prefer 1 to 3. The score always gives a ranking with
    ties; if the preferences follow from a ranking, it is that one.

    Args:
      preferences: for the pairs (1, 2), (1, 3), ..., (K-1, K) in this order 1 if the
        first is better, 2 if the second is, 0 for a tie.
      count: K; there are K(K-1)/2 preferences.
    """
    pairs = list(itertools.combinations(range(count), 2))
    scores = [0] * count
    for (first, second), preference in zip(pairs, preferences, strict=True):
        sign = (0, 1, -1)[preference]
        scores[first] += sign
        scores[second] -= sign
    consistent = all(
        (0, 1, 2)[(a > b) + 2 * (a < b)] == preference
        for (a, b), preference in zip(
            itertools.combinations(scores, 2), preferences, strict=True
        )
    )
    return Ranking(dense_ranks([-score for score in scores]), consistent)
