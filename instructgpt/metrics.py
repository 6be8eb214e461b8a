"""Metrics of a run: weighted means, `metrics.jsonl`, and what is passed to trackers.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from instructgpt import trackers
from instructgpt.errors import UserError
from instructgpt.manifest import file_checksum
from instructgpt.outputs import new_file, writing
from instructgpt.trackers import RunInfo, Tracker

METRICS_FILE = "metrics.jsonl"


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
    """Appends scalars to `<workdir>/metrics.jsonl` and passes them to trackers.

    A run has one writer: on several processes pass `enabled=jax.process_index() == 0`.
    A disabled writer does nothing. Files and trackers are opened at the first write, so
    that a run that fails earlier leaves nothing.

    Args:
      workdir: Folder of the run.
      names: Names of the trackers, as `find_trackers` takes them.
      run: What the trackers are told of the run.
      enabled: Whether anything is written.

    Raises:
      UserError: from all methods, if the disk is full, the files cannot be written, or
        a tracker cannot be used.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        names: str = trackers.DEFAULT,
        run: RunInfo | None = None,
        enabled: bool = True,
    ):
        self._path = Path(workdir) / METRICS_FILE
        self._makers = trackers.find_trackers(names, where="config.trackers")
        self._run = run or RunInfo()
        self._file: TextIO | None = None
        self._trackers: list[Tracker] | None = None
        self._start: int | None = None
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
        self._start = step + 1
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
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8")
            self._file.write(_line({"step": int(step), "time": time.time(), **scalars}))
            self._file.flush()
        self._pass_on(lambda tracker: tracker.scalars(int(step), scalars))

    def show_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Passes numbers to the trackers only, as another file has them."""
        self._pass_on(lambda tracker: tracker.scalars(step, scalars))

    def show_table(
        self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence]
    ) -> None:
        """Passes a table of texts, a cell per column in each row, to the trackers."""
        self._pass_on(lambda tracker: tracker.table(step, name, columns, rows))

    def show_figure(self, step: int, name: str, png: bytes) -> None:
        """Passes a picture, the content of a PNG file, to the trackers."""
        self._pass_on(lambda tracker: tracker.figure(step, name, png))

    def close(self, *, finished: bool = False) -> None:
        """Flushes and closes everything; a later write opens it again.

        Args:
          finished: Whether the run came to its end, for the trackers.
        """
        file, showing, self._file, self._trackers = (
            *(self._file, self._trackers or ()),
            *(None, None),
        )
        with writing(self._path), contextlib.ExitStack() as stack:
            if file:
                stack.callback(file.close)
            for tracker in showing:
                stack.callback(tracker.close, finished=finished)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(finished=error is None)

    def _pass_on(self, show: Callable[[Tracker], None]) -> None:
        if not self._enabled:
            return
        with writing(self._path):
            if self._trackers is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._trackers = []
                for make in self._makers.values():
                    made = make(self._path.parent, self._run, start=self._start)
                    self._trackers.append(made)
            for tracker in self._trackers:
                show(tracker)


def _line(row: Mapping[str, Any]) -> str:
    # JSON has no NaN or infinity; null keeps the file readable by every parser.
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(clean) + "\n"
