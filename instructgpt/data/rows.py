"""Rows of a source, each encoded once if all of them fit in memory."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from instructgpt.batches import PromptBatch, TokenBatch
from instructgpt.data.lengths import percentiles
from instructgpt.errors import UserError

Batch = Any  # a NamedTuple of instructgpt.batches
Encode = Callable[[Any], Batch]
Indices = Sequence[int] | np.ndarray
_CACHE_BYTES = 2 << 30  # the paper's 33k rankings of nine answers take 1.7 GB


class TooLongError(UserError):
    """A record is too long; encoders raise it, so that `Rows.that_fit` can drop it.

    Attributes:
      part: "prompt" or "response".
      length: its tokens.
    """

    def __init__(self, message: str, *, part: str = "", length: int = 0):
        super().__init__(message)
        self.part = part
        self.length = length


class Source(Protocol):
    """Anything with a length and random access to its rows."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Rows:
    """Encoded rows, which are cached if all of them fit in 2 GiB of memory.

    Attributes:
      blank: a row of the same shape without weight: all masks are False, and the
        index of a `PromptBatch` is -1.
      length: length T of `TokenBatch` rows, None for other rows.
    """

    def __init__(
        self,
        source: Source,
        encode: Encode | None,
        keep: Indices | None = None,
        *,
        encoded: Iterable[Batch] = (),
    ):
        """Reads the rows of a source.

        Args:
          source: Records, or rows if `encode` is None.
          encode: Turns a record into a row.
          keep: Numbers of the rows to use, None for all.
          encoded: The first of these rows, if they are encoded already.

        Raises:
          UserError: there is no row.
        """
        self._source = source
        self._encode = encode
        self._keep = None if keep is None else [int(index) for index in keep]
        self._num = len(source) if self._keep is None else len(self._keep)
        if not self._num:
            raise UserError("the source has no rows; give it some.")
        known = list(encoded)
        first = known[0] if known else self._read(0)
        self.blank = _blank(first)
        self.length = len(first.tokens) if isinstance(first, TokenBatch) else None
        # Rows without an encoder need no work, so caching them gains nothing.
        fits = encode is not None and _bytes(first) * self._num <= _CACHE_BYTES
        missing = [None] * (self._num - len(known))
        self._cache: list[Batch] | None = [*known, *missing] if fits else None

    @classmethod
    def that_fit(
        cls, source: Sequence[Any], encode: Encode, *, otherwise: str
    ) -> "Rows":
        """Encodes each record once, and leaves out those that are too long.

        Args:
          source: Records.
          encode: Turns a record into a row, or raises `TooLongError`.
          otherwise: Start of the error if no record fits; it goes on with how long
            they are and which limits to raise.

        Raises:
          UserError: no record fits.
        """
        keep: list[int] = []
        encoded: list[Batch] = []
        too_long: dict[str, list[int]] = {}
        for index, record in enumerate(source):
            try:
                row = _numbered(encode(record), index)
            except TooLongError as error:
                too_long.setdefault(error.part, []).append(error.length)
                continue
            keep.append(index)
            encoded.append(row)
            if _bytes(row) * len(keep) > _CACHE_BYTES:
                encoded.clear()
        if not keep:
            raise UserError(f"{otherwise}; {_how_long(too_long)}")
        return cls(source, encode, keep, encoded=encoded)

    @property
    def indices(self) -> list[int]:
        """The rows' numbers in the source."""
        return list(range(self._num)) if self._keep is None else self._keep

    def record(self, row: int) -> Any:
        """The record from which a row is encoded."""
        return self._source[row if self._keep is None else self._keep[row]]

    def first(self, count: int) -> "Rows":
        """The first `count` rows, or all if there are fewer."""
        known = [] if self._cache is None else self._cache[:count]
        encoded = itertools.takewhile(lambda row: row is not None, known)
        return Rows(self._source, self._encode, self.indices[:count], encoded=encoded)

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, row: int) -> Batch:
        if self._cache is None:
            return self._read(row)
        if self._cache[row] is None:
            self._cache[row] = self._read(row)
        return self._cache[row]

    def _read(self, row: int) -> Batch:
        record = self.record(row)
        encoded = record if self._encode is None else self._encode(record)
        return _numbered(encoded, row if self._keep is None else self._keep[row])


def _how_long(too_long: Mapping[str, Sequence[int]]) -> str:
    """Lengths of what is too long, and the limits that would keep most of it."""
    said = [
        f"{len(lengths)} {part}s are too long ({percentiles(lengths)}, in tokens):"
        f" raise config.data.max_{part}"
        for part, lengths in too_long.items()
        if part
    ]
    return "; ".join([*said, "or give shorter ones"])


def _numbered(row: Batch, index: int) -> Batch:
    return row._replace(index=np.int32(index)) if isinstance(row, PromptBatch) else row


def _bytes(row: Batch) -> int:
    return sum(np.asarray(field).nbytes for field in row)


def _blank(row: Batch) -> Batch:
    blank = type(row)(*(np.zeros_like(field) for field in row))
    if isinstance(blank, PromptBatch):
        return blank._replace(index=np.int32(-1))
    return blank


def stack(rows: Sequence[Batch]) -> Batch:
    """Stacks rows to a batch, whose fields have a leading axis of len(rows)."""
    return type(rows[0])(*(np.stack(fields) for fields in zip(*rows, strict=True)))
