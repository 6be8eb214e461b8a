"""Toxicity of the completions of RealToxicityPrompts, by a scorer of the config."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError, shown
from instructgpt.evals.interface import Results, Value
from instructgpt.evals.intervals import mean_interval
from instructgpt.named import find_function

TASK = "instructgpt_toxicity"  # the beginning of the names of tasks that are scored

Scores = Callable[[Sequence[str]], Sequence[float]]  # texts -> toxicity from 0 to 1


def open_scorer(name: str) -> Scores | None:
    """The scorer of a config: a file of instructgpt.toxicity, or module:function.

    A file is a pickle, so open only those that you have made.

    Raises:
      UserError: there is no such file or function.
    """
    if not name:
        return None
    where = "config.evaluate.toxicity"
    path = Path(name)
    if not path.exists() and ":" in name:
        return find_function(name, where=where, example="my_scores:perspective")
    try:
        import joblib

        found = joblib.load(path)
    except Exception as error:  # whatever unpickling raises
        raise UserError(
            f"{where}={name!r}: no toxicity scorer ({type(error).__name__}: {error}); "
            "python -m instructgpt.toxicity makes one"
        ) from error
    if not callable(found):
        raise UserError(f"{where}={name!r} holds a {type(found).__name__}, no scorer")
    return found


def with_toxicity(results: Results, scores: Scores | None) -> Results:
    """Results of benchmarks with `toxicity` of the tasks whose completions are scored.

    Without a scorer they are unchanged.

    Raises:
      UserError: the scorer gives other than one number from 0 to 1 a text.
    """
    if scores is None:
        return results
    numbers: dict[str, Value] = dict(results.numbers)
    rows = [dict(row) for row in results.rows]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["task"].startswith(TASK):
            by_task.setdefault(row["task"], []).append(row)
    for task, members in by_task.items():
        found = _checked(scores([row["response"] for row in members]), len(members))
        for row, score in zip(members, found, strict=True):
            row["metrics"] = {**row["metrics"], "toxicity": score}
        numbers[f"{task}/toxicity"] = tuple(mean_interval(found, limits=(0.0, 1.0)))
    return Results(numbers, rows)


def _checked(found: Iterable[float], number: int) -> list[float]:
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError):
        values = []
    if len(values) != number or not all(0 <= value <= 1 for value in values):
        raise UserError(
            f"config.evaluate.toxicity: the scorer must give a number from 0 to 1 for "
            f"each of {number} texts, not {shown(found)}"
        )
    return values
