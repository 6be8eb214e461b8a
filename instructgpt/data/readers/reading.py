"""Reads one file of a public set as checked records."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.readers.report import Report
from instructgpt.data.readers.table import Reader, get_set
from instructgpt.data.records import (
    DistinctPrompts,
    Record,
    check_kind,
    check_record,
)
from instructgpt.errors import UserError, shown


class Found(NamedTuple):
    """A record, and the split that its row names; None if rows name none."""

    record: Record
    split: str | None


def read_file(
    name: str,
    path: Path,
    *,
    kind: str,
    report: Report,
    options: Mapping[str, str] | None = None,
) -> Iterator[Found]:
    """Yields records of one kind from a file; equal prompts only once.

    Args:
      name: a key of `SETS`.
      path: a file in that set's format.
      kind: a kind of records that the set has.
      report: counts records that are left out or need a decision.
      options: options of the set, for example {"lang": "en"}; those of the set's other
        readers are ignored.

    Raises:
      UserError: an unknown set, kind or option; or "FILE:LINE: what is wrong; what to
        do" for a file that is not in the set's format, or damaged.
    """
    reader = _reader(name, kind)
    accepted = _options(reader)
    _check_options(name, options or {})
    chosen = {k: v for k, v in (options or {}).items() if k in accepted}
    prompts = DistinctPrompts()
    for row in reader(path, report=report, **chosen):
        where = f"{path}, {_one_line(row['id'])}"
        record = check_record(row, kind=kind, where=where, default_id=row["id"])
        if kind == "prompts" and not prompts.is_new(record):
            report.skip("repeated prompt")
        else:
            yield Found(record, row.get("split"))


def _one_line(id_: str) -> str:
    """An id for a message; its repr if it has unusual characters."""
    return id_ if id_.isprintable() and len(id_) <= 60 else shown(id_)


def _reader(name: str, kind: str) -> Reader:
    check_kind(kind)
    entry = get_set(name)
    if kind not in entry.kinds:
        raise UserError(
            f"{name}: gives no {kind}, only {', '.join(entry.kinds)}; choose one of"
            " these or another set."
        )
    # A demonstration or a comparison without its responses is a prompt.
    sources = (kind, "demonstrations", "comparisons")
    return next(entry.readers[k] for k in sources if k in entry.readers)


def _options(reader: Reader) -> set[str]:
    return set(inspect.signature(reader).parameters) - {"path", "report", "kind"}


def _check_options(name: str, options: Mapping[str, str]) -> None:
    known = set().union(*map(_options, get_set(name).readers.values()))
    for option in options:
        if option not in known:
            raise UserError(
                f"{name}: no option {option!r}; it has"
                f" {', '.join(sorted(known)) or 'none'}."
            )
