"""Estimates with their 95 % confidence intervals, as the paper's figures show them.

N is the number of prompts, the unit that was sampled: intervals are over prompts, so
several judgements of one prompt count as one observation of it. All are normal
approximations, fit for a few dozen prompts and more; with fewer they are too narrow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z95 = 1.959964  # 97.5th percentile of the standard normal


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(
    values: Sequence[float] | np.ndarray, *, limits: tuple[float, float] | None = None
) -> Interval:
    """Mean of `values` [N], plus and minus Z95 standard errors.

    Args:
      values: one number a prompt.
      limits: range that the true mean cannot leave, for example (0, 1) for a yes/no
        flag; the interval's ends are clipped to it.

    Raises:
      ValueError: no values.
    """
    values = np.asarray(values, np.float64)
    return ratio_interval(values, np.ones_like(values), limits=limits)


def win_rate(
    a_utilities: Sequence[float] | np.ndarray, b_utilities: Sequence[float] | np.ndarray
) -> Interval:
    """How often model A is preferred to model B on the same prompts (paper, Fig. 1).

    A prompt counts 1 where A's answer has the greater utility, 0 where B's has, and
    1/2 where they are equal; the interval is that of the mean of these outcomes.

    Args:
      a_utilities: [N], one a prompt, greater is better.
      b_utilities: [N], of the same prompts in the same order.

    Raises:
      ValueError: no prompts, or two different numbers of them.
    """
    a, b = np.asarray(a_utilities, np.float64), np.asarray(b_utilities, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"one utility a prompt from each model: {a.shape}, {b.shape}")
    return mean_interval((np.sign(a - b) + 1) / 2, limits=(0.0, 1.0))


def ratio_interval(
    sums: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    *,
    limits: tuple[float, float] | None = None,
) -> Interval:
    """Pooled rate sum(sums) / sum(weights), with prompts as the sampled unit.

    For rates over several judgements a prompt, such as the accuracy of a reward model
    on the C(K, 2) pairs of a ranking (paper §3.5): pairs of one prompt share their
    answers and labeler, so they are not independent. The variance is the linearised
    one of a ratio estimator, N / (N - 1) * sum((s - rate * w)^2) / sum(w)^2.

    Args:
      sums: [N], for example correctly ordered pairs of each prompt.
      weights: [N], for example untied pairs of each prompt.
      limits: the interval's ends are clipped to this range.

    Raises:
      ValueError: the weights add up to 0, or the lengths differ.
    """
    sums, weights = np.asarray(sums, np.float64), np.asarray(weights, np.float64)
    if sums.shape != weights.shape or not weights.sum() > 0:
        raise ValueError(f"nothing to average: {sums.shape} over {weights.shape}")
    total, count = weights.sum(), len(weights)
    rate = sums.sum() / total
    residuals = sums - rate * weights
    variance = np.square(residuals).sum() / total**2 * count / max(count - 1, 1)
    low, high = rate - Z95 * np.sqrt(variance), rate + Z95 * np.sqrt(variance)
    if limits:
        low, high = np.clip([low, high], *limits)
    return Interval(float(rate), float(low), float(high))
