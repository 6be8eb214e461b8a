"""Judgements of answers: the record that every judge gives (paper §3.6, Table 3).

A judge may be a person, the miniature world's gold judge or a simulated labeler, a
reward model, or a language model. What is computed from judgements, such as win rates,
is the same for all of them (preference.py).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.origins.tables import table_rows
from instructgpt.errors import UserError, shown

_FLAG = "flags."  # begins the name of a table's column for a flag
_CELLS = {"true": True, "True": True, "false": False, "False": False, "": None}
LIKERT = (1.0, 7.0)  # the ends of the scale of overall quality


class Judgement(NamedTuple):
    """What one labeler says of one answer.

    At least one of `likert`, `flags`, `rank` and `score` should be given. Two answers
    are compared by their ranks; without ranks by their scores, else by `likert`.
    """

    id: str  # of the prompt's record
    model: str  # name of the model that answered
    likert: float | None = None  # overall quality from 1 to 7
    # Yes/no judgements by their names in Table 3, such as hallucination. A flag that
    # does not apply to the prompt is left out.
    flags: Mapping[str, bool] = {}
    rank: int | None = None  # 1 is best; equal ranks are a tie
    score: float | None = None  # on the judge's own scale; greater is better
    labeler: str = ""
    group: str = ""  # the labeler's group, such as training or heldout
    # Names what was ranked together, where a labeler ranked answers to one prompt more
    # than once. Ranks and scores are compared within a sheet only.
    sheet: str = ""
    note: str = ""  # free text

    @property
    def place(self) -> tuple[str, str, str]:
        """What was judged together: the prompt, the labeler and the sheet."""
        return self.id, self.labeler, self.sheet


def preference(first: Judgement, second: Judgement) -> float | None:
    """1 if the first answer is preferred, 1/2 for a tie, 0 if the second is.

    The judgements are of one place. None if they have nothing to compare them by.
    """
    if first.rank is not None and second.rank is not None:
        margin = float(second.rank - first.rank)
    elif first.score is not None and second.score is not None:
        margin = first.score - second.score
    elif first.likert is not None and second.likert is not None:
        margin = first.likert - second.likert
    else:
        return None
    return (math.copysign(1.0, margin) + 1) / 2 if margin else 0.5


def check_judgements(
    found: Any, *, where: str, ids: Iterable[str], models: Iterable[str]
) -> list[Judgement]:
    """Returns what a judge gave, or raises UserError, which begins with `where`.

    Args:
      found: What the judge returned: judgements of answers to these prompts.
      where: Place for errors.
      ids: Ids of the prompts.
      models: Names of the models that answered.

    Raises:
      UserError: no sequence of judgements; a judgement of an unknown prompt or model,
        with a value that is not possible; or the same answer twice from one labeler.
    """
    if isinstance(found, str | Mapping) or not isinstance(found, Sequence):
        raise UserError(
            f"{where} {type(found).__name__}, not a list of the Judgement of "
            "evals/judgements.py"
        )
    if not found:
        raise UserError(f"{where} no judgement")
    known, named = set(ids), set(models)
    seen: set[tuple[str, ...]] = set()
    for number, one in enumerate(found):
        what = f"{where} judgement {number}"
        if not isinstance(one, Judgement):
            raise UserError(f"{what}: {shown(one)}; give a Judgement")
        _check(one, what)
        if one.id not in known:
            raise UserError(f"{what}: no prompt has the id {one.id!r}")
        if one.model not in named:
            raise UserError(
                f"{what}: unknown model {one.model!r}; the models are {sorted(named)}"
            )
        _check_new(one, seen, what)
    return [_plain(one) for one in found]


def _check(one: Judgement, where: str) -> None:
    """Raises UserError for a value that no judgement may have."""
    if not all(
        isinstance(x, str) for x in (*one.place, one.model, one.group, one.note)
    ):
        raise UserError(f"{where}: id, model, labeler, group, sheet and note are texts")
    for name, low, high in (
        ("likert", *LIKERT),
        ("rank", 1, math.inf),
        ("score", -math.inf, math.inf),
    ):
        value = getattr(one, name)
        if value is None:
            continue
        try:
            good = not isinstance(value, bool | str) and math.isfinite(value)
            good = good and low <= value <= high
        except (TypeError, OverflowError):
            good = False
        if not good or (name == "rank" and value != int(value)):
            says = {
                "likert": "a number from 1 to 7",
                "rank": "a whole number, 1 for the best",
                "score": "a finite number",
            }[name]
            raise UserError(f"{where}: {name} is {shown(value)}; give {says}")
    flags = one.flags
    if not isinstance(flags, Mapping) or not all(
        isinstance(k, str) and isinstance(v, bool) for k, v in flags.items()
    ):
        raise UserError(
            f"{where}: flags are {shown(flags)}; give true or false by the flag's name"
        )


def _plain(one: Judgement) -> Judgement:
    """The judgement with Python's numbers, as NumPy's are no JSON."""
    return one._replace(
        likert=None if one.likert is None else float(one.likert),
        rank=None if one.rank is None else int(one.rank),
        score=None if one.score is None else float(one.score),
    )


def _check_new(one: Judgement, seen: set[tuple[str, ...]], where: str) -> None:
    key = (*one.place, one.model)
    if key in seen:
        who = f" by {one.labeler}" if one.labeler else ""
        raise UserError(
            f"{where}: {one.model}'s answer to {one.id!r} is judged twice{who}; keep "
            "one row, or tell them apart by `labeler` or `sheet`"
        )
    seen.add(key)


class JudgedRow(NamedTuple):
    """A row of a file of judgements, with its place and the answer that it is about."""

    where: str
    judgement: Judgement
    response: str | None


def judged_rows(path: str | Path, *, models: Sequence[str]) -> list[JudgedRow]:
    """Reads people's judgements: rows of JSON Lines, JSON, CSV or Parquet.

    The fields of a row are those of `Judgement`; `id` and `model` are required. A row
    may hold the answer that was judged, as `response`.

    Args:
      path: The file.
      models: Names of the models that may be judged.

    Raises:
      UserError: "PATH:LINE: what is wrong; what to do".
    """
    rows: list[JudgedRow] = []
    seen: set[tuple[str, ...]] = set()
    with closing(table_rows(path)) as values:
        for where, _, value in values:
            one, response = _from_row(value, where)
            if one.model not in models:
                raise UserError(
                    f"{where}: unknown model {one.model!r}; the compared models are "
                    f"{sorted(models)}"
                )
            _check_new(one, seen, where)
            rows.append(JudgedRow(where, one, response))
    return rows


def _from_row(value: Any, where: str) -> tuple[Judgement, str | None]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected an object, found {type(value).__name__}")
    # A file may be the one of answers with columns added.
    known = {*Judgement._fields, "response", "prompt", "category", "history"}
    value = _with_flags(value, where)
    unknown = sorted(set(value) - known)
    if unknown:
        raise UserError(
            f"{where}: unknown field {unknown[0]!r}; a judgement has "
            f"{', '.join(Judgement._fields)} and response"
        )
    fields = {k: v for k, v in value.items() if k in Judgement._fields}
    fields = {k: v for k, v in fields.items() if v is not None}
    for name in ("id", "model"):
        if fields.get(name) in (None, ""):
            raise UserError(f"{where}: field {name!r} is missing")
    for name in ("id", "labeler", "group", "sheet"):
        if type(fields.get(name)) is int:
            fields[name] = str(fields[name])
    for name in ("likert", "rank", "score"):
        if isinstance(fields.get(name), str):  # a cell of CSV
            try:
                fields[name] = float(fields[name])
            except ValueError as error:
                raise UserError(
                    f"{where}: {name} is {fields[name]!r}; give a number"
                ) from error
    one = Judgement(**fields)
    _check(one, where)
    one = _plain(one)
    if one.likert is one.rank is one.score is None and not one.flags:
        raise UserError(f"{where}: says nothing; give likert, flags, rank or score")
    response = value.get("response")
    if not isinstance(response, str | None):
        raise UserError(f"{where}: response is {shown(response)}; give a text")
    return one, response


def _with_flags(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row whose flags are a mapping.

    In tables a flag is a column `flags.NAME` of its own, or all are JSON in a cell. A
    flag without a value does not apply.
    """
    row = dict(value)
    flags = row.get("flags")
    if isinstance(flags, str):
        try:
            flags = json.loads(flags) if flags.strip() else {}
        except ValueError as error:
            raise UserError(f"{where}: flags are no JSON: {shown(flags)}") from error
    flags = dict(flags) if isinstance(flags, Mapping) else flags
    for name in [name for name in row if name.startswith(_FLAG)]:
        cell = row.pop(name)
        flags = {**(flags or {}), name.removeprefix(_FLAG): _CELLS.get(cell, cell)}
    if isinstance(flags, dict):
        flags = {name: given for name, given in flags.items() if given is not None}
    return row | ({} if flags is None else {"flags": flags})


def as_line(one: Judgement) -> str:
    """A judgement as a line of JSON, without what was not given."""
    fields = {k: v for k, v in one._asdict().items() if v not in (None, "", {})}
    if "flags" in fields:
        fields["flags"] = dict(fields["flags"])
    return json.dumps(fields, ensure_ascii=False)
