"""Bootstrap intervals over prompts.

A draw takes N prompts out of N with replacement, each with all rankings of its answers
by all labelers: rankings of one prompt are not independent. Labelers are not drawn, so
the interval is for these labelers and other prompts.

With few prompts the percentiles of the draws are too narrow, by the factor
sqrt((N - 1) / N) and as Student's t is wider than the normal distribution. Percentiles
further out make up for both (the expanded percentile interval of Hesterberg, The
American Statistician 69, 2015).
"""

import numpy as np
from scipy.special import ndtr, stdtrit

from instructgpt.evals.intervals import Interval

DRAWS = 1000
_LEVEL = 0.975


def draw_prompts(number: int, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each of N prompts is in each of R draws: float[R, N]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(number, np.full(number, 1 / number), draws).astype(float)


def bootstrap_interval(value: float, drawn: np.ndarray, *, prompts: int) -> Interval:
    """A value between -1 and 1 with its 95 % interval.

    Args:
      value: The value of the N prompts.
      drawn: float[R], that of each draw; NaN where a draw has none.
      prompts: N.

    Returns:
      The interval; from -1 to 1, which says nothing, for a single prompt.
    """
    drawn = drawn[np.isfinite(drawn)]
    if prompts < 2 or not drawn.size:
        return Interval(value, -1.0, 1.0)
    tail = ndtr(-np.sqrt(prompts / (prompts - 1)) * stdtrit(prompts - 1, _LEVEL))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))


def bootstrap_ratio(sums: np.ndarray, weights: np.ndarray) -> Interval:
    """The pooled mean sum(sums) / sum(weights) of prompts, with its interval.

    Args:
      sums: float[N].
      weights: float[N]; prompts of weight 0 are left out.

    Raises:
      ValueError: all weights are 0.
    """
    kept = weights > 0
    sums, weights = sums[kept], weights[kept]
    if not weights.size:
        raise ValueError("nothing to average: no weight")
    draws = draw_prompts(len(sums))
    return bootstrap_interval(
        float(sums.sum() / weights.sum()),
        (draws @ sums) / (draws @ weights),
        prompts=len(sums),
    )
