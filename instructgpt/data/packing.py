"""Packs several short texts into one row, so that little of a batch is padding.

Texts do not see each other: `segment_ids` tells the model which tokens belong
together, and positions start at 0 in every text. So a packed text has the same
log-probs and the same score as in a row of its own.

Demonstrations are packed once, before the loader. Then an epoch has a known number of
steps and any row can be read by its number; Grain's own packing is a stream without
these. Ranked responses are packed batch by batch, after the loader, because a batch is
a fixed number of prompts with varying numbers of responses.
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


def rows_needed(comparison: ComparisonBatch) -> int:
    """Number of rows [R] that the responses of one prompt fill when packed."""
    lengths = comparison.response_valid.sum(axis=-1)
    return len(pack(lengths[lengths > 0].tolist(), comparison.responses.shape[-1]))


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
            sum(len(bins) for bins in group)
            for batch in batches
            for group in _by_group(batch, groups)
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
        for g, group in enumerate(_by_group(batch, self._groups)):
            if sum(len(bins) for bins in group) > self.rows:
                raise ValueError(f"group {g} does not fit into {self.rows} rows")
            row = 0
            for p, bins in enumerate(group):
                source = g * len(group) + p
                for slots_of_row in bins:
                    prompt_index[g, row], start = p, 0
                    for number, k in enumerate(slots_of_row, 1):
                        tokens = batch.responses[source, k]
                        tokens = tokens[batch.response_valid[source, k]]
                        place = slice(start, start + len(tokens))
                        rows[g, row, place], segment_ids[g, row, place] = tokens, number
                        start = place.stop
                        last[g, p, k] = row * length + start - 1
                    row += 1

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


def _by_group(batch: ComparisonBatch, groups: int) -> list[list[list[list[int]]]]:
    """Slots of the responses by group, prompt and row."""
    lengths = batch.response_valid.sum(axis=-1)
    length = batch.responses.shape[-1]
    prompts = []
    for row in lengths:
        slots = np.flatnonzero(row)
        bins = pack([int(row[k]) for k in slots], length)
        prompts.append([[int(slots[item]) for item in items] for items in bins])
    size = len(prompts) // groups
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]
