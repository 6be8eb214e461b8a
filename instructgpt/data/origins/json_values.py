"""Reads JSON values from a file: one per line, a list, or over several lines."""

import json
import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.origins.files import read_lines
from instructgpt.errors import UserError, shown

_MARK = b"\xef\xbb\xbf"
_BLANKS = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


class JSONValue(NamedTuple):
    """A value and its place in the file.

    Attributes:
      where: "PATH:LINE", or "PATH[INDEX]" in a list, for the start of a message.
      number: the line or the index.
      value: not checked.
    """

    where: str
    number: int
    value: Any


def json_values(path: str | os.PathLike[str]) -> Generator[JSONValue, None, None]:
    """Yields the values of a file in order; blank lines are skipped.

    A file with one value per line is read line by line. A file that is a single list,
    or whose first value continues in the next line (pretty-printed), is read as a
    whole.

    Raises:
      UserError: "PATH:LINE: what is wrong; what to do" for text that is not UTF-8 or
        not JSON, or a file without values; see also `read_lines`.
    """
    with closing(read_lines(path)) as lines:
        yield from _values(enumerate(lines, start=1), Path(path))


def _values(lines: Iterator[tuple[int, bytes]], path: Path) -> Iterator[JSONValue]:
    found = False
    for number, line in lines:
        text = line if number > 1 else line.removeprefix(_MARK)
        if not text.strip():
            continue
        where = f"{path}:{number}"
        if not found and _goes_on(text):
            rest = b"".join(more for _, more in lines)
            yield from _whole(text, rest, path, number)
            return
        value = _parse_line(text, where, first=not found)
        found = True
        yield JSONValue(where, number, value)
    if not found:
        raise _nothing(path)


def _nothing(path: Path) -> UserError:
    return UserError(f"{path}: no records; give one JSON object a line, or a list.")


def _goes_on(line: bytes) -> bool:
    """Whether a file that begins with this line must be read as a whole."""
    if line.lstrip().startswith(b"["):
        return True
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line.endswith(b"\n") and error.pos >= len(error.doc.rstrip())
    except (ValueError, RecursionError):
        return False
    return False


def _whole(first: bytes, rest: bytes, path: Path, number: int) -> Iterator[JSONValue]:
    """Values of a file's text; the first line with text is line `number`."""
    text = _text(first + rest, path, number)
    values: list[JSONValue] = []
    start, end, line = 0, 0, number
    while (position := _after_blanks(text, end)) < len(text):
        line += text.count("\n", start, position)
        start = position
        try:
            value, end = _decode(text, position)
        except (ValueError, RecursionError) as error:
            if first.lstrip().startswith(b"{") and rest.lstrip().startswith(b"{"):
                # The file has one value per line, and the first is incomplete.
                _parse_line(first, f"{path}:{number}", first=True)
            if isinstance(error, json.JSONDecodeError):
                line = number + error.lineno - 1
            raise UserError(
                f"{path}:{line}: {_problem(text, error)}; copy the file again or"
                " correct it."
            ) from error
        values.append(JSONValue(f"{path}:{line}", line, value))
    if len(values) == 1 and isinstance(values[0].value, list):
        items = values[0].value
        values = [JSONValue(f"{path}[{i}]", i, item) for i, item in enumerate(items)]
        if not values:
            raise _nothing(path)
    yield from values


def _after_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    assert found is not None  # the pattern also matches an empty text
    return found.end()


def _text(whole: bytes, path: Path, number: int) -> str:
    try:
        return whole.decode()
    except UnicodeDecodeError as error:
        line = number + whole.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8."
        ) from error


def _parse_line(line: bytes, where: str, *, first: bool) -> Any:
    """The value of a line; the first line's error may name the kind of the file."""
    cut_off = not line.endswith(b"\n")
    try:
        return json.loads(line.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        problem, remedy = f"not UTF-8 ({error.reason})", "save the file as UTF-8"
    except (ValueError, RecursionError) as error:
        text = line.decode()
        other = _other_form(text) if first else ""
        if other:
            raise UserError(f"{where}: not JSON but {other}.") from error
        problem, remedy = _problem(text, error), "correct or remove the line"
    if cut_off:
        problem += "; the file ends in the middle of this line"
        remedy = "copy the file again or remove the line"
    raise UserError(f"{where}: {problem}; {remedy}.")


def _problem(text: str, error: Exception) -> str:
    reason = str(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg}, column {error.colno}"
    if re.match(r"[\s\[]*{\s*'", text):
        reason += "; this is how Python writes a dict, which json.dumps writes as JSON"
    return f"not valid JSON ({reason})"


def _other_form(text: str) -> str:
    """Kind of a file whose first line is not JSON, with advice; "" if unknown."""
    start = text.strip()[:1000]
    if start.startswith(("{", "[")):
        return ""
    if re.match(r"<(!DOCTYPE|html|head|\?xml)", start, re.IGNORECASE):
        return "a web page or XML; download the file itself, or write JSON Lines"
    if re.fullmatch(r"[^][{}<>:,;\t]+([,;\t][^][{}<>:,;\t]*)+", start):
        return "a table with separators (CSV, TSV); end its name in .csv or .tsv"
    return f"other text, which begins {shown(start[:40])}; give one JSON object a line"
