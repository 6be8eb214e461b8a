"""What a run reports: weighted means, `metrics.jsonl`, TensorBoard, a progress line.

A loss or metric is a pair (sum, weight); `mean_metrics` adds pairs over steps and
divides once, so padding and microbatches cannot bias the mean. Nothing here touches
a device: the caller fetches first.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
_NUMBER = re.compile(r"-?\d|–$|nan$|-?inf$")


def mean_metrics(
    steps: Iterable[Mapping[str, tuple[Any, Any]]],
) -> dict[str, float]:
    """Weighted mean of each metric over several steps.

    Args:
      steps: one `{name: (sum, weight)}` a step; sums and weights are scalars. A name
        may be missing in some steps.

    Returns:
      `{name: total sum / total weight}`, without those whose total weight is 0.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for step in steps:
        for name, (value, weight) in step.items():
            sums[name] = sums.get(name, 0.0) + float(value)
            weights[name] = weights.get(name, 0.0) + float(weight)
    return {name: sums[name] / weights[name] for name in sums if weights[name]}


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`, oldest first.

    Each is {"step": int, "time": seconds, name: float or None}. A last line cut short
    by a kill is left out.

    Raises:
      UserError: an earlier line is no such row.
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

    One writer a run: on several processes pass `enabled=jax.process_index() == 0`;
    a disabled writer does nothing.

    Raises:
      UserError: from all methods: there is no room for what is written, or it cannot be
        written.
    """

    def __init__(self, workdir: str | os.PathLike, *, enabled: bool = True):
        self._path = Path(workdir) / METRICS_FILE
        self._file: TextIO | None = None
        self._board: _Board | None = None
        self._purge_step: int | None = None
        self._enabled = enabled

    def checksum(self) -> str:
        """What stands for all lines so far; "" if there are none."""
        there = self._enabled and self._path.exists()
        return file_checksum(self._path) if there else ""

    def resume(self, step: int, *, checksum: str = "") -> None:
        """Forgets what was written after `step`, the one restored from a checkpoint.

        The file is replaced in one move, so a kill leaves the old or the new one.

        Args:
          step: 0 forgets all.
          checksum: What `checksum` was at that step, if it is known.

        Raises:
          UserError: the lines up to there are not those that were written.
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
        """Writes `{name: scalar}` for one step; not-finite numbers become null."""
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
        # Opened at the first write: a run that fails before it leaves no files.
        if self._file is None or self._board is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = _Board(self._path.parent, self._purge_step)
        return self._file, self._board


class _Board:
    """A file of TensorBoard's, written here and now.

    tensorboardX's own writer has a thread, which a full disk ends with a traceback, and
    a queue of multiprocessing's, which some machines do not have.
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
        if now - self._flushed > _FLUSH_SECONDS:  # for those who look while it runs
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


class Progress:
    """One line that says how far a stage is, how fast, and when it ends.

    On a terminal the line is rewritten in place; in a log file a line is added, at
    most once every `seconds`.

    Args:
      stage: name at the start of the line.
      total: number of steps of the whole stage.
      start: step to count the speed from (the restored one after a resume).
      seconds: least time between two lines; by default 0.2 on a terminal, else 10.
      stream: where to print, by default standard output, in order with the tables.
      clock: seconds as a float; replaced in tests.
      enabled: whether to print anything; for one process of several.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        *,
        start: int = 0,
        seconds: float | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        enabled: bool = True,
    ):
        self._stage = stage
        self._enabled = enabled
        self._total = total
        self._start = start
        self._stream = stream or sys.stdout
        self._clock = clock
        self._tty = self._stream.isatty()
        self._seconds = (0.2 if self._tty else 10.0) if seconds is None else seconds
        self._began = clock()
        self._last: float | None = None
        self._width = 0

    def update(
        self, step: int, metrics: Mapping[str, Any], *, tokens_per_second: float = 0.0
    ) -> None:
        """Prints the line for `step` (steps done so far) unless one was just printed.

        The last step is always printed. Metrics appear in the order given.
        """
        now = self._clock()
        if not self._enabled or (
            step < self._total
            and self._last is not None
            and now - self._last < self._seconds
        ):
            return
        self._last = now
        self._print(self._text(step, metrics, tokens_per_second, now))

    def close(self) -> None:
        """Leaves the cursor below the line."""
        if self._tty and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _text(
        self, step: int, metrics: Mapping[str, Any], speed: float, now: float
    ) -> str:
        digits = len(str(self._total))
        parts = [f"{self._stage:<10} {step:>{digits}}/{self._total}"]
        parts += [f"{name} {format_number(value)}" for name, value in metrics.items()]
        if speed:
            parts.append(f"{format_count(speed)} tokens/s")
        elapsed = now - self._began
        if step >= self._total:
            parts.append(f"took {format_duration(elapsed)}")
        elif step > self._start:
            left = elapsed / (step - self._start) * (self._total - step)
            parts.append(f"ETA {format_duration(left)}")
        return "  ".join(parts)

    def _print(self, text: str) -> None:
        if self._tty:
            # Blanks wipe what a longer line before this one left.
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def format_number(value: Any) -> str:
    """A number in short: 1.2346 -> "1.235", 64 -> "64", 3e-5 -> "3.00e-05"."""
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e5 or 0 < size < 1e-3:
        return f"{value:.2e}"
    if value == int(value) and size >= 1:
        return str(int(value))
    decimals = 3 if size < 10 else 2 if size < 100 else 1
    return f"{value:.{decimals}f}"


def format_count(value: float) -> str:
    """A count in short: 950 -> "950", 12345 -> "12.3k", 2.5e6 -> "2.5M"."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.1f}{unit}"
    return f"{value:.0f}"


def format_duration(seconds: float) -> str:
    """A time span: 42 -> "42s", 200 -> "3m20s", 7260 -> "2h01m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> str:
    """Aligned text table: words to the left, columns of numbers to the right.

    A cell is text, a number (written by `format_number`) or None ("–").

    Raises:
      ValueError: a row's length is not the number of columns.
    """
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"each row must have {len(columns)} values: {columns}")
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [
        all(_NUMBER.match(row[index]) for row in cells) for index in range(len(columns))
    ]
    widths = [
        max(len(column), *(len(row[index]) for row in cells), 0)
        for index, column in enumerate(columns)
    ]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(columns), rule, *map(line, cells)])


def print_table(
    rows: Sequence[Sequence[Any]],
    columns: Sequence[str],
    *,
    stream: TextIO | None = None,
) -> None:
    """Prints `format_table(rows, columns)`, on a terminal below a progress line."""
    stream = stream or sys.stdout
    if stream.isatty():
        stream.write("\n")
    print(format_table(rows, columns), file=stream, flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format_number(value)
