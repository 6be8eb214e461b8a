"""Krippendorff's alpha for ordinal data, with bootstrap intervals over prompts.

Alpha is 1 - observed / expected disagreement: 1 if all labelers say the same, 0 if they
agree as often as values drawn from all that was said. A unit is one answer to one
prompt, its values are what each labeler says of it; units with one value do not count.

For Likert scores the values are the scores. Ranks have a meaning only within a prompt,
and prompts differ in their number K of answers. So the values are places, from 0 (best)
to 1 (worst): (r - 1) / (K - 1), where answers that are tied share the mean r of their
ranks. The ordinal distance of two values takes only their order among all values, so
the scale matters just for prompts of different K to be put together.

krippendorff computes the estimate. Its draws are computed from the sums of each prompt,
which is the same and takes less time.
"""

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from instructgpt.errors import UserError
from instructgpt.evals.agreement.resampling import bootstrap_interval, draw_prompts
from instructgpt.evals.intervals import Interval

# Prompt -> its units, each with the values that the labelers give it.
Units = Mapping[str, Sequence[Sequence[float]]]


def has_krippendorff() -> bool:
    """Whether the package krippendorff is installed, of the extra `labelling`."""
    return importlib.util.find_spec("krippendorff") is not None


def need_krippendorff() -> None:
    """Raises UserError if the package krippendorff is not installed."""
    if not has_krippendorff():
        raise UserError(
            "Krippendorff's alpha needs the package krippendorff; "
            "pip install --editable '.[labelling]'"
        )


def places(ranks: Sequence[float] | np.ndarray) -> np.ndarray:
    """The place of each of K answers, from 0 (best) to 1 (worst).

    Args:
      ranks: [K], 1 is best; K is 2 or more. Only their order counts.
    """
    ranks = np.asarray(ranks, np.float64)
    better = (ranks[None] < ranks[:, None]).sum(1)
    tied = (ranks[None] == ranks[:, None]).sum(1) - 1
    return (better + tied / 2) / (len(ranks) - 1)


def ordinal_alpha(units: Units) -> Interval | None:
    """Krippendorff's alpha with a 95 % bootstrap interval over prompts.

    Returns:
      None without krippendorff, if no unit has two values, or if all values are equal,
      for which alpha is not defined.
    """
    counted = {
        prompt: kept
        for prompt, own in units.items()
        if (kept := [values for values in own if len(values) > 1])
    }
    domain = np.unique([x for own in counted.values() for unit in own for x in unit])
    if domain.size < 2 or not has_krippendorff():
        return None
    import krippendorff

    counts = [
        np.stack(
            [
                np.bincount(np.searchsorted(domain, x), minlength=domain.size)
                for x in own
            ]
        )
        for own in counted.values()
    ]
    value = krippendorff.alpha(
        value_counts=np.concatenate(counts),
        value_domain=domain,
        level_of_measurement="ordinal",
    )
    sums = np.stack([coincidences(own).ravel() for own in counts])
    draws = draw_prompts(len(counts)) @ sums
    drawn = alpha_of(draws.reshape(-1, domain.size, domain.size))
    return bootstrap_interval(float(value), drawn, prompts=len(counts))


def coincidences(counts: np.ndarray) -> np.ndarray:
    """How often two labelers give a unit the values c and k, summed over units.

    A unit with m values counts m: each pair of its values has the weight 1 / (m - 1).

    Args:
      counts: int[U, V], how many labelers give unit u the value v; 2 or more a unit.

    Returns:
      float[V, V], symmetric.
    """
    weights = 1 / (counts.sum(1) - 1)
    products = np.einsum("uc,uk,u->ck", counts, counts, weights)
    return products - np.diag(weights @ counts)


def alpha_of(sums: np.ndarray) -> np.ndarray:
    """Ordinal alpha from sums of coincidences.

    The ordinal distance of two values is the square of the difference of their middles:
    the number of values below, and half of those that are equal.

    Args:
      sums: float[R, V, V].

    Returns:
      float[R]; NaN where all values are equal.
    """
    totals = sums.sum(1)
    number = totals.sum(1)
    middles = totals.cumsum(1) - totals / 2
    distances = np.square(middles[:, :, None] - middles[:, None, :])
    observed = (sums * distances).sum((1, 2))
    expected = np.einsum("rc,rk,rck->r", totals, totals, distances) / (number - 1)
    ratio = observed / np.where(expected > 0, expected, 1)
    return np.where(expected > 0, 1 - ratio, np.nan)
