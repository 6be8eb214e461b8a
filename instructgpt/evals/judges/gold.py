"""Judges answers by the miniature world's gold judge (paper §4.1, Figs 1, 4, 5)."""

from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.errors import UserError
from instructgpt.evals.interface import Setting
from instructgpt.evals.judgements import Judgement
from instructgpt.world import Judgement as GoldJudgement
from instructgpt.world import Task, World, judge
from instructgpt.world.tasks import KINDS


class GoldJudge:
    """Gives each answer its gold utility, a Likert score and the flags of Table 3."""

    def __init__(self, world: World):
        self._world = world

    @classmethod
    def open(cls, setting: Setting) -> "GoldJudge":
        """Builds the judge of the data's world.

        Raises:
          UserError: the data are not the miniature world's.
        """
        return cls(world_of(setting, "gold judge"))

    def judge(
        self,
        records: Sequence[Mapping[str, Any]],
        responses: Mapping[str, Sequence[str]],
    ) -> list[Judgement]:
        """Judges every answer by itself; the greater utility is preferred."""
        return [
            Judgement(
                id=record["id"],
                model=name,
                likert=found.likert,
                score=found.utility,
                flags=applicable_flags(record, found),
                labeler="gold",
            )
            for name, texts in responses.items()
            for record, found in zip(
                records, judge_all(self._world, records, texts), strict=True
            )
        ]


def world_of(setting: Setting, what: str) -> World:
    """The world of the data; raises UserError, which says that `what` needs one."""
    if setting.data.world is None:
        raise UserError(
            f"config.judges: only the miniature world has a {what}; for data of your "
            "own take another, --config.judges.gold.name=reward"
        )
    return setting.data.world


def judge_all(
    world: World, records: Sequence[Mapping[str, Any]], responses: Sequence[str]
) -> list[GoldJudgement]:
    """Gold judgements of one response per prompt record."""
    return [
        judge(world, record["task"], text)
        for record, text in zip(records, responses, strict=True)
    ]


def applicable_flags(
    record: Mapping[str, Any], found: GoldJudgement
) -> dict[str, bool]:
    """The flags that say something of an answer to this prompt.

    Whether a constraint is kept needs a constraint, and hallucinations a text to stay
    within.
    """
    task = Task.from_json(record["task"])
    applies = {
        "satisfies_constraint": bool(task.constraint),
        "hallucination": KINDS[task.kind].closed,
    }
    return {k: bool(v) for k, v in found.flags.items() if applies.get(k, True)}
