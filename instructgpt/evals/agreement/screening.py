"""Screens a candidate labeler by the paper's four criteria (App. B.1).

The researchers' answers are a file, the candidate's another. Both have a JSON object a
line, with `kind` and, but for `speech`, the `id` of what was asked.

    kind           the reference                   the candidate
    flagging       sensitive: true or false        sensitive: true or false
    ranking        ranks: [K], 1 is best           ranks: [K], of the same answers
    demonstration  nothing more                    score: 1 to 7, by a researcher
    speech         group: a topic or culture       group, able: true or false

`sensitive` says whether a prompt or an answer could elicit strong negative feelings.
`score` is how a researcher rates the candidate's demonstration for a sensitive prompt;
it is left out until that is done.
`able` is whether the candidate says to be able to identify sensitive speech about that
topic or cultural group. Other fields, such as the prompt, the answers and the
demonstration, may be there and are not read.

For example, a reference

    {"kind": "flagging", "id": "f1", "sensitive": true, "prompt": "..."}
    {"kind": "ranking", "id": "r1", "ranks": [1, 2, 2, 3], "responses": ["...", ...]}
    {"kind": "demonstration", "id": "d1", "prompt": "..."}
    {"kind": "speech", "group": "religion"}

and a candidate's answers

    {"kind": "flagging", "id": "f1", "sensitive": false}
    {"kind": "ranking", "id": "r1", "ranks": [2, 1, 3, 4]}
    {"kind": "demonstration", "id": "d1", "response": "...", "score": 6}
    {"kind": "speech", "group": "religion", "able": true}
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from instructgpt.data.origins.tables import table_rows
from instructgpt.errors import UserError, shown
from instructgpt.evals.agreement.pairs import compare, rates, signs
from instructgpt.evals.agreement.rows import is_ranking
from instructgpt.evals.intervals import Interval, mean_interval
from instructgpt.evals.judgements import LIKERT
from instructgpt.evals.report.tables import format_interval
from instructgpt.progress import format_table

# The kinds of rows, what each measures, and the paper's soft cut-off.
CRITERIA = {
    "flagging": ("Agreement on flagging sensitive speech", 0.75),
    "ranking": ("Agreement on rankings, without ties", 0.75),
    "demonstration": ("Score of demonstrations (1-7)", 6.0),
    "speech": ("Able to identify sensitive speech", None),
}
CHOICE = (
    "The choice is yours: the paper's cut-offs were soft, and its final choice was "
    "subjective, on anonymised data (App. B.1)."
)
_Answers = Mapping[str, Any]  # what was answered, by id or group


class Criterion(NamedTuple):
    """One criterion and how a candidate does on it.

    Attributes:
      kind: The kind of rows, a key of `CRITERIA`.
      asked: Number of things asked.
      answered: Number of them that the candidate answered; of demonstrations, those
        with a score.
      value: What was measured over the answered ones, with its 95 % interval over the
        things asked; None if nothing can be measured.
      cutoff: The paper's soft cut-off; None if it has none.
      details: More numbers, by name.
    """

    kind: str
    asked: int
    answered: int
    value: Interval | None
    cutoff: float | None
    details: Mapping[str, Any]

    @property
    def reached(self) -> bool | None:
        """Whether the cut-off is reached; None if that cannot be said.

        It cannot without a cut-off, and while something asked is not answered: easy
        things may have been chosen.
        """
        if self.cutoff is None or self.value is None or self.answered < self.asked:
            return None
        return self.value.value >= self.cutoff


class Screening(NamedTuple):
    """How a candidate does on the four criteria."""

    candidate: str
    criteria: tuple[Criterion, ...]

    def as_json(self) -> dict[str, Any]:
        """The result as JSON: by kind of rows, with intervals as [value, low, high]."""
        return {
            "candidate": self.candidate,
            "criteria": {
                one.kind: {
                    "measures": CRITERIA[one.kind][0],
                    "asked": one.asked,
                    "answered": one.answered,
                    "value": None if one.value is None else list(one.value),
                    "cutoff": one.cutoff,
                    "reached": one.reached,
                    **one.details,
                }
                for one in self.criteria
            },
            "choice": CHOICE,
        }

    def table(self) -> str:
        """The result as text for the terminal."""
        rows = [
            [
                CRITERIA[one.kind][0],
                f"{one.answered} of {one.asked}",
                format_interval(one.value),
                "–" if one.cutoff is None else f"{one.cutoff:g}",
                _in_words(one),
            ]
            for one in self.criteria
        ]
        columns = ["Criterion", "Answered", "Value", "Soft cut-off", "Reached"]
        notes = [
            f"{CRITERIA[one.kind][0]}: {name.replace('_', ' ')} {_said(value)}"
            for one in self.criteria
            for name, value in one.details.items()
        ]
        return "\n".join([format_table(rows, columns), "", *notes, "", CHOICE])


def _in_words(one: Criterion) -> str:
    if one.answered < one.asked:
        return "not all answered or scored"
    if one.reached is None or one.value is None or one.cutoff is None:
        return "no cut-off" if one.cutoff is None else "not measured"
    sure = not one.value.low < one.cutoff <= one.value.high
    return ("yes" if one.reached else "no") + ("" if sure else ", too close to be sure")


def _said(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    if value and all(isinstance(x, float) for x in value):
        return format_interval(value)
    return ", ".join(map(str, value)) or "none"


def screen(candidate_path: str | Path, reference_path: str | Path) -> Screening:
    """Compares a candidate's answers with the researchers' (App. B.1).

    Args:
      candidate_path: The candidate's answers; what a row holds is above. The file's
        name, without its ending, is the candidate's.
      reference_path: The researchers' answers. A kind of which it has no row is not
        asked, and left out of the result.

    Raises:
      UserError: "PATH:LINE: what is wrong; what to do": a row of no known kind, without
        a field or with an impossible one; the same thing twice; an answer to something
        that was not asked, or ranks of another number of answers.
    """
    reference = _read(Path(reference_path), of_candidate=False)
    candidate = _read(Path(candidate_path), of_candidate=True, reference=reference)
    measure: dict[str, Callable[[_Answers, _Answers], Criterion]] = {
        "flagging": _flagging,
        "ranking": _ranking,
        "demonstration": _demonstration,
        "speech": _speech,
    }
    return Screening(
        Path(candidate_path).stem,
        tuple(
            measure[kind](reference[kind], candidate[kind])
            for kind in CRITERIA
            if reference[kind]
        ),
    )


def _flagging(asked: _Answers, given: _Answers) -> Criterion:
    pairs = [(asked[name], given[name]) for name in asked if name in given]
    details: dict[str, Any] = {}
    # Who flags nothing agrees on all that is harmless, so both kinds are told apart.
    for title, truth in (("sensitive_found", True), ("others_let_pass", False)):
        right = [float(ours == truth) for theirs, ours in pairs if theirs == truth]
        if right:
            details[title] = list(mean_interval(right, limits=(0.0, 1.0)))
    alike = [float(theirs == ours) for theirs, ours in pairs]
    value = mean_interval(alike, limits=(0.0, 1.0)) if alike else None
    return _criterion("flagging", asked, len(pairs), value, details)


def _ranking(asked: _Answers, given: _Answers) -> Criterion:
    counts = [
        compare(signs(asked[name]), signs(given[name]))
        for name in asked
        if name in given
    ]
    found = rates(np.stack(counts)) if counts else {}
    details = {name: list(x) for name, x in found.items() if name != "without_ties"}
    return _criterion("ranking", asked, len(counts), found.get("without_ties"), details)


def _demonstration(asked: _Answers, given: _Answers) -> Criterion:
    scores = [given[name] for name in asked if given.get(name) is not None]
    value = mean_interval(scores, limits=LIKERT) if scores else None
    return _criterion("demonstration", asked, len(scores), value, {})


def _speech(asked: _Answers, given: _Answers) -> Criterion:
    details = {
        title: [name for name in asked if given.get(name) is able]
        for title, able in (("able", True), ("not_able", False))
    }
    return _criterion("speech", asked, len(given), None, details)


def _criterion(
    kind: str,
    asked: _Answers,
    answered: int,
    value: Interval | None,
    details: Mapping[str, Any],
) -> Criterion:
    return Criterion(kind, len(asked), answered, value, CRITERIA[kind][1], details)


def _read(
    path: Path,
    *,
    of_candidate: bool,
    reference: Mapping[str, _Answers] | None = None,
) -> dict[str, dict[str, Any]]:
    """Reads one of the two files: kind -> id or group -> what is given there.

    A candidate's rows must answer what the reference asks.
    """
    out: dict[str, dict[str, Any]] = {kind: {} for kind in CRITERIA}
    with closing(table_rows(path)) as rows:
        for where, _, row in rows:
            kind = row.get("kind") if isinstance(row, Mapping) else None
            if kind not in CRITERIA:
                raise UserError(
                    f"{where}: kind is {shown(kind)}; give an object with one of "
                    f"{', '.join(CRITERIA)}"
                )
            name = _name(row, kind, where)
            if name in out[kind]:
                raise UserError(f"{where}: a second {kind} of {name!r}; keep one")
            if reference is not None and name not in reference[kind]:
                raise UserError(
                    f"{where}: the reference asks no {kind} {name!r}; remove the line, "
                    "or take the reference that was asked"
                )
            out[kind][name] = _value(row, kind, where, of_candidate=of_candidate)
            if kind == "ranking" and reference is not None:
                size, wanted = len(out[kind][name]), len(reference[kind][name])
                if size != wanted:
                    raise UserError(
                        f"{where}: {size} ranks, and the reference has {wanted}; give "
                        "one to each answer"
                    )
    return out


def _name(row: Mapping[str, Any], kind: str, where: str) -> str:
    """What a row is about: its group, or its id."""
    field = "group" if kind == "speech" else "id"
    name = row.get(field)
    name = str(name) if type(name) is int else name
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: {field} is {shown(name)}; give a text")
    return name


def _value(
    row: Mapping[str, Any], kind: str, where: str, *, of_candidate: bool
) -> bool | float | list[int] | None:
    """What a row says, checked; None where nothing is to be said."""
    if kind == "flagging" or (kind == "speech" and of_candidate):
        field = "sensitive" if kind == "flagging" else "able"
        value = row.get(field)
        if not isinstance(value, bool):
            raise UserError(f"{where}: {field} is {shown(value)}; give true or false")
        return value
    if kind == "ranking":
        value = row.get("ranks")
        if not isinstance(value, list) or len(value) < 2 or not is_ranking(value):
            raise UserError(
                f"{where}: ranks are {shown(value)}; number two or more answers from 1 "
                "(best), equal ones alike"
            )
        return value
    value = row.get("score") if of_candidate else None
    low, high = LIKERT
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (good and low <= value <= high):
        raise UserError(
            f"{where}: score is {shown(value)}; give {low:.0f} to {high:.0f}"
        )
    return value
