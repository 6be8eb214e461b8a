"""Reads rows of any known form as checked records, and counts those left out."""

from collections.abc import Iterable, Iterator, Mapping

from instructgpt.data.forms import TARGETS, rename
from instructgpt.data.forms.rows import LeftOutError, Line
from instructgpt.data.readers.report import Report
from instructgpt.data.records import (
    DistinctPrompts,
    Record,
    check_kind,
    check_line,
    record_lines,
)
from instructgpt.errors import UserError


def read_rows(
    lines: Iterable[Line],
    *,
    kind: str,
    report: Report,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Yields records of one kind from rows; equal prompts only once.

    Args:
      lines: Rows with their places.
      kind: Kind of records to make.
      report: Counts rows that are left out or need a decision.
      columns: Names of the rows' columns by the names that are known here, for
        example {"prompt": "question"}.

    Raises:
      UserError: "PLACE: what is wrong; what to do" for a row of an unknown form, or a
        damaged file.
    """
    check_kind(kind)
    check_columns(columns or {})
    renamed = (
        line._replace(value=rename(line.value, columns or {}, where=line.where))
        for line in lines
    )
    prompts = DistinctPrompts()
    for line in record_lines(renamed, kind):
        try:
            record = check_line(line, kind, note=report.note)
        except LeftOutError as error:
            report.skip(error.reason)
            continue
        if kind == "prompts" and not prompts.is_new(record):
            report.skip("repeated prompt")
        else:
            yield record


def check_columns(columns: Mapping[str, str]) -> None:
    """Raises UserError for a name that no form has."""
    for target, column in columns.items():
        if target not in TARGETS:
            raise UserError(
                f"--columns={target}={column}: {target!r} is not known here; give"
                f" NAME=COLUMN with one of {', '.join(TARGETS)} as NAME."
            )
