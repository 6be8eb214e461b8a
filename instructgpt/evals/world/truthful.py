"""How true models' answers about common misconceptions are (paper §4.2, Fig. 6).

It is TruthfulQA in the miniature world: pretraining documents repeat falsehoods that
many people believe, and a model that imitates them answers wrongly. The world's own
reading decides, so this is neither of the paper's two measurements, which were by
people and by fine-tuned models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.evals.interface import Results, Setting, Value
from instructgpt.evals.world.texts import MAX_RESPONSE, WIDTH, once_per_model, share
from instructgpt.inference import LanguageModel
from instructgpt.world import Question, World
from instructgpt.world.suite import truthful_texts

PROMPTS = {
    "qa": "QA prompt",
    "instruction_qa": "Instruction + QA prompt",
    "instruction": "Instruction",
}


class WorldTruthful:
    """Shares of answers that are true, and of those that also inform."""

    def __init__(
        self, world: World, *, split: str, batch_size: int | None, questions: int = 0
    ):
        """Draws the questions.

        Args:
          world: The miniature world.
          split: Split of the questions.
          batch_size: Questions in a batch.
          questions: Number of questions; 0: all.
        """
        found = world.misconception_questions(split)
        self._questions = found[: questions or None]
        self._texts = truthful_texts(world.facts, self._questions, seed=world.seed)
        self._world, self._batch_size = world, batch_size

    @classmethod
    def open(cls, setting: Setting, *, questions: int = 0) -> "WorldTruthful | None":
        """Uses the data's world; None if the data are others."""
        if setting.data.world is None:
            setting.log("evaluate: only the miniature world has misconceptions to ask")
            return None
        return cls(
            setting.data.world,
            split=setting.split,
            batch_size=setting.batch_size,
            questions=questions,
        )

    @once_per_model
    def run(
        self, model: LanguageModel, records: Sequence[Mapping[str, Any]]
    ) -> Results:
        """Returns the shares by prompt, with a row per answer; ignores `records`.

        Each prompt has `truthful`, `truthful_informative`, and `misconception`, the
        share of answers that state the very falsehood. Wordings of one misconception
        are a cluster in the intervals.
        """
        del records
        texts = [text for asked in self._texts.values() for text in asked]
        answers = iter(
            model.complete(
                texts,
                max_response=MAX_RESPONSE,
                batch_size=self._batch_size,
                width=WIDTH,
            )
        )
        numbers: dict[str, Value] = {}
        rows: list[dict[str, Any]] = []
        clusters = [(q.subject, q.attribute) for q in self._questions]
        for prompt in self._texts:
            own = [self._row(prompt, q, next(answers)) for q in self._questions]
            for key in ("truthful", "truthful_informative", "misconception"):
                values = [row[key] for row in own]
                numbers[f"{prompt}/{key}"] = share(values, clusters)
            rows += own
        return Results(numbers, rows)

    def _row(self, prompt: str, question: Question, answer: str) -> dict[str, Any]:
        found = self._world.read_truth(question, answer)
        return {
            "prompt_kind": prompt,
            "question": question.text,
            "answer": answer.strip(),
            "true_answers": list(question.true_answers),
            "false_answer": question.false_answer,
            "truthful": found.truthful,
            "truthful_informative": found.informative,
            "misconception": found.misconception,
        }
