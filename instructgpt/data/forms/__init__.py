"""Recognises the form of a row by its columns, and converts it to our fields.

Forms, in this order: our own fields (data/records.py), several rated answers
(rated.py), dialogues and preferences (chat.py), and Alpaca's
{"instruction", "input", "output"} and Dolly's {"instruction", "context", "response"}.
Columns of other names are renamed first, as the user says (`rename`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from instructgpt.data.forms.chat import (
    has_turns,
    is_dialogue,
    prompt_fields,
    record_fields,
)
from instructgpt.data.forms.rated import ranking
from instructgpt.data.forms.rows import FormRow
from instructgpt.errors import UserError

# The columns that a row of each kind needs, and words that names of such columns hold.
_NEEDED = {
    "documents": ("text",),
    "prompts": ("prompt",),
    "rm_prompts": ("prompt",),
    "gpt_prompts": ("prompt",),
    "demonstrations": ("prompt", "response"),
    "comparisons": ("prompt", "chosen", "rejected"),
}
_WORDS = {
    "text": "text content body article document passage story".split(),
    "prompt": "prompt question query instruct input problem ask post user".split(),
    "response": "respon answer output repl complet solution summary target".split(),
    "chosen": "chosen better prefer win good accept positive best _j".split(),
    "rejected": "reject worse lose losing bad negative worst _k".split(),
}
# Names that a mapping may give to columns.
TARGETS = (
    *("id", "text", "prompt", "history", "system", "response", "messages"),
    *("instruction", "input", "output", "chosen", "rejected", "responses", "ranks"),
    *("score", "scores", "score_chosen", "score_rejected", "completions"),
    *("response1", "response2", "overall_preference"),
    *("customer", "source", "category", "style", "labeler", "reference", "kind"),
    "distribution",
)


def our_fields(
    value: Any,
    *,
    kind: str,
    where: str,
    note: Callable[[str], None] = lambda reason: None,
) -> Any:
    """Converts a row of a common form to our fields; returns other values unchanged.

    Args:
      value: a value of a file.
      kind: kind of record to make.
      where: place named at the start of an error message.
      note: called with each decision that a reader may want to count.

    Raises:
      LeftOutError: the form is known, but the row lacks what a record needs.
      UserError: the row does not make a record of this kind.
    """
    if not isinstance(value, dict):
        return value
    row = FormRow(_with_prompt(value, kind), kind, where, note)
    if _is_ours(row):
        return row.fields
    fields = row.fields
    rated = ranking(row) if kind == "comparisons" else None
    if rated is not None:
        fields = {**fields, **prompt_fields(row), **rated}
    elif has_turns(row):
        if kind != "documents" or not row.has("text"):
            fields = {**fields, **record_fields(row)}
    elif row.has("system", "prompt") and kind != "documents":
        fields = {**fields, **prompt_fields(row)} if row.has("prompt") else fields
    _check_needed(FormRow(fields, kind, where))
    return fields


def _is_ours(row: FormRow) -> bool:
    """Whether a row has our fields, so that others beside them are not looked at."""
    if row.kind == "documents":
        return row.has("text")
    prompt = row.fields.get("prompt")
    if not isinstance(prompt, str) or row.has("system") or is_dialogue(prompt):
        return False
    if row.kind == "demonstrations":
        return isinstance(row.fields.get("response"), str)
    if row.kind == "comparisons":
        return row.has("responses") and row.has("ranks")
    return True


def _with_prompt(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    """The row with `prompt` and `response` for columns that mean the same."""
    if kind == "documents" or fields.get("prompt") is not None:
        return fields
    instruction = fields.get("instruction")
    if isinstance(fields.get("context"), list):  # the turns of HelpSteer3
        return {**fields, "prompt": fields["context"]}
    # With `pairs` it is a few-shot instruction, which curation expands.
    if not isinstance(instruction, str) or "pairs" in fields:
        return fields
    more = fields.get("input") or fields.get("context") or ""
    if not isinstance(more, str):
        return fields
    prompt = f"{instruction.strip()}\n\n{more.strip()}".strip()
    if "output" in fields and fields.get("response") is None:
        return {**fields, "prompt": prompt, "response": fields["output"]}
    return {**fields, "prompt": prompt}


def _check_needed(row: FormRow) -> None:
    """Raises an error for a column that is missing, with a mapping that may give it."""
    needed = _NEEDED[row.kind]
    if row.kind == "comparisons":
        if row.has("responses") and row.has("ranks"):
            needed = ("prompt",)
        elif row.has("responses") or row.has("ranks"):
            return  # check_record says what is missing
    missing = [name for name in needed if not row.has(name)]
    if not missing:
        return
    if row.knows(missing[0]):
        raise row.leave_out(f"no {missing[0]}", f"{missing[0]!r} is null")
    columns = [name for name in row.fields if isinstance(name, str)]
    short = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
    what = "'responses'" if missing[0] == "chosen" else repr(missing[0])
    raise UserError(
        f"{row.where}: field {what} is missing; add it, as text, or say which columns"
        f" to take: prepare --{row.kind}=FILE --columns={_example(missing, columns)}"
        f" (columns found: {_printable(short) or 'none'})."
    )


def _printable(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _example(missing: Iterable[str], columns: list[str]) -> str:
    """A mapping as --columns has it, which guesses by the names of the columns."""
    pairs, free = [], list(columns)
    for target in missing:
        named = [c for c in free if any(word in c.lower() for word in _WORDS[target])]
        column = named[0] if named else "COLUMN"
        if named:
            free.remove(column)
        pairs.append(f"{target}={_printable(column)}")
    return ",".join(pairs)


def rename(value: Any, columns: Mapping[str, str], *, where: str) -> Any:
    """The row with columns under other names.

    Args:
      value: a row.
      columns: the row's column of each name in `TARGETS` that is wanted.
      where: place named at the start of an error message.

    Raises:
      UserError: the row has no such column.
    """
    if not columns or not isinstance(value, dict):
        return value
    for target, column in columns.items():
        if column not in value:
            found = _printable(", ".join(map(str, list(value)[:12])))
            raise UserError(
                f"{where}: no column {_printable(column)!r}, which --columns={target}="
                f"{_printable(column)} names; choose from {found}."
            )
    taken = {*columns.values(), *columns}
    rest = {name: cell for name, cell in value.items() if name not in taken}
    return {**rest, **{target: value[column] for target, column in columns.items()}}
