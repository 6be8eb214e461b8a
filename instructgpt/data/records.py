"""What a record is: the fields of each kind, checks, and JSONL files of them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from instructgpt.data.files import parse_json_line, read_lines
from instructgpt.errors import UserError

Record = dict[str, Any]
SPLITS = ("train", "valid", "test")


class Field(NamedTuple):
    """A field of a record: str, list[str] or list[int]; no default: required."""

    type: Any
    default: str | tuple[()] | None = None


_TEXT, _OPTIONAL = Field(str), Field(str, "")
# Earlier turns of a dialogue, oldest first: user, assistant, user, assistant, ...; the
# prompt is the user's turn that follows. Empty for a plain prompt.
_HISTORY = Field(list[str], ())
_PROMPT = {
    "id": _OPTIONAL,
    "history": _HISTORY,
    "prompt": _TEXT,
    "customer": _OPTIONAL,
    "source": _OPTIONAL,  # who wrote it: customer or labeler
    "category": _OPTIONAL,
    "style": _OPTIONAL,
    "task": _OPTIONAL,  # JSON of the structured task, for the judge
}
FIELDS: dict[str, dict[str, Field]] = {
    "documents": {"id": _OPTIONAL, "text": _TEXT, "kind": _OPTIONAL},
    "demonstrations": {
        "id": _OPTIONAL,
        "history": _HISTORY,
        "prompt": _TEXT,
        "response": _TEXT,
        "customer": _OPTIONAL,
        "source": _OPTIONAL,
        "category": _OPTIONAL,
        "style": _OPTIONAL,
    },
    "prompts": _PROMPT,  # of PPO, and of the comparison of models
    "rm_prompts": _PROMPT,  # whose answers are ranked; without any, the prompts' are
    "comparisons": {
        "id": _OPTIONAL,
        "history": _HISTORY,
        "prompt": _TEXT,
        "responses": Field(list[str]),
        "ranks": Field(list[int]),  # 1 is best, equal ranks are a tie
        "labeler": _OPTIONAL,
        "customer": _OPTIONAL,
        "category": _OPTIONAL,
    },
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_TYPE_NAMES = {
    str: "text",
    list[str]: "a list of texts",
    list[int]: "a list of whole numbers",
}


def check_record(record: Any, *, kind: str, where: str, default_id: str) -> Record:
    """The record with defaults filled in and unknown fields left out.

    Args:
      record: what a JSONL line or a generator gave.
      kind: a key of `FIELDS`.
      where: place named at the start of an error message, for example "a.jsonl:3".
      default_id: the id, where the record has none.

    Raises:
      UserError: a field is missing, has the wrong type or an impossible value.
    """
    if not isinstance(record, dict):
        raise UserError(
            f"{where}: expected an object with the fields {', '.join(FIELDS[kind])};"
            f" found {type(record).__name__}."
        )
    whole: Record = {}
    for name, field in FIELDS[kind].items():
        value = record.get(name)
        if value is None:
            if field.default is None:
                raise UserError(
                    f"{where}: field {name!r} is missing; add it, as"
                    f" {_TYPE_NAMES[field.type]}."
                )
            value = list(field.default) if field.default == () else field.default
        elif not _has_type(value, field.type):
            raise UserError(
                f"{where}: field {name!r} must be {_TYPE_NAMES[field.type]},"
                f" found {value!r:.60}."
            )
        whole[name] = value
    whole["id"] = whole["id"] or default_id
    if len(whole.get("history", ())) % 2:
        raise UserError(
            f"{where}: {len(whole['history'])} earlier turns in 'history'; give pairs,"
            " the user's turn and the assistant's reply, and the last user's turn as"
            " 'prompt'."
        )
    if kind == "comparisons":
        _check_ranks(whole["responses"], whole["ranks"], where)
    return whole


def _has_type(value: Any, type_: Any) -> bool:
    if type_ is str:
        return isinstance(value, str) and _is_unicode(value)
    (element,) = get_args(type_)
    if element is str:
        return isinstance(value, list) and all(_has_type(v, str) for v in value)
    return isinstance(value, list) and all(type(v) is int for v in value)


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell but UTF-8 cannot."""
    return text.isascii() or not _SURROGATE.search(text)


def _check_ranks(responses: list[str], ranks: list[int], where: str) -> None:
    if len(responses) != len(ranks):
        raise UserError(
            f"{where}: {len(responses)} responses but {len(ranks)} ranks; give one"
            " rank to each response."
        )
    if len(responses) < 2:
        raise UserError(
            f"{where}: {len(responses)} responses; a comparison needs two or more."
        )
    # A permutation in which ties share a number: 1 1 2 and 1 1 3, but not 1 3 or 2 2.
    if not all(1 <= rank <= i for i, rank in enumerate(sorted(ranks), start=1)):
        raise UserError(
            f"{where}: ranks {ranks} are no ranking; number the responses from 1"
            " (best), give equal ones the same number and leave none out."
        )


def _check_not_empty(record: Record, where: str) -> None:
    for name in ("text", "history", "prompt", "response", "responses"):
        value = record.get(name)
        if value is None or (type(value) is str and value.strip()):
            continue
        if type(value) is str or not all(text.strip() for text in value):
            raise UserError(f"{where}: empty {name}; fill it in or remove the line.")


class Line(NamedTuple):
    """One line of a JSONL file, parsed but not checked."""

    where: str  # "PATH:NUMBER", for the start of an error message
    default_id: str  # "NAME:NUMBER", for a record that has none
    value: Any


def parse_lines(path: str | os.PathLike[str]) -> Iterator[Line]:
    """Lines of a file with one JSON value a line; blank lines are skipped.

    A name in .gz or .xz is unpacked on the way.

    Raises:
      UserError: "path:line: what is wrong; what to do" for text that is not UTF-8 or
        not JSON, or a truncated last line; or a file that cannot be read or has no
        lines.
    """
    name = Path(path).stem
    found = 0
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        found += 1
        yield Line(where, f"{name}:{number}", parse_json_line(line, where))
    if not found:
        raise UserError(f"{path}: no records; give one JSON object a line.")


def check_line(line: Line, kind: str) -> Record:
    """The line's record, as `check_record`; its texts must not be empty either.

    Raises:
      UserError: "path:line: what is wrong; what to do".
    """
    record = check_record(
        line.value, kind=kind, where=line.where, default_id=line.default_id
    )
    _check_not_empty(record, line.where)
    return record


def read_jsonl(path: str | os.PathLike[str], kind: str) -> Iterator[Record]:
    """Records of a file with one JSON object a line, read as by `parse_lines`.

    Optional fields get "" and an `id` of the form "NAME:LINE"; unknown fields are
    left out.

    Raises:
      UserError: "path:line: what is wrong; what to do" for text that is not UTF-8 or
        not JSON, a truncated last line, a missing field or one of the wrong type, an
        empty text, ranks that do not fit the responses; or a file that cannot be
        read or has no records.
    """
    check_kind(kind)
    for line in parse_lines(path):
        yield check_line(line, kind)


def check_kind(kind: str) -> None:
    """Raises UserError for a kind that `FIELDS` does not have."""
    if kind not in FIELDS:
        raise UserError(f"no kind of record {kind!r}; choose from {', '.join(FIELDS)}.")
