"""Converts several rated answers to one ranking, in which equal ratings are ties.

    {"prompt": "Hi", "response": "Hello!", "score": 4}    a row an answer (HelpSteer2)
    {"context": [turn, ...], "response1": "Hello!", "response2": "Go away.",
     "overall_preference": -2}                            below 0: the first is better
    {"instruction": "Hi", "completions": [{"response": "Hello!", "overall_score": 7}]}
    {"prompt": "Hi", "responses": ["Hello!", "Go away."], "scores": [4, 1]}

Rows that rate one answer each are joined by their prompt, over the whole file.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from instructgpt.data.forms.rows import FormRow, Line
from instructgpt.data.ranking import dense_ranks
from instructgpt.errors import shown

_SCORE = ("score", "rating", "overall_score", "helpfulness")
_SCORES = ("scores", "ratings", "rewards")
_ANSWERS = ("completions", "answers", "responses")
_ANSWER = ("response", "answer", "completion", "text", "content")
_PAIRS = (
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("response_a", "response_b"),
)
_PREFERENCES = ("overall_preference", "preference_strength")


@dataclasses.dataclass
class _Group:
    """The answers to one prompt."""

    line: Line
    responses: list[Any]
    scores: list[Any]


def join_rated(lines: Iterable[Line]) -> Iterator[Line]:
    """Joins the rows that rate one answer each to a row a prompt, behind the others."""
    groups: dict[str, _Group] = {}
    for line in lines:
        score = _rated(line.value)
        if not score:
            yield line
            continue
        fields = line.value
        asked = [fields.get("history"), fields.get("system"), fields["prompt"]]
        key = json.dumps(asked, sort_keys=True, default=str)
        group = groups.setdefault(key, _Group(line, [], []))
        group.responses.append(fields.get("response"))
        group.scores.append(fields.get(score))
    for group in groups.values():
        rest = {
            name: value
            for name, value in group.line.value.items()
            if name not in ("response", *_SCORE)
        }
        joined = {"responses": group.responses, "scores": group.scores}
        yield group.line._replace(value={**rest, **joined})


def _rated(value: Any) -> str:
    """The column of the rating of a row that rates one answer; "" of another row."""
    if not isinstance(value, dict) or value.get("prompt") is None:
        return ""
    others = ("responses", "ranks", "chosen", "rejected", "completions", "answers")
    if "response" not in value or any(value.get(name) for name in others):
        return ""
    return next((name for name in _SCORE if name in value), "")


def ranking(row: FormRow) -> dict[str, Any] | None:
    """The responses and ranks of a row with rated answers; None of another row.

    Raises:
      LeftOutError: fewer than two answers have a text and a rating.
      UserError: a rating is no number.
    """
    for pair in _PAIRS:
        if all(map(row.knows, pair)) and row.knows(*_PREFERENCES):
            return _of_preference(row, *pair)
    name = row.first(*_ANSWERS)
    answers = row.listed(name) if name else None
    if not isinstance(answers, list) or row.has("ranks"):
        return None
    scores = row.first(*_SCORES)
    if scores:
        return _of_lists(row, answers, scores)
    if answers and all(isinstance(answer, Mapping) for answer in answers):
        return _of_objects(row, answers)
    return None


def _of_preference(row: FormRow, first: str, second: str) -> dict[str, Any]:
    name = row.first(*_PREFERENCES)
    number = row.number(row.fields[name], name) if name else None
    if number is None:
        raise row.leave_out("no preference", "the preference is null")
    responses = [row.fields[first], row.fields[second]]
    if None in responses:
        missing = (first, second)[responses.index(None)]
        raise row.leave_out("no second answer", f"{missing!r} is null")
    ranks = dense_ranks([number, -number])
    return {"responses": responses, "ranks": ranks}


def _of_lists(row: FormRow, answers: list[Any], name: str) -> dict[str, Any]:
    scores = row.listed(name)
    if not isinstance(scores, list) or len(scores) != len(answers):
        raise row.fail(
            f"{name!r} must be a list of {len(answers)} numbers, one an answer, found"
            f" {shown(scores)}"
        )
    rated = [
        (answer, row.number(score, f"{name}[{index}]"))
        for index, (answer, score) in enumerate(zip(answers, scores, strict=True))
    ]
    return _ranked(row, rated)


def _of_objects(row: FormRow, answers: list[Any]) -> dict[str, Any]:
    """Answers as objects with a text and a score, or with a rank, where 1 is best."""
    rated = []
    for index, answer in enumerate(answers):
        text = next((answer[name] for name in _ANSWER if name in answer), None)
        names = [name for name in (*_SCORE, "rank") if name in answer]
        if text is None or not names:
            found = ", ".join(map(str, list(answer)[:8]))
            raise row.fail(
                f"answer {index} has no text or no score (one of"
                f" {', '.join((*_SCORE, 'rank'))}) but {found}"
            )
        number = row.number(answer[names[0]], f"{names[0]} of answer {index}")
        if number is not None and names[0] == "rank":
            number = -number
        rated.append((text, number))
    return _ranked(row, rated)


def _ranked(row: FormRow, rated: list[tuple[Any, float | None]]) -> dict[str, Any]:
    kept = []
    for text, score in rated:
        if isinstance(text, str) and text.strip() and score is not None:
            kept.append((text, score))
        elif text is not None and not isinstance(text, str):
            raise row.fail(f"an answer must be text, found {shown(text)}")
        else:
            row.note("answer without text or rating, not ranked")
    if len(kept) < 2:
        raise row.leave_out(
            "fewer than two rated answers",
            f"{len(kept)} answers have a text and a rating; a ranking needs two",
        )
    ranks = dense_ranks([-score for _, score in kept])
    return {"responses": [text for text, _ in kept], "ranks": ranks}
