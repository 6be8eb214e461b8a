"""Reads JSON objects field by field, with errors that name the place in the file."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.origins.tables import table_rows
from instructgpt.errors import UserError, shown

_NAMES = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class Row(NamedTuple):
    """A JSON object of a file, or an object inside another one.

    A field that is null counts as missing. Every method raises UserError for a field of
    the wrong type, or a missing field without a default.

    Attributes:
      fields: the object.
      where: its place, for messages: "FILE:LINE" or "FILE[INDEX]", and the path of a
        part, as in "a.jsonl:3 prompt.replies[1]".
      id: "NAME:LINE" or "NAME:INDEX" of the outer object.
      is_part: whether it is inside another object.
    """

    fields: dict[str, Any]
    where: str
    id: str
    is_part: bool = False

    def has(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        return self._value(name, str, default)

    def name(self, name: str, default: str | None = None) -> str:
        """A name: text, or a whole number, which is converted to its digits."""
        if type(self.fields.get(name)) is int:
            return str(self.fields[name])
        return self.text(name, default)

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
        return Row(self._value(name, dict, None), self._inside(name), self.id, True)

    def rows(self, name: str, default: list | None = None) -> list["Row"]:
        """The objects of a list."""
        return [
            Row(value, self._inside(f"{name}[{index}]"), self.id, True)
            for index, value in enumerate(self.items(name, dict, default))
        ]

    def _inside(self, name: str) -> str:
        return f"{self.where}{'.' if self.is_part else ' '}{name}"

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
            f"{what} must be {_NAMES[type_]}, found {shown(value)}; give the file as it"
            " was published, or another that has this format."
        )


def json_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a file of any kind (`tables`).

    Raises:
      UserError: see `table_rows`; also for a value that is not an object.
    """
    name = path.name.split(".json")[0]
    with closing(table_rows(path)) as values:
        for where, number, value in values:
            yield _object(value, where, f"{name}:{number}")


def _object(value: Any, where: str, id_: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: expected an object, found {type(value).__name__}; give the file"
            " as it was published, or another that has this format."
        )
    return Row(value, where, id_)
