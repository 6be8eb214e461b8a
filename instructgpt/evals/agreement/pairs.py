"""How often labelers order two answers alike, and Kendall's tau (paper §3.4).

All agreement between rankings is counted here. N prompts, L labelers, K answers, and
the C(K, 2) pairs of answers, in the order of `itertools.combinations`.

The paper does not say how it counts ties. Without ties: of the pairs that neither
labeler ties, the share that both order alike. With ties: of all pairs, the share on
which both say the same of better, worse and tied.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from instructgpt.evals.agreement.resampling import bootstrap_ratio
from instructgpt.evals.intervals import Interval, ratio_interval

# What `compare` counts, in order: pairs that both order alike and pairs that neither
# ties; pairs on which both say the same and all pairs; Kendall's tau and 1.
COUNTS = 6
# Rates -> the places of their numerator and denominator among the counts.
_RATES = {"without_ties": (0, 1), "with_ties": (2, 3)}
# The paper's agreement between labelers of a group, and what stands after its ±.
PAPER = {"training": (0.726, 0.015), "heldout": (0.773, 0.013)}


def signs(ranks: Sequence[float] | np.ndarray) -> np.ndarray:
    """Which of each two answers is better: 1 the first, -1 the second, 0 a tie.

    Args:
      ranks: [..., K], 1 is best.

    Returns:
      float[..., C(K, 2)].
    """
    ranks = np.asarray(ranks, np.float64)
    first, second = np.triu_indices(ranks.shape[-1], 1)
    return np.sign(ranks[..., second] - ranks[..., first])


def kendall_tau(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of two rankings, from their `signs` [..., C(K, 2)].

    Pairs ordered alike count 1, pairs ordered against each other -1; the sum is divided
    by the root of the product of the two numbers of untied pairs. NaN if one of the
    rankings ties all answers.
    """
    scale = np.abs(first).sum(-1) * np.abs(second).sum(-1)
    alike = (first * second).sum(-1)
    return np.where(scale > 0, alike / np.sqrt(np.where(scale > 0, scale, 1)), np.nan)


def compare(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Counts of two rankings of the same answers: float[6], see `COUNTS`.

    Args:
      first: `signs` of one ranking; NaN for two answers that it does not compare.
      second: Those of the other.
    """
    known = ~np.isnan(first) & ~np.isnan(second)
    one, other = first[known], second[known]
    untied = (one != 0) & (other != 0)
    tau = float(kendall_tau(one, other)) if one.size else np.nan
    defined = not np.isnan(tau)
    return np.array(
        [
            (one == other)[untied].sum(),
            untied.sum(),
            (one == other).sum(),
            one.size,
            tau if defined else 0.0,
            defined,
        ],
        float,
    )


def rates(table: np.ndarray) -> dict[str, Interval]:
    """Agreement from the counts [N, 6] of N prompts; what has no pair is left out.

    Returns:
      `without_ties` and `with_ties` with the intervals of `ratio_interval`, and `tau`,
      the mean over each two rankings of a prompt, with a bootstrap interval; all of
      95 % over prompts.
    """
    found = {
        name: ratio_interval(table[:, agree], table[:, total])
        for name, (agree, total) in _RATES.items()
        if table[:, total].sum()
    }
    if table[:, 5].sum():
        found["tau"] = bootstrap_ratio(table[:, 4], table[:, 5])
    return found


def bootstrap_rates(table: np.ndarray) -> dict[str, Interval]:
    """`without_ties` and `with_ties` of `rates`, with bootstrap intervals."""
    return {
        name: bootstrap_ratio(table[:, agree], table[:, total])
        for name, (agree, total) in _RATES.items()
        if table[:, total].sum()
    }


def agreement_counts(rankings: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Agreements and comparisons between labelers who ranked the same answers.

    Args:
      rankings: [L][K], a ranking of the K answers by each labeler.

    Returns:
      (agree, total) over two labelers and two answers that neither ties.
    """
    counts = sum(
        (
            compare(one, other)
            for one, other in itertools.combinations(signs(np.asarray(rankings)), 2)
        ),
        start=np.zeros(COUNTS),
    )
    return int(counts[0]), int(counts[1])


def agreement(items: Iterable[Sequence[Sequence[int]]]) -> float:
    """Pairwise agreement over prompts: pooled `agreement_counts`; NaN if no pair."""
    counts = [agreement_counts(rankings) for rankings in items]
    agree, total = sum(a for a, _ in counts), sum(t for _, t in counts)
    return agree / total if total else float("nan")


def agreement_interval(
    rankings: Sequence[Sequence[Sequence[int]]],
) -> Interval | None:
    """The rate at which labelers agree on pairs that neither ties (paper §3.4).

    Args:
      rankings: Ranks [N][L][K] of the K answers of N prompts by L labelers each.

    Returns:
      The rate with a 95 % interval over prompts; None if there is no such pair, for
      example because each prompt has a single labeler.
    """
    agree, total = zip(*map(agreement_counts, rankings), strict=True)
    return ratio_interval(agree, total) if sum(total) else None
