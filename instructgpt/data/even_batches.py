"""Batches with similar total sizes, of rows with different sizes."""

from collections.abc import Sequence

import numpy as np


def even_batches(sizes: Sequence[int], batch_size: int, *, seed: int) -> np.ndarray:
    """Divides rows into batches of similar total size, so that none is much larger.

    The rows are divided by size into B strata, and every batch has one row of each.
    Rows 2i and 2i + 1 of a batch are a small and a large one that balance each other,
    so that parts of a batch with an even number of rows are similar too.

    Args:
      sizes: sizes of the rows, in any unit.
      batch_size: rows of a batch, B.
      seed: seed of the order within a stratum, and of the choice of the fewer than B
        rows that are left over.

    Returns:
      int[batches, B], row numbers, each at most once.
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
