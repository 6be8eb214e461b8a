"""Simulated labelers as judges: those of the training data, and others (§3.4)."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.errors import UserError
from instructgpt.evals.interface import Setting
from instructgpt.evals.judgements import Judgement
from instructgpt.evals.judges.gold import world_of
from instructgpt.evals.preference import HELD_OUT
from instructgpt.world import Task, World, rank_by_each


class LabelersJudge:
    """Has the answers of all models to a prompt ranked by labelers of each group.

    Unlike the gold judge they have tastes and noise, and tie answers that seem alike.
    Like it they put truthfulness and harmlessness first, as in the paper's evaluations.
    The policies have learnt from the rankings of the training labelers, and from none
    of the held-out ones.
    """

    def __init__(self, world: World, *, number: int):
        self._world, self._number = world, number

    @classmethod
    def open(cls, setting: Setting, number: int = 2) -> "LabelersJudge":
        """Builds the judge.

        Args:
          setting: The comparison, in the miniature world.
          number: Labelers of each group who rank a prompt's answers.

        Raises:
          UserError: there is no world, or a group has fewer labelers.
        """
        world = world_of(setting, "group of simulated labelers")
        smallest = min(map(len, _groups(world).values()))
        if type(number) is not int or not 1 <= number <= smallest:
            raise UserError(
                f"config.judges: number={number!r} labelers of each group; give a "
                f"whole number from 1 to {smallest}"
            )
        return cls(world, number=number)

    def judge(
        self,
        records: Sequence[Mapping[str, Any]],
        responses: Mapping[str, Sequence[str]],
    ) -> list[Judgement]:
        """Returns the ranks, 1 to 5, by every labeler who was drawn for a prompt."""
        found = []
        names = list(responses)
        for i, record in enumerate(records):
            rng = random.Random(f"labelers of {record['id']}")
            texts = [responses[name][i] for name in names]
            task = Task.from_json(record["task"])
            for group, labelers in _groups(self._world).items():
                drawn = rng.sample(labelers, self._number)
                for labeler, ranks in zip(
                    drawn,
                    rank_by_each(drawn, task, texts, rng, rule="final"),
                    strict=True,
                ):
                    found += [
                        Judgement(
                            id=record["id"],
                            model=name,
                            rank=rank,
                            labeler=labeler.name,
                            group=group,
                        )
                        for name, rank in zip(names, ranks, strict=True)
                    ]
        return found


def _groups(world: World) -> dict[str, list[Any]]:
    labelers = world.labelers()
    return {
        "training": [one for one in labelers if not one.held_out],
        HELD_OUT: [one for one in labelers if one.held_out],
    }
