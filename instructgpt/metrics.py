"""Metrics of a run: weighted means, `metrics.jsonl` and TensorBoard files.

A loss or metric is a pair (sum, weight); `mean_metrics` adds pairs over steps and
divides once, so padding and microbatches cannot bias the mean. This module works on
the host: the caller fetches values from devices first.
"""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from instructgpt.errors import UserError
from instructgpt.manifest import file_checksum
from instructgpt.outputs import new_file, writing

METRICS_FILE = "metrics.jsonl"
_FLUSH_SECONDS = 30.0


def mean_metrics(
    steps: Iterable[Mapping[str, tuple[Any, Any]]],
) -> dict[str, float]:
    """Weighted mean of each metric over several steps.

    Args:
      steps: One `{name: (sum, weight)}` per step; sums and weights are scalars. A name
        may be missing in some steps.

    Returns:
      `{name: total sum / total weight}`, without names whose total weight is 0.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for step in steps:
        for name, (value, weight) in step.items():
            sums[name] = sums.get(name, 0.0) + float(value)
            weights[name] = weights.get(name, 0.0) + float(weight)
    return {name: sums[name] / weights[name] for name in sums if weights[name]}


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a `metrics.jsonl`, oldest first.

    A row is {"step": int, "time": seconds, name: float or None}. A last line that was
    cut short by a kill is left out.

    Raises:
      UserError: an earlier line is not such a row.
    """
    rows = []
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}: not JSON with a step; delete the line"
            ) from error
    return rows


class MetricWriter:
    """Appends scalars to `<workdir>/metrics.jsonl` and to TensorBoard files beside it.

    A run has one writer: on several processes pass `enabled=jax.process_index() == 0`.
    A disabled writer does nothing.

    Raises:
      UserError: from all methods, if the disk is full or the files cannot be written.
    """

    def __init__(self, workdir: str | os.PathLike, *, enabled: bool = True):
        self._path = Path(workdir) / METRICS_FILE
        self._file: TextIO | None = None
        self._board: _Board | None = None
        self._purge_step: int | None = None
        self._enabled = enabled

    def checksum(self) -> str:
        """Checksum of all lines so far; "" if there are none."""
        there = self._enabled and self._path.exists()
        return file_checksum(self._path) if there else ""

    def resume(self, step: int, *, checksum: str = "") -> None:
        """Removes what was written after `step`, the step of the restored checkpoint.

        The file is replaced atomically, so a kill leaves the old or the new one.

        Args:
          step: The last step to keep; 0 removes all.
          checksum: The value of `checksum` at that step, if it is known.

        Raises:
          UserError: the lines up to that step are not the lines that were written.
        """
        if not self._enabled:
            return
        self.close()
        self._purge_step = step + 1
        if not self._path.exists():
            return
        kept = [row for row in read_metrics(self._path) if row["step"] <= step]
        text = "".join(map(_line, kept)).encode()
        if checksum not in ("", hashlib.sha256(text).hexdigest()):
            raise UserError(
                f"{self._path} is damaged, or was changed by hand; delete it to go on "
                "without the lines so far"
            )
        if text != self._path.read_bytes():
            with new_file(self._path) as partial:
                partial.write_bytes(text)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes `{name: scalar}` for one step; NaN and infinity become null."""
        if not self._enabled:
            return
        scalars = {name: float(value) for name, value in metrics.items()}
        with writing(self._path):
            file, board = self._open()
            file.write(_line({"step": int(step), "time": time.time(), **scalars}))
            file.flush()
            for name, value in scalars.items():
                board.add(summary.scalar(name, value), int(step))

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds a picture, uint8[height, width, 3], to TensorBoard only."""
        if self._enabled:
            with writing(self._path):
                board = self._open()[1]
                board.add(summary.image(name, image, dataformats="HWC"), int(step))

    def close(self) -> None:
        """Flushes and closes the files; a later `write` opens them again."""
        file, board, self._file, self._board = self._file, self._board, None, None
        with writing(self._path), contextlib.ExitStack() as stack:
            if file:
                stack.callback(file.close)
            if board:
                stack.callback(board.close)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> "tuple[TextIO, _Board]":
        # Opened at the first write, so that a run that fails earlier leaves no files.
        if self._file is None or self._board is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = _Board(self._path.parent, self._purge_step)
        return self._file, self._board


class _Board:
    """A TensorBoard file that is written synchronously.

    tensorboardX's own writer has a thread, which fails with a traceback on a full disk,
    and a multiprocessing queue, which some machines do not support.
    """

    def __init__(self, folder: Path, purge_step: int | None):
        self._events = EventsWriter(str(folder / "events"))
        self._flushed = 0.0
        if purge_step is not None:  # TensorBoard forgets that step and all later ones
            start = SessionLog(status=SessionLog.START)
            for value in (dict(file_version="brain.Event:2"), dict(session_log=start)):
                self._events.write_event(Event(step=purge_step, **value))

    def add(self, value: Any, step: int) -> None:
        """Appends a summary of tensorboardX."""
        now = time.time()
        self._events.write_event(Event(summary=value, step=step, wall_time=now))
        if now - self._flushed > _FLUSH_SECONDS:  # lets users follow a run
            self._events.flush()
            self._flushed = now

    def close(self) -> None:
        """Flushes and closes the file."""
        self._events.close()


def _line(row: Mapping[str, Any]) -> str:
    # JSON has no NaN or infinity; null keeps the file readable by every parser.
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(clean) + "\n"
