"""Small files for the readers' tests, and where the real ones are."""

import gzip
import json
import lzma
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from instructgpt.data.readers import Report, read_file
from instructgpt.data.records import Record

_REPO = Path(__file__).resolve().parents[2]
_REAL = Path(os.environ.get("INSTRUCTGPT_SHARED_DATA", _REPO / "../shared/data"))
_OPEN = {".gz": gzip.open, ".xz": lzma.open}


def write(path: Path, *rows: object) -> Path:
    """One JSON value a line; packed if the name says so."""
    with _OPEN.get(path.suffix, open)(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def real_file(name: str) -> Path:
    """A real file or folder; the test is skipped where it is absent."""
    path = _REAL / name
    if not path.exists():
        pytest.skip(f"{path} is absent: set INSTRUCTGPT_SHARED_DATA to the real files")
    return path


class Outcome(NamedTuple):
    records: list[Record]
    skipped: dict[str, int]
    noted: dict[str, int]
    splits: list[str | None]


def read(name: str, path: Path, kind: str, **options: str) -> Outcome:
    """All that a file gives."""
    report = Report()
    found = list(read_file(name, path, kind=kind, report=report, options=options))
    return Outcome(
        [record for record, _ in found],
        dict(report.skipped),
        dict(report.noted),
        [split for _, split in found],
    )


def some(record: Record, *fields: str) -> dict:
    """The named fields of a record."""
    return {field: record[field] for field in fields}
