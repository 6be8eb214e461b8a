"""JSON objects of a file, read field by field with errors that name the place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.files import parse_json_line, read_lines
from instructgpt.errors import UserError

_NAMES = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class Row(NamedTuple):
    """A JSON object, whole or a part of a larger one.

    A field that is null counts as missing. Every method raises UserError for a field
    that is missing and has no default, or has another type.

    Attributes:
      fields: the object.
      where: its place, for messages: "FILE:LINE" or "FILE[INDEX]", and the path of a
        part, as in "a.jsonl:3 prompt.replies[1]".
      id: "NAME:LINE" or "NAME:INDEX" of the whole.
    """

    fields: dict[str, Any]
    where: str
    id: str

    def has(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        return self._value(name, str, default)

    def number(self, name: str) -> int:
        return self._value(name, int, None)

    def flag(self, name: str, default: bool) -> bool:
        return self._value(name, bool, default)

    def items(self, name: str, type_: type, default: list | None = None) -> list:
        """A list whose elements have one type."""
        values = self._value(name, list, default)
        for index, value in enumerate(values):
            _check_type(value, type_, f"{self.where}: {name}[{index}]")
        return values

    def row(self, name: str) -> "Row":
        """The object in a field."""
        return Row(self._value(name, dict, None), self._inside(name), self.id)

    def rows(self, name: str, default: list | None = None) -> list["Row"]:
        """The objects of a list."""
        return [
            Row(value, self._inside(f"{name}[{index}]"), self.id)
            for index, value in enumerate(self.items(name, dict, default))
        ]

    def _inside(self, name: str) -> str:
        # The first blank parts the file from the path inside the object.
        return f"{self.where}{'.' if ' ' in self.where else ' '}{name}"

    def _value(self, name: str, type_: type, default: Any) -> Any:
        value = self.fields.get(name)
        if value is None:
            if default is None:
                raise UserError(
                    f"{self.where}: field {name!r} is missing; give the file as it was"
                    " published, or another that has this format."
                )
            return default
        _check_type(value, type_, f"{self.where}: field {name!r}")
        return value


def _check_type(value: Any, type_: type, what: str) -> None:
    if type(value) is not type_:
        raise UserError(
            f"{what} must be {_NAMES[type_]}, found {value!r:.60}; give the file as it"
            " was published, or another that has this format."
        )


def json_rows(path: Path) -> Iterator[Row]:
    """Objects of a file that has one a line, or one list of all.

    Raises:
      UserError: as `read_lines`; text that is not JSON or not an object; no object.
    """
    lines = enumerate(read_lines(path), start=1)
    name = path.name.split(".json")[0]
    found = False
    for number, line in lines:
        if not line.strip():
            continue
        if not found and line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            whole = b"".join([line, *(rest for _, rest in lines)])
            for index, value in enumerate(_parse_list(whole, path, number)):
                found = True
                yield _object(value, f"{path}[{index}]", f"{name}:{index}")
            break
        found = True
        where = f"{path}:{number}"
        yield _object(parse_json_line(line, where), where, f"{name}:{number}")
    if not found:
        raise UserError(f"{path}: no records; give one JSON object a line, or a list.")


def _parse_list(text: bytes, path: Path, first_line: int) -> list[Any]:
    try:
        values: list[Any] = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = first_line + text.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{first_line + error.lineno - 1}: not valid JSON ({error.msg});"
            " copy the file again or correct it."
        ) from error
    return values


def _object(value: Any, where: str, id_: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: expected an object, found {type(value).__name__}; give the file"
            " as it was published, or another that has this format."
        )
    return Row(value, where, id_)
