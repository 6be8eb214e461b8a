"""Measures the coverage and the width of the 95 % intervals of rates.

    python tests/benchmarks/coverage.py --replications=10000

prints a row for each kind of data and true rate, and for each number of prompts the
share of simulated samples whose interval holds the true rate, and the mean length of
the interval in units of 2 x 1.96 standard deviations of the estimated rate.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.evals.intervals import ratio_intervals  # noqa: E402
from instructgpt.evals.report.tables import markdown_table  # noqa: E402

PROMPTS = (5, 20, 500)
RATES = (0.05, 0.5, 0.95)
LABELERS = 3
LABELER_TIES = 0.2  # share of the pairs that a labeler ties
# Replications times prompts that are simulated at once.
_CHUNK = 1_000_000

Shape = tuple[int, int]
Sample = tuple[np.ndarray, np.ndarray]  # sums and weights, each [replications, prompts]


def outcomes(
    rng: np.random.Generator, shape: Shape, rate: float, ties: float
) -> Sample:
    """Wins (1), losses (0) and ties (1/2); `ties` is a share of the most possible."""
    tie = ties * 2 * min(rate, 1 - rate)
    drawn = rng.random(shape)
    won = drawn < rate - tie / 2
    return won + 0.5 * (~won & (drawn < rate + tie / 2)), np.ones(shape)


def ranked_pairs(
    rng: np.random.Generator, shape: Shape, rate: float, alike: float
) -> Sample:
    """Right and untied pairs of rankings of K = 4 to 9 answers by several labelers.

    `alike` is the correlation of two judgements of one prompt: each prompt has a rate
    of its own, drawn from a beta distribution.
    """
    answers = rng.integers(4, 10, shape)
    pairs = LABELERS * answers * (answers - 1) // 2
    spread = 1 / alike - 1
    own = rng.beta(rate * spread, (1 - rate) * spread, shape)
    untied = rng.binomial(pairs, 1 - LABELER_TIES)
    return rng.binomial(untied, own).astype(float), untied.astype(float)


def likert(rng: np.random.Generator, shape: Shape, rate: float, alike: float) -> Sample:
    """Likert scores on a scale from 0 to 1, whose mean is the rate.

    `alike` is the correlation of the six steps of a score, so how far scores spread.
    """
    spread = 1 / alike - 1
    own = rng.beta(rate * spread, (1 - rate) * spread, shape)
    return rng.binomial(6, own) / 6, np.ones(shape)


# Name -> how sums and weights are drawn, and the number that it takes.
DATA: dict[str, tuple[Callable[..., Sample], float]] = {
    "yes or no": (outcomes, 0.0),
    "win rate, half of the ties possible": (outcomes, 0.5),
    "win rate, nine tenths of the ties possible": (outcomes, 0.9),
    "Likert score": (likert, 0.3),
    "pairs, correlation 0.05": (ranked_pairs, 0.05),
    "pairs, correlation 0.3": (ranked_pairs, 0.3),
    "pairs, correlation 0.7": (ranked_pairs, 0.7),
}


class Coverage(NamedTuple):
    """What a simulation found of the intervals of one kind of sample."""

    covered: float  # share of the intervals that hold the true rate
    length: float  # their mean length over 2 x 1.96 deviations of the estimate
    least: float  # the lowest end of all intervals
    greatest: float  # the highest


def simulate(
    name: str, rate: float, prompts: int, replications: int, *, seed: int = 0
) -> Coverage:
    """Coverage of `ratio_intervals` over samples of one kind of DATA."""
    draw, setting = DATA[name]
    rng = np.random.default_rng([seed, list(DATA).index(name), prompts])
    found = []
    left = replications
    while left:
        size = min(left, max(_CHUNK // prompts, 1))
        found.append(ratio_intervals(*draw(rng, (size, prompts), rate, setting)))
        left -= size
    rates, low, high = map(np.concatenate, zip(*found, strict=True))
    return Coverage(
        covered=float(np.mean((low <= rate) & (rate <= high))),
        length=float(np.mean(high - low) / (2 * 1.96 * np.std(rates) or np.nan)),
        least=float(low.min()),
        greatest=float(high.max()),
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=10_000)
    replications = parser.parse_args(argv).replications
    if replications < 2:
        sys.exit(f"error: --replications={replications}: give 2 or more.")
    rows = []
    for name in DATA:
        for rate in RATES:
            found = [simulate(name, rate, n, replications) for n in PROMPTS]
            cells = [f"{cell.covered:.3f} ({cell.length:.2f})" for cell in found]
            rows.append([name, f"{rate:.2f}", *cells])
    columns = ["data", "true rate", *(f"{n} prompts" for n in PROMPTS)]
    print(markdown_table(rows, columns))


if __name__ == "__main__":
    main()
