"""Batches of rows of unlike sizes whose totals are alike."""

from collections.abc import Sequence

import numpy as np


def even_batches(sizes: Sequence[int], batch_size: int, *, seed: int) -> np.ndarray:
    """Batches of nearly the same total, so that none needs much more room than most.

    By size the rows are cut into B strata, and every batch has a row of each. Rows 2i
    and 2i + 1 of a batch are small and large, the smaller the one the larger the other:
    so an even part of a batch is like the others as well.

    Args:
      sizes: of the rows, in any unit.
      batch_size: B.
      seed: of the order among rows of a size, and of the rows left over, fewer than B.

    Returns:
      int[batches, B] row numbers, each once.
    """
    count = len(sizes) // batch_size
    drawn = np.random.default_rng(seed).permutation(len(sizes))[: count * batch_size]
    ascending = drawn[np.argsort(np.asarray(sizes)[drawn], kind="stable")]
    strata = list(ascending.reshape(batch_size, count))
    half = batch_size // 2
    out = []
    for small, large in zip(strata[:half], strata[::-1], strict=False):
        out += [small, large[::-1]]
    return np.stack(out + strata[half : batch_size - half], axis=1)
