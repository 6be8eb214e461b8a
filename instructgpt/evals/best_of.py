"""Best-of-n: the answer that a reward model scores highest among n of a policy's.

It optimises against a reward model without training, and its distance from the policy
is known exactly, so that it is a baseline for RL (Nakano et al. 2021; Gao et al. 2023).

Letters: M prompts, N answers to each, n of them to choose among.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instructgpt.evals.intervals import mean_interval
from instructgpt.evals.report.plotting import (
    INK,
    WIDTH,
    error_lengths,
    look,
    styled,
)
from instructgpt.evals.report.tables import format_interval
from instructgpt.progress import format_table

# Measures of an answer -> their names in tables and figures, and the ends of the scale.
MEASURES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "rm_score": ("RM score", None),
    "likert": ("Gold Likert (1–7)", (1.0, 7.0)),
}


def kl_of_best(n: int) -> float:
    """KL of best-of-n from the policy that it samples: log n - (n - 1)/n, in nats.

    It is exact if no two answers have the same score, and otherwise an upper bound.
    """
    return math.log(n) - (n - 1) / n


def sizes_up_to(num_answers: int) -> list[int]:
    """1, 2, 4, ... up to N, and N."""
    powers = [2**i for i in range(num_answers.bit_length()) if 2**i < num_answers]
    return [*powers, num_answers]


def expected_best(scores: np.ndarray, values: np.ndarray, *, n: int) -> np.ndarray:
    """Expected value of the best of n answers by score, for each prompt.

    It is the mean over all subsets of n of the N answers, and so an unbiased estimate
    for n new ones (Nakano et al. 2021). Of answers in the order of their scores, the
    i-th is the best of C(i - 1, n - 1) of the C(N, n) subsets. Which of several answers
    with the same score is the best is drawn with equal chances.

    Args:
      scores: float[M, N], by which the best is chosen.
      values: float[M, N], what is measured of an answer; the scores themselves, or
        another judge's.
      n: Number of answers to choose among, from 1 to N.

    Returns:
      float[M].

    Raises:
      ValueError: n is not between 1 and N.
    """
    number = scores.shape[1]
    if not 1 <= n <= number:
        raise ValueError(f"the best of {n} answers, and there are {number}")
    chances = [math.comb(i, n - 1) / math.comb(number, n) for i in range(number)]
    order = np.argsort(scores, axis=1)
    ordered = np.take_along_axis(_mean_of_ties(scores, values), order, axis=1)
    return ordered @ np.array(chances)


def _mean_of_ties(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values [M, N], each averaged over the answers with the same score."""
    out = np.empty(values.shape, np.float64)
    for row, (score, value) in enumerate(zip(scores, values, strict=True)):
        _, group = np.unique(score, return_inverse=True)
        out[row] = (np.bincount(group, value) / np.bincount(group))[group]
    return out


def best_of_rows(found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each n: `n`, `kl`, and each measure as [value, low, high].

    Args:
      found: Measures of answers, float[M, N], by keys of MEASURES. "rm_score" chooses.
        The intervals are of 95 %, over prompts.
    """
    scores = found["rm_score"]
    rows = []
    for n in sizes_up_to(scores.shape[1]):
        row: dict[str, Any] = {"n": n, "kl": kl_of_best(n)}
        for name, values in found.items():
            best = expected_best(scores, values, n=n)
            row[name] = interval_of(name, best)
        rows.append(row)
    return rows


def interval_of(measure: str, values: np.ndarray) -> list[float]:
    """The mean of values [M] of a measure with its interval, [value, low, high]."""
    _, limits = MEASURES[measure]
    if limits:  # means of many values may leave the scale by rounding
        values = np.clip(values, *limits)
    return list(mean_interval(values, limits=limits))


def best_of_table(results: Mapping[str, Any]) -> str:
    """The table of a best-of-n stage's `results.json`: a row for each n, and policy."""
    rows, points = results["best_of"], results["points"]
    present = [name for name in MEASURES if name in rows[0]]
    cells = [
        [label, f"{row['kl']:.2f}", *(format_interval(row[name]) for name in present)]
        for label, row in (
            *((f"best of {row['n']}", row) for row in rows),
            *((point["label"], point) for point in points.values()),
        )
    ]
    return format_table(cells, ["", "KL", *(MEASURES[name][0] for name in present)])


@styled
def best_of_figure(results: Mapping[str, Any]) -> Figure:
    """Draws each measure of best-of-n, and of other policies, over the KL."""
    rows, points = results["best_of"], results["points"]
    present = [name for name in MEASURES if name in rows[0]]
    fig = Figure(figsize=(WIDTH, 0.5 + 2.5 * len(present)))
    axes = fig.subplots(len(present), 1, squeeze=False, sharex=True)[:, 0]
    for ax, name in zip(axes, present, strict=True):
        _draw_curve(ax, rows, name)
        for key, point in points.items():
            kind, value = look(key), np.array([point[name]], float)
            kl = np.array([point["kl_interval"]], float)
            ax.errorbar(
                kl[:, 0],
                value[:, 0],
                error_lengths(value),
                error_lengths(kl),
                fmt=kind.marker,
                color=kind.color,
                ms=7,
                label=point["label"],
            )
        ax.set_ylabel(MEASURES[name][0])
    axes[-1].set_xlabel("KL from the sampled policy (nats)")
    if points:
        axes[0].legend()
    return fig


def _draw_curve(ax: Axes, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    x = np.array([row["kl"] for row in rows])
    values = np.array([row[name] for row in rows], float)
    ax.fill_between(x, values[:, 1], values[:, 2], color="#0072b2", alpha=0.15, lw=0)
    ax.plot(x, values[:, 0], "o-", color="#0072b2", ms=4, label="best of n")
    for row, at, value in zip(rows, x, values[:, 0], strict=True):
        # Below the curve, which rises first, so that the band is not hidden.
        ax.annotate(
            f"n = {row['n']}" if row["n"] == 1 else f"{row['n']}",
            (at, value),
            xytext=(4, -11),
            textcoords="offset points",
            color=INK,
            fontsize=8.5,
        )
    ax.margins(x=0.07, y=0.15)
