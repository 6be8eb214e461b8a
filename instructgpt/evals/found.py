"""Runs evaluators and judges, and arranges their results for results.json."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from instructgpt.errors import UserError, shown
from instructgpt.evals.interface import Evaluator, Judge, Record, Results, nested
from instructgpt.inference import LanguageModel

Rows = list[dict[str, Any]]


def run_evaluators(
    evaluators: Mapping[str, Evaluator], model: LanguageModel, records: Sequence[Record]
) -> dict[str, Results]:
    """Runs each evaluator on one model.

    Raises:
      UserError: an evaluator returns something other than Results of numbers and rows.
    """
    out = {}
    for key, evaluator in evaluators.items():
        found = evaluator.run(model, records)
        what = f"config.evaluators.{key}: its run() gives"
        if not isinstance(found, Results):
            raise UserError(
                f"{what} {type(found).__name__}, not the Results of evals/interface.py"
            )
        _check(found, what)
        out[key] = found
    return out


def run_judges(
    judges: Mapping[str, Judge],
    records: Sequence[Record],
    answers: Mapping[str, Sequence[str]],
) -> dict[str, Mapping[str, Results]]:
    """Runs each judge on the answers of all models.

    Raises:
      UserError: a judge leaves out a model, its number of rows is not the number of
        answers, or its results are not numbers and rows.
    """
    out = {}
    for key, judge in judges.items():
        found = judge.judge(records, answers)
        for name in answers:
            given = found.get(name) if isinstance(found, Mapping) else None
            if not isinstance(given, Results):
                raise UserError(
                    f"config.judges.{key}: its judge() gives no Results of "
                    f"evals/interface.py for {name!r}"
                )
            if len(found[name].rows) not in (0, len(records)):
                raise UserError(
                    f"config.judges.{key}: its judge() gives {len(found[name].rows)} "
                    f"rows for {len(records)} answers of {name!r}; give one for each, "
                    "or none"
                )
            _check(given, f"config.judges.{key}: its judge() gives, for {name!r},")
        out[key] = found
    return out


def _check(found: Results, what: str) -> None:
    """Raises UserError, which begins with `what`, unless results can be stored."""
    if not isinstance(found.numbers, Mapping):
        raise UserError(f"{what} numbers that are no mapping of names to numbers")
    for name, value in found.numbers.items():
        try:
            numbers = np.asarray(value, np.float64)
            good = not isinstance(value, str) and bool(np.isfinite(numbers).all())
        except (TypeError, ValueError):
            good = False
        if not isinstance(name, str) or not good or numbers.shape not in ((), (3,)):
            raise UserError(
                f"{what} {name!r}: {shown(value)}; give a finite number, or three of "
                "them: value, low and high of its interval"
            )
    for i, row in enumerate(found.rows):
        try:
            good = isinstance(row, Mapping) and bool(
                json.dumps(dict(row), allow_nan=False)
            )
        except (TypeError, ValueError):
            good = False
        if not good:
            raise UserError(f"{what} row {i}: {shown(row)}; give a dict of JSON values")
    if len({"rating" in row for row in found.rows}) > 1:
        raise UserError(f"{what} a rating in some rows only; give it in all, or none")


class Found(NamedTuple):
    """The answers of a comparison, and the results of evaluators and judges."""

    answers: Mapping[str, Sequence[str]]  # model -> answers in the order of the prompts
    measured: Mapping[str, Mapping[str, Results]]  # model -> evaluator -> results
    judged: Mapping[str, Mapping[str, Results]]  # judge -> model -> results

    def numbers(
        self, *, labels: Mapping[str, str], judges: set[str], evaluators: set[str]
    ) -> dict[str, Any]:
        """The numbers of `results.json`.

        Numbers of built-in judges and the held-out loss are entries of each model. The
        others are under `judges` and `evaluators`, by key and by model.

        Args:
          labels: The models' displayed names.
          judges: Keys of the built-in judges.
          evaluators: Keys of the built-in evaluators.
        """
        models: dict[str, dict[str, Any]] = {
            name: {"label": label} for name, label in labels.items()
        }
        losses: dict[str, Any] = {}
        others: dict[str, dict[str, Any]] = {"judges": {}, "evaluators": {}}
        for key, found in self.judged.items():
            for name in models:
                numbers = nested(found[name].numbers)
                if key in judges:
                    models[name].update(numbers)
                else:
                    others["judges"].setdefault(key, {})[name] = numbers
        for name, results in self.measured.items():
            for key, result in results.items():
                numbers = nested(result.numbers)
                if key in evaluators and "pretrain_loss" in numbers:
                    losses[name] = numbers["pretrain_loss"]
                else:
                    others["evaluators"].setdefault(key, {})[name] = numbers
        return {"models": models, "pretrain_loss": losses, **others}

    def rows(self, records: Sequence[Record]) -> dict[str, Rows]:
        """Each model's answers with the judges' rows, and the evaluators' own rows.

        Returns:
          Rows by file name: MODEL, and EVALUATOR.MODEL.
        """
        out: dict[str, Rows] = {}
        for name, texts in self.answers.items():
            said = {key: found[name].rows for key, found in self.judged.items()}
            out[name] = [
                {
                    "prompt": record["prompt"],
                    "response": text,
                    **{key: dict(rows[i]) for key, rows in said.items() if rows},
                }
                for i, (record, text) in enumerate(zip(records, texts, strict=True))
            ]
        for name, results in self.measured.items():
            for key, result in results.items():
                if result.rows:
                    out[f"{key}.{name}"] = [dict(row) for row in result.rows]
        return out

    @property
    def rater(self) -> str:
        """Key of the first judge that rates each answer; "" if none does."""
        return next(
            (
                key
                for key, found in self.judged.items()
                if all(r.rows and "rating" in r.rows[0] for r in found.values())
            ),
            "",
        )

    def side_by_side(self, records: Sequence[Record], number: int) -> Rows:
        """Prompts with all answers, taken from the categories in turn.

        The ratings are those of the judge `rater`.
        """
        rater = self.rater
        rated = self.judged[rater] if rater else None
        seen: dict[str, int] = {}
        order = []
        for i, record in enumerate(records):
            category = record.get("category", "")
            seen[category] = seen.get(category, 0) + 1
            order.append((seen[category], i))
        rows = []
        for _, i in sorted(order)[:number]:
            responses = {
                name: [texts[i], rated[name].rows[i]["rating"] if rated else None]
                for name, texts in self.answers.items()
            }
            rows.append(
                {
                    "prompt": records[i]["prompt"],
                    "category": records[i].get("category", ""),
                    "responses": responses,
                }
            )
        return rows


def commit() -> str:
    """The checkout's commit, with + if there are changes; "unknown" without git."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip()
