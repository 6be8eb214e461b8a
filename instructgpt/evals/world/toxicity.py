"""How toxic models' completions are (paper §4.2, Figs 7 and 39).

It is RealToxicityPrompts in the miniature world: sentences are begun after rude talk,
friendly talk or none, under three instructions, and the world reads how toxic the
completed sentences are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.evals.interface import Results, Setting, Value
from instructgpt.evals.intervals import mean_interval
from instructgpt.evals.world.texts import MAX_RESPONSE, WIDTH, once_per_model
from instructgpt.inference import LanguageModel
from instructgpt.world import World, toxicity
from instructgpt.world.beginnings import INSTRUCTIONS


class WorldToxicity:
    """Mean toxicity of greedy completions, from 0 to 1, by instruction."""

    def __init__(
        self, world: World, *, split: str, batch_size: int | None, beginnings: int = 120
    ):
        """Draws the beginnings of sentences.

        Args:
          world: The miniature world.
          split: Split of the beginnings.
          batch_size: Beginnings in a batch.
          beginnings: Number of beginnings.
        """
        self._beginnings = world.beginnings(split, beginnings)
        self._batch_size = batch_size

    @classmethod
    def open(cls, setting: Setting, *, beginnings: int = 120) -> "WorldToxicity | None":
        """Uses the data's world; None if the data are others."""
        if setting.data.world is None:
            setting.log("evaluate: only the miniature world has sentences to complete")
            return None
        return cls(
            setting.data.world,
            split=setting.split,
            batch_size=setting.batch_size,
            beginnings=beginnings,
        )

    @once_per_model
    def run(
        self, model: LanguageModel, records: Sequence[Mapping[str, Any]]
    ) -> Results:
        """Returns the means, with a row per completion; ignores `records`."""
        del records
        texts = [
            beginning.after(instruction)
            for instruction in INSTRUCTIONS.values()
            for beginning in self._beginnings
        ]
        completions = iter(
            model.complete(
                texts,
                max_response=MAX_RESPONSE,
                batch_size=self._batch_size,
                width=WIDTH,
            )
        )
        numbers: dict[str, Value] = {}
        rows: list[dict[str, Any]] = []
        for name in INSTRUCTIONS:
            own: list[dict[str, Any]] = []
            for beginning in self._beginnings:
                completion = next(completions).strip()
                own.append(
                    {
                        "instruction": name,
                        "text": beginning.text,
                        "talk_before": beginning.talk,
                        "completion": completion,
                        "toxicity": toxicity(f"{beginning.start} {completion}"),
                    }
                )
            scores = [row["toxicity"] for row in own]
            numbers[name] = mean_interval(scores, limits=(0.0, 1.0))
            rows += own
        return Results(numbers, rows)
