"""Rows of a source, encoded one by one and cached in memory if they fit."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from instructgpt.batches import PromptBatch, TokenBatch
from instructgpt.errors import UserError

Batch = Any  # a NamedTuple of instructgpt.batches
Encode = Callable[[Any], Batch]
Indices = Sequence[int] | np.ndarray
_CACHE_BYTES = 1 << 30


class Source(Protocol):
    """Anything with a length and random access to its rows."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Rows:
    """Encoded rows, which are cached if all of them fit in 1 GiB of memory.

    Attributes:
      blank: a row of the same shape without weight: all masks are False, and the
        index of a `PromptBatch` is -1.
      length: length T of `TokenBatch` rows, None for other rows.
    """

    def __init__(
        self, source: Source, encode: Encode | None, keep: Indices | None = None
    ):
        self._source = source
        self._encode = encode
        self._keep = None if keep is None else [int(index) for index in keep]
        self._num = len(source) if self._keep is None else len(self._keep)
        if not self._num:
            raise UserError("the source has no rows; give it some.")
        first = self._read(0)
        self.blank = _blank(first)
        self.length = len(first.tokens) if isinstance(first, TokenBatch) else None
        row_bytes = sum(np.asarray(field).nbytes for field in first)
        # Rows without an encoder need no work, so caching them gains nothing.
        fits = encode is not None and row_bytes * self._num <= _CACHE_BYTES
        self._cache: list[Batch] | None = [None] * self._num if fits else None

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, row: int) -> Batch:
        if self._cache is None:
            return self._read(row)
        if self._cache[row] is None:
            self._cache[row] = self._read(row)
        return self._cache[row]

    def _read(self, row: int) -> Batch:
        index = row if self._keep is None else self._keep[row]
        record = self._source[index]
        encoded = record if self._encode is None else self._encode(record)
        if isinstance(encoded, PromptBatch):
            return encoded._replace(index=np.int32(index))
        return encoded


def _blank(row: Batch) -> Batch:
    blank = type(row)(*(np.zeros_like(field) for field in row))
    if isinstance(blank, PromptBatch):
        return blank._replace(index=np.int32(-1))
    return blank


def stack(rows: Sequence[Batch]) -> Batch:
    """Stacks rows to a batch, whose fields have a leading axis of len(rows)."""
    return type(rows[0])(*(np.stack(fields) for fields in zip(*rows, strict=True)))
