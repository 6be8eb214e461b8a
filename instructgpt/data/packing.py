"""Packs several short texts into one row, so that little of a batch is padding.

Texts do not see each other: `segment_ids` tells the model which tokens belong
together, and positions start at 0 in every text. So a packed text has the same
log-probs and the same score as in a row of its own.

Demonstrations are packed once, before the loader. Then an epoch has a known number of
steps and any row can be read by its number; Grain's own packing is a stream without
these. Ranked responses are assigned to rows when they are encoded, and copied there
batch by batch, because a batch is a fixed number of prompts that fill varying numbers
of rows.
"""

import bisect
from collections.abc import Iterable, Sequence

import numpy as np

from instructgpt.batches import ComparisonBatch, PackedComparisonBatch, TokenBatch
from instructgpt.data.rows import Source
from instructgpt.errors import UserError
from instructgpt.sharding import max_over_processes


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Assigns items to bins by best-fit decreasing.

    Args:
      lengths: lengths of the items.
      capacity: capacity of a bin, in the same unit.

    Returns:
      The item numbers of each bin. Equal lengths give equal bins.

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
    """Rows [T] into which a source's rows are packed without their padding.

    The assignment of rows does not change between epochs.
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
        """Packed row number `index`, whose texts are numbered from 1."""
        packed = TokenBatch(
            *(np.zeros(self._length, t) for t in (np.int32, np.int32, bool))
        )
        start = 0
        for number, item in enumerate(self._bins[index], 1):
            row = self._rows[item]
            real = row.valid
            place = slice(start, start + int(real.sum()))
            packed.tokens[place] = row.tokens[real]
            packed.segment_ids[place] = number
            packed.loss_mask[place] = row.loss_mask[real]
            start = place.stop
        return packed


def rows_of_responses(valid: np.ndarray) -> np.ndarray:
    """Packs the responses of one prompt into few rows.

    Args:
      valid: bool[K, R], real tokens of the responses.

    Returns:
      int32[K], the number of each response's row from 0; -1 for an empty slot.
    """
    rows = np.full(len(valid), -1, np.int32)
    slots = np.flatnonzero(valid.any(axis=-1))
    lengths = valid.sum(axis=-1)[slots].tolist()
    for row, items in enumerate(pack(lengths, valid.shape[-1])):
        rows[slots[items]] = row
    return rows


def rows_needed(comparison: ComparisonBatch) -> np.ndarray:
    """Number of rows [R] that the packed responses of each prompt fill, int[*B]."""
    full = comparison.response_valid.any(axis=-1)
    return np.where(full, comparison.packed_row, -1).max(axis=-1) + 1


class ComparisonPacker:
    """Packs each batch's responses into the same number of rows.

    Attributes:
      rows: number of rows of a group, N.
    """

    def __init__(self, batches: Iterable[ComparisonBatch], *, groups: int):
        """Finds the smallest number of rows that holds every batch of every process.

        Args:
          batches: All batches that this process will pack, on the host.
          groups: Number M of consecutive parts of a batch with separate rows, so that
            they can go to different devices or microbatches; divides B.
        """
        self._groups = groups
        needed = max(
            int(rows_needed(batch).reshape(groups, -1).sum(axis=-1).max())
            for batch in batches
        )
        self.rows = max_over_processes(max(needed, 1))

    def __call__(self, batch: ComparisonBatch) -> PackedComparisonBatch:
        """Packs a batch; the prompts keep their order.

        Raises:
          ValueError: the batch needs more rows than the batches given before.
        """
        size, slots, length = batch.responses.shape
        shape = self._groups, self.rows
        rows = np.zeros((*shape, length), np.int32)
        segment_ids = np.zeros((*shape, length), np.int32)
        prompt_index = np.zeros(shape, np.int32)
        last = np.zeros((self._groups, size // self._groups, slots), np.int32)
        lengths = batch.response_valid.sum(axis=-1)
        needed = rows_needed(batch).reshape(self._groups, -1)
        ends = needed.cumsum(axis=1)
        for g, p in np.ndindex(needed.shape):
            source, first = g * needed.shape[1] + p, int(ends[g, p] - needed[g, p])
            if ends[g, p] > self.rows:
                raise ValueError(f"group {g} does not fit into {self.rows} rows")
            for row in range(first, int(ends[g, p])):
                prompt_index[g, row], start = p, 0
                here = (batch.packed_row[source] == row - first) & (lengths[source] > 0)
                # As `pack` adds them to a row: longest first.
                members = sorted(
                    np.flatnonzero(here), key=lambda k: -lengths[source, k]
                )
                for number, k in enumerate(members, 1):
                    tokens = batch.responses[source, k]
                    tokens = tokens[batch.response_valid[source, k]]
                    place = slice(start, start + len(tokens))
                    rows[g, row, place], segment_ids[g, row, place] = tokens, number
                    start = place.stop
                    last[g, p, k] = row * length + start - 1

        def grouped(x: np.ndarray) -> np.ndarray:
            return x.reshape(self._groups, -1, *x.shape[1:])

        return PackedComparisonBatch(
            prompt=grouped(batch.prompt),
            prompt_valid=grouped(batch.prompt_valid),
            rows=rows,
            segment_ids=segment_ids,
            prompt_index=prompt_index,
            last=last,
            ranks=grouped(batch.ranks),
            present=grouped(batch.present),
            wording=grouped(batch.wording),
        )
