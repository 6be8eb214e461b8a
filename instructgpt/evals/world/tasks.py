"""Accuracy in the world's own NLP tasks: the alignment tax (paper §4.2, Figs 28-29).

Answers to questions are generated, endings and classes are chosen by the mean log-prob
of a token; all prompts are raw text, without and with solved examples (App. D).
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.evals.interface import Results, Setting, Value
from instructgpt.evals.world.texts import MAX_RESPONSE, WIDTH, once_per_model, share
from instructgpt.inference import LanguageModel
from instructgpt.world import World
from instructgpt.world.suite import (
    SHOTS,
    Choice,
    classification_choices,
    completion_choices,
    qa_examples,
    qa_text,
)

SETTINGS = {"zero_shot": 0, "few_shot": SHOTS}  # number of solved examples
# Tasks and the accuracy of a guess.
TASKS = {"question_answering": 0.0, "completion": 0.25, "classification": 0.5}


class WorldTasks:
    """Question answering, completion and classification, zero-shot and few-shot."""

    def __init__(
        self, world: World, *, split: str, batch_size: int | None, questions: int = 100
    ):
        """Draws the questions.

        Args:
          world: The miniature world.
          split: Split of the questions.
          batch_size: Questions in a batch.
          questions: Largest number of questions of each task and setting.
        """
        self._world, self._batch_size = world, batch_size
        rng = random.Random(f"examples of facts {world.seed}")
        examples = qa_examples(world.facts, rng)
        told = {answer for _, answer in examples}
        self._questions = [
            q for q in world.fact_questions(split) if not told & set(q.true_answers)
        ][:questions]
        self._texts = {
            name: [qa_text(q.text, examples[:shots]) for q in self._questions]
            for name, shots in SETTINGS.items()
        }
        same: dict[str, Any] = dict(seed=world.seed, split=split, number=questions)
        self._choices: dict[tuple[str, str], list[Choice]] = {}
        for name, shots in SETTINGS.items():
            self._choices["completion", name] = completion_choices(
                world.facts, shots=shots, **same
            )
            self._choices["classification", name] = classification_choices(
                shots=shots, **same
            )

    @classmethod
    def open(cls, setting: Setting, *, questions: int = 100) -> "WorldTasks | None":
        """Uses the data's world; None if the data are others."""
        if setting.data.world is None:
            setting.log("evaluate: only the miniature world has tasks of its own")
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
        """Returns accuracies, with a row per question; ignores `records`."""
        del records
        rows = [*self._answered(model), *self._chosen(model)]
        numbers: dict[str, Value] = {}
        for setting in SETTINGS:
            for task in TASKS:
                own = [r for r in rows if (r["setting"], r["task"]) == (setting, task)]
                # Wordings of one fact have the same right answer.
                clusters = (
                    [row["right_answer"] for row in own]
                    if task == "question_answering"
                    else range(len(own))
                )
                right = [row["right"] for row in own]
                numbers[f"{setting}/{task}"] = share(right, clusters)
        return Results(numbers, rows)

    def _answered(self, model: LanguageModel) -> list[dict[str, Any]]:
        """Answers that give the fact and say nothing false are right."""
        texts = [text for asked in self._texts.values() for text in asked]
        answers = iter(
            model.complete(
                texts,
                max_response=MAX_RESPONSE,
                batch_size=self._batch_size,
                width=WIDTH,
            )
        )
        rows = []
        for setting in self._texts:
            for question in self._questions:
                answer = next(answers).strip()
                rows.append(
                    {
                        "task": "question_answering",
                        "setting": setting,
                        "text": question.text,
                        "answer": answer,
                        "right_answer": question.true_answers[0],
                        "right": self._world.read_truth(question, answer).informative,
                    }
                )
        return rows

    def _chosen(self, model: LanguageModel) -> list[dict[str, Any]]:
        """The choice whose tokens are the most probable on average is the answer."""
        pairs = [
            (choice.text, text)
            for choices in self._choices.values()
            for choice in choices
            for text in choice.choices
        ]
        found = iter(
            model.log_likelihood(
                pairs, raw=True, batch_size=self._batch_size, width=WIDTH
            )
        )
        rows = []
        for (task, setting), choices in self._choices.items():
            for choice in choices:
                scores = [next(found) for _ in choice.choices]
                means = [score.log_prob / score.num_tokens for score in scores]
                best = means.index(max(means))
                rows.append(
                    {
                        "task": task,
                        "setting": setting,
                        "text": choice.text,
                        "answer": choice.choices[best].strip(),
                        "right_answer": choice.choices[choice.right].strip(),
                        "right": best == choice.right,
                    }
                )
        return rows
