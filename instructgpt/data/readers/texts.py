"""Documents from plain text: articles under headings, files, or paragraphs."""

import re
from collections.abc import Iterator
from pathlib import Path

from instructgpt.data.origins.files import read_text_lines
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record
from instructgpt.errors import UserError

_TITLE = re.compile(r" = (?!=)(.*[^= ]) = ")  # " = = " opens a section


def wikitext(path: Path, *, report: Report) -> Iterator[Record]:
    """Yields articles of a WikiText file with their title lines (Merity et al. 2016).

    A title is between blank lines, unlike formulas that look like titles.
    """
    article: list[str] = []
    start, blank_before, found = 1, True, False
    lines = _with_next(read_text_lines(path))
    for number, (line, following) in enumerate(lines, start=1):
        is_title = _TITLE.fullmatch(line.rstrip("\n")) and not following.strip()
        if is_title and blank_before:
            if found:
                yield _document(article, f"{_stem(path)}:{start}")
            elif any(part.strip() for part in article):
                report.skip("text before the first title")
            article, start, found = [], number, True
        article.append(line)
        blank_before = not line.strip()
    if not found:
        raise UserError(
            f"{path}: no title of the form ' = TITLE = '; give a WikiText file as it"
            " was published, or use plain_text."
        )
    yield _document(article, f"{_stem(path)}:{start}")


def plain_text(path: Path, *, report: Report, per: str = "file") -> Iterator[Record]:
    """Yields text unchanged, except for blanks around it.

    Args:
      path: the file.
      report: counts empty files.
      per: "file" for one document, "block" for one document per block between blank
        lines.

    Raises:
      UserError: an unknown `per`, or a file that cannot be read.
    """
    if per not in ("file", "block"):
        raise UserError(f"plain_text: per={per!r}; choose 'file' or 'block'.")
    block: list[str] = []
    start, found = 1, False
    for number, line in enumerate(read_text_lines(path), start=1):
        if per == "block" and not line.strip():
            if block:
                found = True
                yield _document(block, f"{_stem(path)}:{start}")
            block, start = [], number + 1
        else:
            block.append(line)
    if any(line.strip() for line in block):
        yield _document(block, f"{_stem(path)}:{start}")
    elif not found:
        report.skip("empty file")


def _document(lines: list[str], id_: str) -> Record:
    return {"id": id_, "text": "".join(lines).strip()}


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _with_next(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Yields each line with the next line, which is "" after the last."""
    previous = next(lines, None)
    for line in lines:
        assert previous is not None
        yield previous, line
        previous = line
    if previous is not None:
        yield previous, ""
