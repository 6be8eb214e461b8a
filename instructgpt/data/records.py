"""What a record is: the fields of each kind, checks, and JSONL files of them."""

import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, get_args

from instructgpt.data.chat_forms import plain_form
from instructgpt.data.json_values import json_values
from instructgpt.errors import UserError, shown

Record = dict[str, Any]
SPLITS = ("train", "valid", "test")


class Field(NamedTuple):
    """A field of a record: str, list[str] or list[int]; no default: required.

    Attributes:
      type: what the value is.
      default: where there is none.
      names: whether it only names something, so that a whole number is as good: its
        decimal digits are the text.
    """

    type: Any
    default: str | tuple[()] | None = None
    names: bool = False


_TEXT, _NAME = Field(str), Field(str, "", names=True)
# Earlier turns of a dialogue, oldest first: user, assistant, user, assistant, ...; the
# prompt is the user's turn that follows. Empty for a plain prompt.
_HISTORY = Field(list[str], ())
_PROMPT = {
    "id": _NAME,
    "history": _HISTORY,
    "prompt": _TEXT,
    "customer": _NAME,
    "source": _NAME,  # who wrote it: customer or labeler
    "category": _NAME,
    "style": _NAME,
    "task": Field(str, ""),  # JSON of the structured task, for the judge
    # What a Python reward, an evaluator or a judge compares an answer with.
    "reference": Field(str, ""),
}
FIELDS: dict[str, dict[str, Field]] = {
    "documents": {"id": _NAME, "text": _TEXT, "kind": _NAME},
    "demonstrations": {
        "id": _NAME,
        "history": _HISTORY,
        "prompt": _TEXT,
        "response": _TEXT,
        "customer": _NAME,
        "source": _NAME,
        "category": _NAME,
        "style": _NAME,
    },
    "prompts": _PROMPT,  # of PPO, and of the comparison of models
    "rm_prompts": _PROMPT,  # whose answers are ranked; without any, the prompts' are
    "comparisons": {
        "id": _NAME,
        "history": _HISTORY,
        "prompt": _TEXT,
        "responses": Field(list[str]),
        "ranks": Field(list[int]),  # 1 is best, equal ranks are a tie
        "labeler": _NAME,
        "customer": _NAME,
        "category": _NAME,
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
        elif field.names and type(value) is int:
            value = str(value)
        elif not _has_type(value, field.type):
            raise UserError(
                f"{where}: field {name!r} must be {_TYPE_NAMES[field.type]},"
                f" found {shown(value)}."
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
            f"{where}: ranks {shown(ranks)} are no ranking; number the responses from 1"
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
    """One value of a file of records, parsed but not checked."""

    where: str  # "PATH:LINE" or "PATH[INDEX]", for the start of an error message
    default_id: str  # "NAME:LINE" or "NAME:INDEX", for a record that has none
    value: Any


def parse_lines(path: str | os.PathLike[str]) -> Generator[Line, None, None]:
    """Values of a file with one JSON value a line, or one list of all.

    A name in .gz or .xz is unpacked on the way.

    Raises:
      UserError: as `json_values`.
    """
    name = Path(path).stem
    with closing(json_values(path)) as values:
        for where, number, value in values:
            yield Line(where, f"{name}:{number}", value)


def check_line(line: Line, kind: str) -> Record:
    """The line's record, as `check_record`; its texts must not be empty either.

    A dialogue or a preference in a form of others becomes ours (`chat_forms`).

    Raises:
      UserError: "path:line: what is wrong; what to do".
    """
    value = plain_form(line.value, kind=kind, where=line.where)
    record = check_record(
        value, kind=kind, where=line.where, default_id=line.default_id
    )
    _check_not_empty(record, line.where)
    return record


def read_jsonl(path: str | os.PathLike[str], kind: str) -> Iterator[Record]:
    """Records of a file with one JSON object a line, or one list of them.

    Optional fields get "" and an `id` of the form "NAME:LINE"; unknown fields are
    left out. Forms of others become ours (`chat_forms`).

    Raises:
      UserError: "path:line: what is wrong; what to do" for text that is not UTF-8 or
        not JSON, a truncated last line, a missing field or one of the wrong type, an
        empty text, ranks that do not fit the responses; or a file that cannot be
        read, has no records or is no text at all.
    """
    check_kind(kind)
    with closing(parse_lines(path)) as lines:
        for line in lines:
            yield check_line(line, kind)


def check_kind(kind: str) -> None:
    """Raises UserError for a kind that `FIELDS` does not have."""
    if kind not in FIELDS:
        raise UserError(f"no kind of record {kind!r}; choose from {', '.join(FIELDS)}.")


def as_records(prompts: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Prompts as records with an id, their number if they have none.

    Raises:
      UserError: a history is not prompts and responses in turn.
    """
    records = [
        {"id": str(number), **({"prompt": given} if isinstance(given, str) else given)}
        for number, given in enumerate(prompts)
    ]
    for record in records:
        if len(record.get("history", ())) % 2:
            raise UserError(
                f"record {record['id']!r}: its history holds "
                f"{len(record['history'])} texts; give a response to each prompt"
            )
    return records
