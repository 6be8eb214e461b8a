"""Percentiles of lengths in words, for messages."""

from collections.abc import Sequence

import numpy as np


def percentiles(values: Sequence[int] | np.ndarray) -> str:
    """For example "half have up to 12, 90 % up to 40 and the longest 90"."""
    half, most, longest = (
        int(np.percentile(values, percent, method="higher"))
        for percent in (50, 90, 100)
    )
    return f"half have up to {half}, 90 % up to {most} and the longest {longest}"
