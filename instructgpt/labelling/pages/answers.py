"""A labeler's annotation of a task <-> Work.

What comes from a server may have been edited by hand or by a program. So everything is
checked, and what makes no sense is refused with its place and the reason.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from instructgpt.errors import shown
from instructgpt.evals.judgements import LIKERT
from instructgpt.labelling.interface import FLAGS, Rating, Refused, Task, Work
from instructgpt.labelling.pages import names

_LIKERT = {str(value): value for value in range(int(LIKERT[0]), int(LIKERT[1]) + 1)}
_FLAG = {names.YES: True, names.NO: False}


class _UnusableError(Exception):
    """An annotation that is no work, with the reason."""


def to_work(task: Task, annotation: Mapping[str, Any], *, where: str) -> Work | Refused:
    """What a labeler gave for a task.

    Args:
      task: The task as it was sent.
      annotation: An annotation of it, as Label Studio's API gives it.
      where: The project and the task, for what is refused.
    """
    try:
        work = Work(
            task.key,
            seconds=_seconds(annotation.get("lead_time")),
            when=_time(annotation.get("created_at")),
        )
        if annotation.get("was_cancelled"):
            return work._replace(skipped=True)
        return _given(task, work, _fields(task, annotation.get("result")))
    except _UnusableError as error:
        return Refused(where, str(error))


def to_result(work: Work) -> list[dict[str, Any]]:
    """The result of an annotation that `to_work` turns into this work again."""
    answered: list[tuple[str, str, str, Any]] = []
    for i, rating in enumerate(work.ratings):
        on = f"answer_{i}"
        if rating.likert is not None:
            choice = [str(rating.likert)]
            answered.append((names.likert(i), on, "choices", choice))
        for name, given in rating.flags.items():
            choice = [names.YES if given else names.NO]
            answered.append((names.flag(name, i), on, "choices", choice))
    if work.ranks:
        columns: dict[str, list[str]] = {
            names.rank(n): [] for n in range(1, len(work.ranks) + 1)
        }
        for i, rank in enumerate(work.ranks):
            columns[names.rank(rank)].append(names.card(i))
        ranker = {names.UNRANKED: [], **columns}
        answered.append((names.RANKS, names.CARDS, "ranker", ranker))
    for field, text in ((names.RESPONSE, work.response), (names.NOTE, work.note)):
        if text:
            answered.append((field, names.TASK, "textarea", [text]))
    kinds = {"textarea": "text"}
    return [
        {
            "id": f"{work.key}-{number}",
            "from_name": field,
            "to_name": on,
            "type": kind,
            "value": {kinds.get(kind, kind): value},
        }
        for number, (field, on, kind, value) in enumerate(answered)
    ]


def _seconds(value: Any) -> float:
    if value is None:
        return 0.0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise _UnusableError(f"the time spent is {shown(value)}, not a time in seconds")
    return float(value)


def _time(value: Any) -> str:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _UnusableError(f"it was handed in at {shown(value)}, no time") from error
    return when.astimezone(UTC).isoformat(timespec="seconds")


def _fields(task: Task, result: Any) -> dict[str, Any]:
    """Field -> its value; every field of the page at most once, and no other one."""
    if not isinstance(result, Sequence) or isinstance(result, str):
        raise _UnusableError(f"its result is {shown(result)}, not a list")
    expected = _kinds(task)
    found: dict[str, Any] = {}
    for part in result:
        name = part.get("from_name") if isinstance(part, Mapping) else None
        if not isinstance(name, str) or name not in expected:
            raise _UnusableError(f"field {shown(name)} is none of the page's")
        if name in found:
            raise _UnusableError(f"field {name!r} is given twice")
        kind, value = expected[name], part.get("value")
        if not isinstance(value, Mapping) or kind not in value:
            raise _UnusableError(f"field {name!r} is {shown(value)}: no {kind}")
        found[name] = value[kind]
    return found


def _kinds(task: Task) -> dict[str, str]:
    """The fields of a task's page -> the kind of their values."""
    if task.page == "demonstration":
        return {names.RESPONSE: "text"}
    kinds = {names.NOTE: "text"}
    if task.page in ("rating", "final"):
        for i in range(len(task.answers)):
            kinds[names.likert(i)] = "choices"
            kinds |= {names.flag(name, i): "choices" for name in FLAGS}
    if task.page in ("ranking", "final"):
        kinds[names.RANKS] = "ranker"
    return kinds


def _given(task: Task, work: Work, fields: Mapping[str, Any]) -> Work:
    work = work._replace(
        response=_text(fields, names.RESPONSE), note=_text(fields, names.NOTE)
    )
    if task.page == "demonstration":
        if not work.response.strip():
            raise _UnusableError("there is no answer")
        return work
    if task.page in ("rating", "final"):
        ratings = tuple(_rating(fields, i) for i in range(len(task.answers)))
        if not any(rating.likert or rating.flags for rating in ratings):
            raise _UnusableError("there is no rating")
        work = work._replace(ratings=ratings)
    if task.page in ("ranking", "final"):
        work = work._replace(ranks=_ranks(task, fields.get(names.RANKS, {})))
    return work


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # as the page hands it in
    if value and not isinstance(value, str):
        raise _UnusableError(f"field {name!r} is {shown(value)}, not one text")
    return value or ""


def _rating(fields: Mapping[str, Any], answer: int) -> Rating:
    likert = _choice(fields, names.likert(answer), _LIKERT)
    flags = {n: _choice(fields, names.flag(n, answer), _FLAG) for n in FLAGS}
    given = {name: value for name, value in flags.items() if value is not None}
    return Rating(likert, given)


def _choice(fields: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> Any:
    value = fields.get(name)
    if value in (None, []):
        return None
    if not isinstance(value, list) or len(value) != 1 or value[0] not in values:
        raise _UnusableError(
            f"field {name!r} is {shown(value)}, not one of {', '.join(values)}"
        )
    return values[value[0]]


def _ranks(task: Task, columns: Any) -> tuple[int, ...]:
    """The rank of each answer, dense from 1: an empty column takes no rank."""
    if not isinstance(columns, Mapping):
        raise _UnusableError(f"ranks are no ranking: {shown(columns)}")
    order = [names.rank(number) for number in range(1, names.MOST + 1)]
    unknown = sorted(set(columns) - {*order, names.UNRANKED})
    if unknown:
        raise _UnusableError(f"ranks are no ranking: no column is {shown(unknown[0])}")
    cards = [names.card(i) for i in range(len(task.answers))]
    place: dict[str, int] = {}
    rank = 0
    for name in order:
        inside = columns.get(name) or []
        if not isinstance(inside, list):
            raise _UnusableError(f"ranks are no ranking: {name} holds {shown(inside)}")
        rank += bool(inside)
        for card in inside:
            if card not in cards:
                raise _UnusableError(f"ranks are no ranking: no card is {shown(card)}")
            if card in place:
                raise _UnusableError(f"ranks are no ranking: card {card!r} lies twice")
            place[card] = rank
    missing = [card for card in cards if card not in place]
    if missing:
        raise _UnusableError(
            f"ranks are no ranking: not ranked are the answers {', '.join(missing)}"
        )
    return tuple(place[card] for card in cards)
