"""Judges models by the miniature world's gold judge (paper §4.1, Figs 1, 4, 5)."""

from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.errors import UserError
from instructgpt.evals.interface import Results, Setting, Value
from instructgpt.evals.intervals import mean_interval, win_rate
from instructgpt.world import Judgement, Task, World, judge
from instructgpt.world.tasks import KINDS

LIKERT = (1.0, 7.0)  # the ends of the scale
# The bars of the paper's Fig. 4: name -> (flag of the judge, whether it is negated).
FLAGS = {
    "attempts_correct_instruction": ("fails_to_follow_instruction", True),
    "follows_constraint": ("satisfies_constraint", False),
    "hallucination": ("hallucination", False),
    "appropriate_for_customer_assistant": (
        "inappropriate_for_customer_assistant",
        True,
    ),
}


class GoldJudge:
    """Rates answers from 1 to 7, flags them, and computes win rates by utility."""

    def __init__(self, world: World, baseline: str):
        self._world, self._baseline = world, baseline

    @classmethod
    def open(cls, setting: Setting) -> "GoldJudge":
        """Builds the judge of the data's world.

        Raises:
          UserError: the data are not the miniature world's.
        """
        if setting.data.world is None:
            raise UserError(
                "config.judges: only the miniature world has a gold judge; for "
                "data of your own take another, --config.judges.gold.name=reward"
            )
        return cls(setting.data.world, setting.baseline)

    def judge(
        self, records: Sequence[Mapping[str, Any]], responses: Mapping[str, list[str]]
    ) -> dict[str, Results]:
        """Returns win rates, Likert scores, flags, and Likert scores by category."""
        judged = {
            name: judge_all(self._world, records, texts)
            for name, texts in responses.items()
        }
        out = {}
        for name, found in judged.items():
            compared = None if name == self._baseline else judged[self._baseline]
            numbers: dict[str, Value] = {}
            for key, value in summarise(records, found, compared).items():
                if isinstance(value, dict):
                    numbers |= {f"{key}/{own}": v for own, v in value.items()}
                else:
                    numbers[key] = value
            rows = [
                {"rating": j.likert, "utility": j.utility, "flags": j.flags}
                for j in found
            ]
            out[name] = Results(numbers, rows)
        return out


def judge_all(
    world: World, records: Sequence[Mapping[str, Any]], responses: Sequence[str]
) -> list[Judgement]:
    """Gold judgements of one response per prompt record."""
    return [
        judge(world, record["task"], text)
        for record, text in zip(records, responses, strict=True)
    ]


def summarise(
    records: Sequence[Mapping[str, Any]],
    judgements: Sequence[Judgement],
    baseline: Sequence[Judgement] | None,
) -> dict[str, Any]:
    """Win rate against a baseline, Likert score and flags, each [mean, low, high].

    A tie in utility counts one half. Flags about constraints and hallucination use only
    prompts that have a constraint or a text to stay within.

    Args:
      records: The N prompts.
      judgements: N judgements of a model's answers.
      baseline: N judgements of the baseline's answers; None if the model is the
        baseline itself, whose win rate is exactly one half.
    """
    utilities = [j.utility for j in judgements]
    likert = [j.likert for j in judgements]
    categories = sorted({r["category"] for r in records})
    return {
        "win_rate": [0.5, 0.5, 0.5]
        if baseline is None
        else list(win_rate(utilities, [j.utility for j in baseline])),
        "likert": list(mean_interval(likert, limits=LIKERT)),
        "flags": _flags(records, judgements),
        "categories": {
            c: list(
                mean_interval(
                    [
                        j.likert
                        for r, j in zip(records, judgements, strict=True)
                        if r["category"] == c
                    ],
                    limits=LIKERT,
                )
            )
            for c in categories
        },
    }


def _flags(
    records: Sequence[Mapping[str, Any]], judgements: Sequence[Judgement]
) -> dict[str, list[float]]:
    out = {}
    for name, (flag, negated) in FLAGS.items():
        values = [
            float(j.flags[flag] != negated)
            for r, j in zip(records, judgements, strict=True)
            if _applies(name, r)
        ]
        if values:
            out[name] = list(mean_interval(values, limits=(0.0, 1.0)))
    return out


def _applies(name: str, record: Mapping[str, Any]) -> bool:
    task = Task.from_json(record["task"])
    if name == "follows_constraint":
        return bool(task.constraint)
    if name == "hallucination":
        return KINDS[task.kind].closed
    return True
