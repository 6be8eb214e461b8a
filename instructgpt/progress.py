"""Output on the terminal: a line of progress, formatted numbers, tables."""

import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

_NUMBER = re.compile(r"-?\d|–$|nan$|-?inf$")


class Progress:
    """A line that shows how far a stage is, its speed, and when it will end.

    On a terminal the line is rewritten in place; in a log file a line is added, at
    most once every `seconds`.

    Args:
      stage: Name at the start of the line.
      total: Number of steps of the whole stage.
      start: Step from which the speed is measured (the restored one after a resume).
      seconds: Least time between two lines; by default 0.2 on a terminal, else 10.
      stream: Stream to print to, by default standard output, like the tables.
      clock: Returns seconds as a float; replaced in tests.
      enabled: Whether to print; True on one of several processes.
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
            # Blanks overwrite the rest of a longer line before this one.
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def format_number(value: Any) -> str:
    """Formats a number: 1.2346 -> "1.235", 64 -> "64", 3e-5 -> "3.00e-05"."""
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
    """Formats a count: 950 -> "950", 12345 -> "12.3k", 2.5e6 -> "2.5M"."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.1f}{unit}"
    return f"{value:.0f}"


def format_duration(seconds: float) -> str:
    """Formats a time in seconds: 42 -> "42s", 200 -> "3m20s", 7260 -> "2h01m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> str:
    """Formats an aligned table: words to the left, columns of numbers to the right.

    A cell is text, a number (formatted by `format_number`) or None ("–").

    Raises:
      ValueError: the length of a row is not the number of columns.
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
    """Prints `format_table(rows, columns)`, below a progress line on a terminal."""
    stream = stream or sys.stdout
    if stream.isatty():
        stream.write("\n")
    print(format_table(rows, columns), file=stream, flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format_number(value)
