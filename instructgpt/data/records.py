"""Records: the fields of each kind, their checks, and JSONL files of records."""

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, get_args

from instructgpt.data.forms import our_fields
from instructgpt.data.forms.rated import join_rated
from instructgpt.data.forms.rows import LeftOutError, Line
from instructgpt.data.origins.tables import table_rows
from instructgpt.errors import UserError, shown

Record = dict[str, Any]
SPLITS = ("train", "valid", "test")


class Field(NamedTuple):
    """A field of a record; without a default it is required.

    Attributes:
      type: str, list[str] or list[int].
      default: the value if the field is missing.
      names: whether the text only names something; a whole number is then accepted
        too and converted to its decimal digits.
    """

    type: Any
    default: str | tuple[()] | None = None
    names: bool = False


_TEXT, _NAME = Field(str), Field(str, "", names=True)
# Earlier turns of a dialogue, oldest first: user, assistant, user, assistant, ... The
# prompt is the next turn of the user. Empty for a plain prompt.
_HISTORY = Field(list[str], ())
_PROMPT = {
    "id": _NAME,
    "history": _HISTORY,
    "prompt": _TEXT,
    "customer": _NAME,
    "source": _NAME,  # who wrote it: customer or labeler
    "category": _NAME,
    "style": _NAME,
    "distribution": _NAME,  # what it was sent to: instructgpt or gpt3 (paper, Fig. 1)
    "task": Field(str, ""),  # JSON of the structured task, for the judge
    # A text with which a Python reward, an evaluator or a judge may compare an answer.
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
    "prompts": _PROMPT,  # prompts of PPO and of the comparison of models
    "rm_prompts": _PROMPT,  # prompts whose answers are ranked; default: prompts
    "gpt_prompts": _PROMPT,  # texts to continue, for the comparison of models only
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
    """Checks a record, fills in defaults and leaves out unknown fields.

    Args:
      record: a value of a JSONL line or a generator.
      kind: a key of `FIELDS`.
      where: place named at the start of an error message, for example "a.jsonl:3".
      default_id: the id if the record has none.

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
    """False for half a surrogate pair, which JSON can express but UTF-8 cannot."""
    return text.isascii() or not _SURROGATE.search(text)


def is_ranking(ranks: Sequence[int]) -> bool:
    """Whether ranks number answers from 1; 1 1 2 and 1 1 3 are rankings, 1 3 is not."""
    return all(
        type(rank) is int and 1 <= rank <= i
        for i, rank in enumerate(sorted(ranks), start=1)
    )


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
    if not is_ranking(ranks):
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
            raise LeftOutError(
                f"empty {name}",
                f"{where}: empty {name}; fill it in or remove the line.",
            )


def parse_lines(path: str | os.PathLike[str]) -> Generator[Line, None, None]:
    """Yields the rows of a file of any kind.

    Raises:
      UserError: see `table_rows`.
    """
    name = Path(path).stem
    with closing(table_rows(path)) as values:
        for where, number, value in values:
            yield Line(where, f"{name}:{number}", value)


def record_lines(lines: Iterable[Line], kind: str) -> Iterator[Line]:
    """The lines that each make a record: for rankings, one a prompt (`join_rated`)."""
    return join_rated(lines) if kind == "comparisons" else iter(lines)


def check_line(
    line: Line, kind: str, *, note: Callable[[str], None] = lambda reason: None
) -> Record:
    """The line's record after `check_record`; its texts must not be empty.

    A row of another form is converted (`forms`).

    Args:
      line: One of `record_lines`.
      kind: A key of `FIELDS`.
      note: Called with each decision that a reader may want to count.

    Raises:
      LeftOutError: A text is missing or empty, or a turn out of place.
      UserError: "path:line: what is wrong; what to do".
    """
    value = our_fields(line.value, kind=kind, where=line.where, note=note)
    record = check_record(
        value, kind=kind, where=line.where, default_id=line.default_id
    )
    _check_not_empty(record, line.where)
    return record


def read_jsonl(path: str | os.PathLike[str], kind: str) -> Iterator[Record]:
    """Yields the records of a file of rows: JSON, CSV or Parquet (`tables`).

    Missing optional fields become "", a missing `id` becomes "NAME:LINE", unknown
    fields are left out, and rows of other forms are converted (`forms`).

    Raises:
      UserError: "path:line: what is wrong; what to do" for text that is not UTF-8 or
        not JSON, a truncated last line, a missing field or one of the wrong type, an
        empty text, ranks that do not fit the responses; or a file that cannot be
        read, has no records or is no text at all.
    """
    check_kind(kind)
    with closing(parse_lines(path)) as lines:
        for line in record_lines(lines, kind):
            yield check_line(line, kind)


def check_kind(kind: str) -> None:
    """Raises UserError if `FIELDS` does not have the kind."""
    if kind not in FIELDS:
        raise UserError(f"no kind of record {kind!r}; choose from {', '.join(FIELDS)}.")


class DistinctPrompts:
    """Tells whether a prompt, with its history, comes for the first time."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def is_new(self, record: Mapping[str, Any]) -> bool:
        """Whether no record with this prompt and history was asked about before."""
        text = (*record.get("history", ()), record["prompt"])
        new = text not in self._seen
        self._seen.add(text)
        return new


def _history(record: Mapping[str, Any]) -> Any:
    """The turns before a prompt; none where they are missing or null, as in a file."""
    history = record.get("history")
    return () if history is None else history


def as_records(prompts: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Converts prompts to records; a missing id becomes the prompt's number.

    Raises:
      UserError: a prompt is no text, or a history does not consist of prompts and
        responses in turn.
    """
    if isinstance(prompts, str | Mapping):
        raise UserError("give a list of prompts, such as [prompt], not a single one")
    records = []
    for number, given in enumerate(prompts):
        given = {"prompt": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping) or not isinstance(given.get("prompt"), str):
            raise UserError(
                f"prompt {number}: give a text, or a record with a text as `prompt`, "
                f"not {shown(given)}"
            )
        records.append({"id": str(number), **given, "history": _history(given)})
    for record in records:
        history = record["history"]
        if isinstance(history, str) or not all(isinstance(x, str) for x in history):
            raise UserError(
                f"record {record['id']!r}: its history is {shown(history)}; give a "
                "list of texts, prompts and responses in turn"
            )
        if len(history) % 2:
            raise UserError(
                f"record {record['id']!r}: its history holds "
                f"{len(record['history'])} texts; give a response to each prompt"
            )
    return records
