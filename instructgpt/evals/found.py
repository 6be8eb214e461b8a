"""Runs evaluators and judges, and arranges their results for results.json."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from instructgpt.errors import UserError, shown
from instructgpt.evals.agreement.judged import agreements
from instructgpt.evals.interface import Evaluator, Judge, Record, Results, nested
from instructgpt.evals.judgements import check_judgements
from instructgpt.evals.preference import Judged, summarise
from instructgpt.inference import LanguageModel

Rows = list[dict[str, Any]]
# Numbers of the reward model as a judge -> their names in a model's entry.
# The judge that decides is the first of these; "own" is any of a user.
_ORDER = ("people", "gold", "chat", "labelers", "own", "reward")
_BY_REWARD = {"score": "mean_score", "win_rate": "score_win_rate"}


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
    *,
    baseline: str,
) -> dict[str, Judged]:
    """Runs each judge on the answers of all models, and computes their numbers.

    Raises:
      UserError: two prompts have one id, or a judge gives something other than
        judgements of these answers.
    """
    ids = [record["id"] for record in records]
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"two of the compared prompts have the id {double!r}")
    out = {}
    for key, judge in judges.items():
        found = check_judgements(
            judge.judge(records, answers),
            where=f"config.judges.{key}: its judge() gives",
            ids=ids,
            models=answers,
        )
        out[key] = summarise(found, records, answers, baseline=baseline)
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
    judged: Mapping[str, Judged]  # by the judge's key

    def numbers(
        self,
        *,
        labels: Mapping[str, str],
        judges: Mapping[str, str],
        losses: set[str],
    ) -> dict[str, Any]:
        """The numbers of `results.json`.

        Numbers of the deciding judge, the reward model's scores and the held-out loss
        are entries of each model. The others are under `judges` and `evaluators`, by
        key and by model.

        Args:
          labels: The models' displayed names.
          judges: Name of each judge's class in the config, by key.
          losses: Keys of the evaluators of the held-out loss.
        """
        models: dict[str, dict[str, Any]] = {
            name: {"label": label} for name, label in labels.items()
        }
        tax: dict[str, Any] = {}
        others: dict[str, dict[str, Any]] = {"judges": {}, "evaluators": {}}
        decides = self.decides(judges)
        for key, found in self.judged.items():
            for name, entry in models.items():
                numbers = nested(found.models[name].numbers)
                # It is the same for all judges.
                entry["words"] = numbers.pop("words")
                if judges[key] == "reward":
                    entry |= {
                        shown: numbers[own]
                        for own, shown in _BY_REWARD.items()
                        if own in numbers
                    }
                elif key == decides:
                    entry.update(numbers)
                else:
                    others["judges"].setdefault(key, {})[name] = numbers
        for name, results in self.measured.items():
            for key, result in results.items():
                numbers = nested(result.numbers)
                if key in losses:
                    tax[name] = numbers["pretrain_loss"]
                else:
                    others["evaluators"].setdefault(key, {})[name] = numbers
        return {
            "models": models,
            "pretrain_loss": tax,
            **others,
            "judged_by": decides,
            "groups": {k: found.groups for k, found in self.judged.items()},
            "agreement": agreements(self.judged),
        }

    def decides(self, judges: Mapping[str, str]) -> str:
        """Key of the judge whose numbers stand first; "" if there is none.

        People come first, then those who know the truth, and the reward model last.
        """

        def place(key: str) -> int:
            name = judges[key]
            return _ORDER.index(name if name in _ORDER else "own")

        return min(self.judged, key=place, default="")

    def rows(self, records: Sequence[Record]) -> dict[str, Rows]:
        """Each model's answers with the judges' rows, and the evaluators' own rows.

        Returns:
          Rows by file name: MODEL, and EVALUATOR.MODEL.
        """
        out: dict[str, Rows] = {}
        for name, texts in self.answers.items():
            said = {k: found.models[name].rows for k, found in self.judged.items()}
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
                if all(
                    r.rows and all("rating" in row for row in r.rows)
                    for r in found.models.values()
                )
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
                name: [
                    texts[i],
                    rated.models[name].rows[i]["rating"] if rated else None,
                ]
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
