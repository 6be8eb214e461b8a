"""What a long computation has made so far, so that a killed one goes on from there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructgpt.distributed import first_then_others, is_first
from instructgpt.manifest import value_checksum
from instructgpt.outputs import new_file


class KeptRows:
    """Rows in order, in a folder of small files, each of which appears whole.

    A file holds what one call of `add` was given, under the number of its first row. A
    file that is damaged, or was made from something else, counts as missing: its rows,
    and all after them, are made again.

    Attributes:
      rows: All rows that there are so far, JSON values.
    """

    def __init__(self, folder: Path, made_from: Any):
        """Reads what is there.

        Args:
          folder: Of these rows alone; it need not exist. Whoever makes them deletes it
            once the whole is written elsewhere.
          made_from: A JSON value that tells these rows from others: all that they
            follow from.
        """
        self._folder = folder
        self._made_from = value_checksum(made_from)
        self.rows: list[Any] = first_then_others(self._read)

    def _read(self) -> list[Any]:
        rows: list[Any] = []
        while found := self._part(len(rows)):
            rows += found
        return rows

    def _part(self, start: int) -> list[Any]:
        """The rows of one file; none if they have to be made again."""
        try:
            value = json.loads(self._path(start).read_bytes())
            checksum = value.pop("checksum")
            whole = checksum == value_checksum(value)
            same = value["made_from"] == self._made_from
            return value["rows"] if whole and same else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def add(self, rows: Sequence[Any]) -> None:
        """Writes the next rows; all processes call this, and the first one writes."""
        value = {"made_from": self._made_from, "rows": list(rows)}
        value["checksum"] = value_checksum(value)
        if is_first():
            with new_file(self._path(len(self.rows))) as partial:
                partial.write_text(json.dumps(value), encoding="utf-8")
        self.rows += rows

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:08d}.json"
