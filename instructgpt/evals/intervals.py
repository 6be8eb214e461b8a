"""Estimates with their 95 % confidence intervals, as the paper's figures show them.

N is the number of prompts, the unit that was sampled: several judgements of one prompt
are a cluster, not independent observations. The variance of a mean or of a pooled rate
is the linearised one between prompts, and quantiles are Student's t, since few prompts
tell little about that variance.

A mean without limits gets the t interval. A value between two limits (a rate, a Likert
score) gets a score interval in Wilson's form with an effective binomial sample size,
p (1 - p) / variance, as for proportions from cluster samples in Korn and Graubard
(Survey Methodology 24, 1998) and Kott and Liu (International Statistical Review 77,
2009). It stays within the limits, and has a width even if all observations are equal.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

# Weight, in degrees of freedom of the variance, of the prior that all judgements of a
# prompt are equal. With 1, intervals of rare outcomes in correlated pairs are too short
# (tests/benchmarks/coverage.py); with more than 2 they are longer than necessary.
PRIOR_WEIGHT = 2.0
_LEVEL = 0.975  # the quantile of Student's t that leaves 95 % between -t and t
_LARGEST_T = 1e6  # t for a single prompt, whose interval is then the whole range


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(
    values: Sequence[float] | np.ndarray, *, limits: tuple[float, float] | None = None
) -> Interval:
    """The mean of `values` [N] with its interval.

    Without limits it is Student's: t standard errors with N - 1 degrees of freedom to
    either side. It is exact for normal values, too short on the long side of skewed
    ones with few prompts, infinite for one value, and of no width where all are equal.
    With limits it is `ratio_interval` on their scale.

    Args:
      values: One number per prompt.
      limits: The smallest and the largest possible value, for example (1, 7) for a
        Likert score; the interval stays within them.

    Raises:
      ValueError: no values, or values beyond the limits.
    """
    values = np.asarray(values, np.float64)
    if limits:
        low, high = limits
        shares = ratio_interval((values - low) / (high - low), np.ones_like(values))
        return Interval(*(low + (high - low) * share for share in shares))
    if not values.size:
        raise ValueError("nothing to average: no values")
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, -np.inf, np.inf)
    error = np.std(values, ddof=1) / np.sqrt(values.size)
    half = float(stdtrit(values.size - 1, _LEVEL) * error)
    return Interval(mean, mean - half, mean + half)


def win_rate(
    a_utilities: Sequence[float] | np.ndarray, b_utilities: Sequence[float] | np.ndarray
) -> Interval:
    """The rate at which model A is preferred to model B on prompts (paper, Fig. 1).

    A prompt counts 1 where A's answer has the greater utility, 0 where B's has, and
    1/2 where they are equal; the interval is that of the mean of these outcomes.

    Args:
      a_utilities: A's N utilities, one per prompt; greater is better.
      b_utilities: B's N utilities, for the same prompts in the same order.

    Raises:
      ValueError: no prompts, or two different numbers of them.
    """
    a, b = np.asarray(a_utilities, np.float64), np.asarray(b_utilities, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"one utility a prompt from each model: {a.shape}, {b.shape}")
    return mean_interval((np.sign(a - b) + 1) / 2, limits=(0.0, 1.0))


def ratio_interval(
    sums: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray
) -> Interval:
    """The pooled rate sum(sums) / sum(weights), with prompts as the sampled unit.

    It is for rates over several judgements per prompt, such as a reward model's
    accuracy on the C(K, 2) pairs of a ranking (paper §3.5). Pairs of one prompt share
    answers and labelers, so they are not independent. See `ratio_intervals`.

    Args:
      sums: N sums, for example numbers of correctly ordered pairs of each prompt.
      weights: N weights, for example numbers of untied pairs of each prompt.

    Raises:
      ValueError: the weights add up to 0, the lengths differ, or a sum is not between 0
        and its weight.
    """
    sums, weights = np.asarray(sums, np.float64), np.asarray(weights, np.float64)
    if sums.shape != weights.shape or not weights.sum() > 0:
        raise ValueError(f"nothing to average: {sums.shape} over {weights.shape}")
    if not ((sums >= 0) & (sums <= weights)).all():
        raise ValueError("a rate is wanted: give sums between 0 and their weights")
    return Interval(*(float(bound) for bound in ratio_intervals(sums, weights)))


def ratio_intervals(
    sums: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pooled rates and the ends of their intervals, for a batch of samples.

    With residuals e = s - p w of M = sum(w)^2 / sum(w^2) prompts of equal weight, the
    linearised variance of the rate p is v = M / (M - 1) sum(e^2) / sum(w)^2, and
    v / (p (1 - p)) is one over the effective sample size n. Few prompts, or few that
    differ from the others, estimate it badly: v has about
    f = 2 / (sum(e^4) / sum(e^2)^2 - 1 / M) degrees of freedom, by its variance and at
    most M. So 1 / n is averaged, by weights f and PRIOR_WEIGHT, with 1 / M, the value
    if all judgements of a prompt are equal. The ends of the interval are the rates q
    with |p - q| = t sqrt(q (1 - q) / n), t with M - 1 degrees of freedom.

    Limits of the method: with few prompts whose judgements are hardly correlated or
    nearly all ties, intervals are longer than necessary (up to five times with 5
    prompts, twice with 20). Prompts are treated as a sample of an infinite population;
    the variation over training seeds and labelers is not included.

    Args:
      sums: Sums [..., N] for samples of N prompts, each from 0 to its weight.
      weights: Weights [..., N], 0 for a prompt that is left out.

    Returns:
      (rate, low, high), each [...].
    """
    total = weights.sum(-1)
    rate = sums.sum(-1) / total
    prompts = np.square(total) / np.square(weights).sum(-1)
    freedom = np.maximum(prompts - 1, 1e-6)
    squares = np.square((sums - rate[..., None] * weights) / total[..., None])
    sum_of_squares = squares.sum(-1)
    binary = rate * (1 - rate)
    # 1 / n, the inverse effective sample size: first the estimate, then with the prior.
    alike = 1 / prompts
    estimated = _divide(sum_of_squares * prompts / freedom, binary, otherwise=alike)
    concentration = _divide(
        np.square(squares).sum(-1), np.square(sum_of_squares), otherwise=alike
    )
    certainty = 2 / np.maximum(concentration - alike, 2 * alike)
    inverse = (certainty * estimated + PRIOR_WEIGHT * alike) / (
        certainty + PRIOR_WEIGHT
    )
    t = np.minimum(stdtrit(freedom, _LEVEL), _LARGEST_T)
    excess = np.square(t) * inverse
    middle = (rate + excess / 2) / (1 + excess)
    half = np.sqrt(excess * (binary + excess / 4)) / (1 + excess)
    low = np.clip(middle - half, 0.0, rate)
    return rate, low, np.clip(middle + half, rate, 1.0)


def _divide(a: np.ndarray, b: np.ndarray, *, otherwise: np.ndarray) -> np.ndarray:
    """The quotient a / b, with `otherwise` where b is 0."""
    return np.where(b > 0, a / np.where(b > 0, b, 1), otherwise)
