"""Reads the rows of a file of JSON, CSV or Parquet.

JSON is one value a line, a list, or an object that wraps one table: {"data": [row,
...]} or {"column": [cell, ...], ...}. Text files may be packed as .gz or .xz. All are
read in order; CSV, Parquet and JSON Lines in bounded memory.
"""

import csv
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from instructgpt.data.forms.chat import DIALOGUES
from instructgpt.data.origins.files import read_text_lines
from instructgpt.data.origins.json_values import JSONValue, json_values
from instructgpt.errors import UserError, shown
from instructgpt.file_kinds import HEAD

_PACKED = (".gz", ".xz")
_SEPARATORS = ",;\t"
_LONGEST_CELL = 1 << 30  # characters; the module's own limit is 131,072
_BATCH = 256  # rows of Parquet that are held at once
_ROLES = ("role", "from")
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The ending of a name that says its kind: ".csv" for "a.csv.gz"."""
    path = Path(path)
    if path.suffix in _PACKED:
        path = path.with_suffix("")
    return path.suffix.lower()


def table_rows(path: str | os.PathLike[str]) -> Generator[JSONValue, None, None]:
    """Yields the rows of a file with their places, in order.

    CSV is recognised by its name (.csv, .tsv), Parquet by its content. Cells of CSV
    are text, and an empty one is None.

    Raises:
      UserError: "PATH:LINE: what is wrong; what to do" for a file that cannot be read,
        is damaged, has no rows or is no table.
    """
    path = Path(path)
    read: Callable[[Path], Generator[JSONValue, None, None]] = _json_rows
    if _is_parquet(path):
        read = _parquet_rows
    elif suffix_of(path) in (".csv", ".tsv"):
        read = _csv_rows
    with closing(read(path)) as rows:
        yield from rows


def _is_parquet(path: Path) -> bool:
    """Whether the content is Parquet; pipes are not looked at.

    Raises:
      UserError: the name says Parquet, and the content does not.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False  # whoever reads it says so
    if head.startswith(b"PAR1"):
        return True
    # The reader of JSON says what a Git LFS pointer or a packed file is.
    if path.suffix.lower() == ".parquet" and not head.startswith(b"version https:"):
        raise UserError(
            f"{path}: is named as a Parquet table but does not begin as one; copy the"
            " file again, or give it the ending of its kind."
        )
    return False


def _parquet_rows(path: Path) -> Generator[JSONValue, None, None]:
    import pyarrow.parquet  # it takes a while, and most files are no Parquet

    found = False
    try:
        with pyarrow.parquet.ParquetFile(
            path, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
        ) as file:
            rows = itertools.chain.from_iterable(
                batch.to_pylist() for batch in file.iter_batches(batch_size=_BATCH)
            )
            for index, row in enumerate(rows):
                found = True
                yield JSONValue(f"{path}[{index}]", index, row)
    # Errors of the library are OSErrors, ValueErrors, or of both; a damaged table may
    # also ask for any amount of memory.
    except (OSError, ValueError, MemoryError, OverflowError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: is a Parquet table that is damaged or cannot be read"
            f" ({_short(error)}); copy the file again."
        ) from error
    if not found:
        raise UserError(f"{path}: is a Parquet table without rows; give another one.")


def _short(error: BaseException) -> str:
    """The first line of a library's message, without odd characters, cut."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _csv_rows(path: Path) -> Generator[JSONValue, None, None]:
    csv.field_size_limit(_LONGEST_CELL)
    lines = read_text_lines(path)
    first = next(lines, "")
    separator = max(_SEPARATORS, key=first.count)
    if suffix_of(path) == ".tsv":
        separator = "\t"
    cells = csv.reader(
        itertools.chain([first] if first else [], lines),
        delimiter=separator,
        strict=True,
    )
    names: list[str] = []
    found, start = False, 1
    try:
        for row in cells:
            where, start = f"{path}:{start}", cells.line_num + 1
            if not names:
                names = _header(row, where)
            elif row:  # a blank line has no cells
                found = True
                yield _csv_row(names, row, where)
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: not valid CSV ({error}); put double quotes around a cell"
            f" with line breaks, quotes or {separator!r}, and double the quotes inside."
        ) from error
    if not found:
        raise UserError(f"{path}: no rows; give a line of names, and a line a row.")


def _header(row: list[str], where: str) -> list[str]:
    names = [name.strip() for name in row]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        what = "has no name" if twice is None or not twice else f"{shown(twice)} twice"
        raise UserError(
            f"{where}: a column {what}; the first line of CSV names the columns."
        )
    return names


def _csv_row(names: list[str], row: list[str], where: str) -> JSONValue:
    if len(row) != len(names):
        raise UserError(
            f"{where}: {len(row)} cells, and {len(names)} columns in the first line;"
            " put double quotes around a cell that holds the separator."
        )
    values = {name: cell or None for name, cell in zip(names, row, strict=True)}
    return JSONValue(where, int(where.rpartition(":")[2]), values)


def _json_rows(path: Path) -> Generator[JSONValue, None, None]:
    with closing(json_values(path)) as values:
        first = next(values)
        inside = _wrapped(first.value)
        second = None if inside is None else next(values, None)
        if inside is None or second is not None:
            yield first
            if second is not None:
                yield second
            yield from values
            return
    for index, row in enumerate(inside):
        yield JSONValue(f"{path}[{index}]", index, row)


def _wrapped(value: Any) -> Iterator[Any] | list[Any] | None:
    """The rows of an object that is a table; None if it is a row."""
    if not isinstance(value, dict) or not value:
        return None
    data = value.get("data")
    if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        return data
    columns = list(value.values())
    if not all(isinstance(column, list) and column for column in columns):
        return None
    same_length = len({len(column) for column in columns}) == 1
    # A dialogue is a list of turns, and so no column.
    if not same_length or any(_is_turn(column[0]) for column in columns):
        return None
    if any(not isinstance(value.get(name, [[]])[0], list) for name in DIALOGUES):
        return None
    return [
        dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)
    ]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and any(role in value for role in _ROLES)
