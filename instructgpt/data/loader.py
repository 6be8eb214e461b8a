"""Batches of rows with Grain: shuffled, sharded by process, exactly resumable.

Grain defines the order: epochs of shuffled row numbers, divided into global batches. A
`Loader` reads its own process's rows of each batch. The order does not depend on the
number of processes, so a run may resume with another number of them.

Letters: B rows in a global batch, b = B / process_count rows in a local one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from instructgpt.data.documents import TokenWindows
from instructgpt.data.even_batches import even_batches
from instructgpt.data.rows import Batch, Encode, Rows, Source, stack
from instructgpt.errors import UserError

_PREFETCH = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)


class Loader(Iterator[Batch]):
    """An iterator of local batches whose position can be saved and restored.

    Attributes:
      steps_per_epoch: number of batches in one pass over the source.
      num_steps: total number of batches, None for no end.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Rows, grain.MapDataset]],
        *,
        identity: Mapping[str, Any],
        steps_per_epoch: int,
        num_epochs: int | None,
        process_index: int,
        process_count: int,
    ):
        """Joins the rows of `parts` into batches of B; use `make_loader`.

        A part has rows, and the row numbers of every batch, -1 for a blank row. A saved
        position is valid only for a loader with the same `identity`.
        """
        self.steps_per_epoch = steps_per_epoch
        self.num_steps = None if num_epochs is None else num_epochs * steps_per_epoch
        self._rows = [rows for rows, _ in parts]
        self._identity = dict(identity)
        self._process = (process_index, process_count)
        numbers = grain.experimental.ZipMapDataset([numbers for _, numbers in parts])
        self._batches = numbers.map(self._read).to_iter_dataset(_PREFETCH)
        self._iterator = iter(self._batches)

    def _read(self, numbers: tuple[np.ndarray, ...]) -> Batch:
        wanted = [
            (rows, number)
            for rows, part in zip(self._rows, numbers, strict=True)
            for number in part
        ]
        index, count = self._process
        size = len(wanted) // count
        local = wanted[index * size : (index + 1) * size]
        return stack([rows.blank if n < 0 else rows[n] for rows, n in local])

    def __next__(self) -> Batch:
        return next(self._iterator)

    def __len__(self) -> int:
        """Total number of batches.

        Raises:
          TypeError: the loader has no end.
        """
        if self.num_steps is None:
            raise TypeError("a loader with num_epochs=None has no end")
        return self.num_steps

    def whole_pass(self) -> Iterator[Batch]:
        """Yields all batches from the first; the loader's position does not change."""
        iterator = iter(self._batches)
        try:
            yield from iterator
        finally:
            iterator.close()

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch returned, as JSON values."""
        return {**self._identity, "position": self._iterator.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a position of `get_state`, of this or another process.

        Raises:
          UserError: the position belongs to another order of batches.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise UserError(
                    f"the saved data position belongs to {name}={state.get(name)!r},"
                    f" the run now has {name}={value!r}; set it back, or start in a"
                    " new workdir."
                )
        self._iterator.set_state(dict(state["position"]))

    def close(self) -> None:
        """Stops reading ahead."""
        self._iterator.close()


def _epochs(
    num_rows: int,
    batch_size: int,
    *,
    seed: int,
    num_epochs: int | None,
    shuffle: bool = True,
    drop_remainder: bool = True,
    sizes: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Row numbers int[batch_size] of every batch; each epoch has its own order."""
    if sizes is not None:
        even = even_batches(sizes, batch_size, seed=seed)
        order = grain.MapDataset.range(len(even)).seed(seed).shuffle()
        return order.map(lambda batch: even[batch]).repeat(num_epochs)

    def fill(numbers: Sequence[int]) -> np.ndarray:
        missing = batch_size - len(numbers)
        return np.pad(np.asarray(numbers), (0, missing), constant_values=-1)

    numbers = grain.MapDataset.range(num_rows).seed(seed)
    if shuffle:
        numbers = numbers.shuffle()
    batches = numbers.batch(batch_size, drop_remainder=drop_remainder, batch_fn=fill)
    return batches.repeat(num_epochs)


def _check_sizes(
    batch_size: int, num_epochs: int | None, process_index: int, process_count: int
) -> None:
    if num_epochs is not None and num_epochs < 1:
        raise UserError(f"num_epochs={num_epochs}: give 1 or more, or None for no end.")
    if not 0 <= process_index < process_count:
        raise UserError(
            f"process_index={process_index} of process_count={process_count}: count"
            " processes from 0."
        )
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size={batch_size} cannot be shared equally by {process_count}"
            f" processes; choose a multiple of {process_count}."
        )


def _check_fills_a_batch(rows: Rows, batch_size: int, what: str) -> None:
    if len(rows) < batch_size:
        raise UserError(
            f"{what} has {len(rows)} rows, fewer than the {batch_size} of one batch;"
            " lower config.train.batch_size or give more data: rows that config.data"
            " leaves out do not count."
        )


def make_loader(
    source: Source,
    encode: Encode | None,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    num_epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    drop_remainder: bool = True,
    sizes: Sequence[int] | None = None,
) -> Loader:
    """Builds a loader of batches of a source's encoded rows.

    Process p gets rows p*b to (p+1)*b of every global batch. In a `PromptBatch`,
    `index` becomes the row number in the source.

    Args:
      source: records, or rows if `encode` is None.
      encode: turns a record into a row; see `Rows`.
      batch_size: rows of a batch over all processes, B.
      seed: seed of the shuffles; each epoch has another order.
      shuffle: whether to shuffle; False keeps the source's order.
      num_epochs: number of passes over the source, None for no end.
      process_index: number of this process from 0, p.
      process_count: number of processes that share each batch.
      drop_remainder: True leaves out the rows of an epoch that do not fill a batch;
        False fills up the last batch with blank rows (masks False, index -1).
      sizes: sizes of the rows used, in any unit; the batches' totals are then similar
        (see `even_batches`). Requires shuffle and drop_remainder.

    Raises:
      UserError: batch_size is not a multiple of process_count, or there are fewer
        rows than one batch (or none, if drop_remainder is False).
      ValueError: sizes are not given for all rows, or without shuffle or
        drop_remainder.
    """
    _check_sizes(batch_size, num_epochs, process_index, process_count)
    rows = source if isinstance(source, Rows) else Rows(source, encode)
    if sizes is not None and not (shuffle and drop_remainder):
        raise ValueError("sizes go with shuffle=True and drop_remainder=True")
    if sizes is not None and len(sizes) != len(rows):
        raise ValueError(f"{len(sizes)} sizes of {len(rows)} rows")
    if drop_remainder:
        _check_fills_a_batch(rows, batch_size, "the source")
    numbers = _epochs(
        len(rows),
        batch_size,
        seed=seed,
        shuffle=shuffle,
        num_epochs=num_epochs,
        drop_remainder=drop_remainder,
        sizes=sizes,
    )
    whole, rest = divmod(len(rows), batch_size)
    identity = {
        "rows": len(rows),
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "drop_remainder": drop_remainder,
        "even": sizes is not None,
    }
    return Loader(
        [(rows, numbers)],
        identity=identity,
        steps_per_epoch=whole + (rest > 0 and not drop_remainder),
        num_epochs=num_epochs,
        process_index=process_index,
        process_count=process_count,
    )


class EvalBatches(Iterable[Batch]):
    """Batches that can be iterated repeatedly and are encoded only once."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        return self._loader.whole_pass()

    def __len__(self) -> int:
        return len(self._loader)


def eval_batches(
    source: Source,
    encode: Encode | None,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> EvalBatches:
    """Builds batches of all rows in order; blank rows fill up the last batch.

    A blank row has no weight: its `valid`, `loss_mask` and `present` are False and its
    `index` is -1.

    Raises:
      UserError: see `make_loader`.
    """
    loader = make_loader(
        source,
        encode,
        batch_size=batch_size,
        seed=0,
        shuffle=False,
        num_epochs=1,
        process_index=process_index,
        process_count=process_count,
        drop_remainder=False,
    )
    return EvalBatches(loader)


def mixed_rows(fraction: float, batch_size: int) -> int:
    """Number of rows of pretraining text in a batch: 3 of 32 for the paper's 10 %.

    Raises:
      UserError: with the fraction, text or demonstrations get no row.
    """
    rows = round(fraction * batch_size)
    if not 0 < rows < batch_size:
        raise UserError(
            f"fraction={fraction} of batch_size={batch_size} is {rows} rows of"
            " pretraining; both kinds need one row or more: change one of the two."
        )
    return rows


def make_mixed_loader(
    rows: Rows,
    pretraining: np.ndarray,
    *,
    fraction: float,
    batch_size: int,
    seed: int,
    num_epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Loader:
    """Builds a loader of demonstrations mixed with pretraining text (paper §3.5).

    Every batch has `mixed_rows` rows of pretraining text after its demonstrations. They
    are windows as long as a demonstration's row.

    Args:
      rows: the demonstrations' `TokenBatch` rows [T]; an epoch is a pass over them.
      pretraining: token ids [number of tokens], from `document_tokens`.
      fraction: share of pretraining rows, between 0 and 1.
      batch_size: rows of a batch over all processes, B.
      seed: seed of the shuffles.
      num_epochs: number of passes over the demonstrations, None for no end.
      process_index: number of this process from 0, p.
      process_count: number of processes that share each batch.

    Raises:
      UserError: see `make_loader` and `mixed_rows`.
    """
    _check_sizes(batch_size, num_epochs, process_index, process_count)
    if rows.length is None:
        raise TypeError("give TokenBatch rows")
    windows = Rows(TokenWindows(pretraining, rows.length), None)
    num_windows = mixed_rows(fraction, batch_size)
    num_demonstrations = batch_size - num_windows
    _check_fills_a_batch(rows, num_demonstrations, "the demonstrations' source")
    _check_fills_a_batch(windows, num_windows, "the pretraining text")
    numbers = _epochs(len(rows), num_demonstrations, seed=seed, num_epochs=num_epochs)
    # With the same seed, an equal number of windows would have the same order.
    other = _epochs(len(windows), num_windows, seed=seed + 1, num_epochs=None)
    if num_epochs is not None:
        other = other[: len(numbers)]
    identity = {
        "rows": len(rows),
        "windows": len(windows),
        "pretraining_rows": num_windows,
        "batch_size": batch_size,
        "seed": seed,
    }
    return Loader(
        [(rows, numbers), (windows, other)],
        identity=identity,
        steps_per_epoch=len(rows) // num_demonstrations,
        num_epochs=num_epochs,
        process_index=process_index,
        process_count=process_count,
    )


class ZippedLoader(Iterator[dict[str, Batch]]):
    """Several loaders read together, for example PPO's prompts and pretraining text."""

    def __init__(self, **loaders: Loader):
        self._loaders = loaders

    def __next__(self) -> dict[str, Batch]:
        return {name: next(loader) for name, loader in self._loaders.items()}

    def get_state(self) -> dict[str, Any]:
        return {name: loader.get_state() for name, loader in self._loaders.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name, loader in self._loaders.items():
            loader.set_state(state[name])

    def close(self) -> None:
        for loader in self._loaders.values():
            loader.close()


def zip_loaders(**loaders: Loader) -> ZippedLoader:
    """Joins loaders to one iterator of `{name: batch}`, as long as the shortest.

    Its state holds all of their states; the loaders must not be used otherwise.
    """
    return ZippedLoader(**loaders)
