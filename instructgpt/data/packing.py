"""Several short texts in one row, so that little of a batch is padding.

Each text keeps to itself: `TokenBatch.texts` tells the model which tokens belong
together, and positions start again with every text. So a packed text has the same
log-probs as one with a row of its own. Rows are packed once, before the loader: then an
epoch has a known number of steps and any row can be read by its number, which Grain's
own packing, a stream, does not give.
"""

import bisect
from collections.abc import Sequence

import numpy as np

from instructgpt.batches import TokenBatch
from instructgpt.data.rows import Source
from instructgpt.errors import UserError


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which items share a bin: best-fit decreasing.

    Args:
      lengths: of the items.
      capacity: of a bin, in the same unit.

    Returns:
      The item numbers of each bin. The same lengths give the same bins.

    Raises:
      ValueError: an item is longer than a bin.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (what a bin has left, its number), ascending
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[item] > capacity:
            raise ValueError(f"item {item}: {lengths[item]} do not fit in {capacity}")
        place = bisect.bisect_left(room, (lengths[item], -1))
        left, number = room.pop(place) if place < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        bisect.insort(room, (left - lengths[item], number))
    return bins


class PackedRows:
    """Rows [T] that hold as many of a source's rows as fit, without their padding.

    Which rows share one does not change between epochs.
    """

    def __init__(self, rows: Source, length: int):
        """Packs `TokenBatch` rows into rows of T = `length` tokens.

        Raises:
          UserError: a row has more than `length` tokens.
        """
        self._rows = rows
        self._length = length
        lengths = [int(rows[i].valid.sum()) for i in range(len(rows))]
        if max(lengths) > length:
            raise UserError(
                f"row {lengths.index(max(lengths))} has {max(lengths)} tokens, more"
                f" than the {length} of a packed row; raise pack_length"
            )
        self._bins = pack(lengths, length)

    def __len__(self) -> int:
        return len(self._bins)

    def __getitem__(self, index: int, /) -> TokenBatch:
        """Packed row `index`; its texts are numbered from 1."""
        packed = TokenBatch(
            *(np.zeros(self._length, t) for t in (np.int32, np.int32, bool))
        )
        start = 0
        for number, item in enumerate(self._bins[index], 1):
            row = self._rows[item]
            real = row.valid
            place = slice(start, start + int(real.sum()))
            packed.tokens[place] = row.tokens[real]
            packed.texts[place] = number
            packed.loss_mask[place] = row.loss_mask[real]
            start = place.stop
        return packed
