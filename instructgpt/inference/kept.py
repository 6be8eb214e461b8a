"""Stores the rows of a long computation, so that it resumes after a kill."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructgpt.distributed import first_then_others, is_first
from instructgpt.manifest import value_checksum
from instructgpt.outputs import new_file


class KeptRows:
    """Rows in order, stored in a folder of small files that are written atomically.

    A file holds the rows of one call of `add`; its name is the number of its first row.
    A file that is damaged or was made from something else counts as missing: its rows
    and all later ones must be made again.

    Attributes:
      rows: All rows so far, JSON values.
    """

    def __init__(self, folder: str | os.PathLike[str], made_from: Any):
        """Reads the rows that the folder holds.

        Args:
          folder: A folder for these rows only, which need not exist. The caller deletes
            it after writing the complete result elsewhere.
          made_from: A JSON value of everything that determines the rows.
        """
        self._folder = Path(folder)
        self._made_from = value_checksum(made_from)
        self.rows: list[Any] = first_then_others(self._read)

    def _read(self) -> list[Any]:
        rows: list[Any] = []
        while found := self._part(len(rows)):
            rows += found
        return rows

    def _part(self, start: int) -> list[Any]:
        """The rows of one file; empty if they must be made again."""
        try:
            value = json.loads(self._path(start).read_bytes())
            checksum = value.pop("checksum")
            whole = checksum == value_checksum(value)
            same = value["made_from"] == self._made_from
            return value["rows"] if whole and same else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def add(self, rows: Sequence[Any]) -> None:
        """Writes the next rows; all processes must call this, and process 0 writes."""
        value = {"made_from": self._made_from, "rows": list(rows)}
        value["checksum"] = value_checksum(value)
        if is_first():
            with new_file(self._path(len(self.rows))) as partial:
                partial.write_text(json.dumps(value), encoding="utf-8")
        self.rows += rows

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:08d}.json"
