"""Tasks of the category closed QA: questions about a given text."""

import random

from instructgpt.world import phrases
from instructgpt.world.facts import (
    PERSON_ATTRIBUTES,
    Facts,
)
from instructgpt.world.given_text import context_text, visitor_context
from instructgpt.world.grammar import Reading
from instructgpt.world.kinds import (
    Slots,
    Style,
    Task,
    Verdict,
    has,
    items_of,
    known,
    steps,
    weigh_about,
)
from instructgpt.world.tasks.open_qa import QUESTIONS, AskPerson

_NO_FACTS = Facts({})


class ClosedQA(AskPerson):
    """A question that the given text answers, or in some cases does not."""

    name, category, weight = "closed_qa", "closed_qa", 1.0
    closed = True
    templates = (
        "{text} {question}",
        "Text: {text} Question: {question}",
        "Read the text. {text} {question}",
        "{question} Use this text: {text}",
    )
    constraints = ("one_sentence", "one_word")
    allowed = frozenset({"fragment", "unknown"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        context = visitor_context(rng, visitors=2, each=2)
        subject = rng.choice(context)[0]
        context.remove(next(row for row in context if row[0] != subject))
        told = [a for s, a, _ in context if s == subject]
        absent = [a for a in PERSON_ATTRIBUTES if a not in told]
        answerable = rng.random() < 0.88
        slots = {
            "subject": subject,
            "context": context,
            "attribute": rng.choice(told if answerable else absent),
            "wording": rng.randrange(2),
        }
        return f"{subject}/{context[0][2]}", slots

    def accepts(self, task: Task, constraint: str) -> bool:
        told = self.attribute(task) in known(_NO_FACTS, task)
        return told and super().accepts(task, constraint)

    def attribute(self, task: Task) -> str:
        return task.slots["attribute"]

    def prompt(self, task: Task) -> str:
        slots = task.slots
        question = QUESTIONS[slots["attribute"]][slots["wording"]]
        return self.templates[task.template].format(
            text=context_text(slots["context"]),
            question=question.format(s=slots["subject"]),
        )

    def question(self, task: Task) -> str:
        """The given text and the question, without other words of the prompt."""
        slots = task.slots
        question = QUESTIONS[slots["attribute"]][slots["wording"]]
        return f"{context_text(slots['context'])} {question.format(s=slots['subject'])}"

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        if self.attribute(task) in known(facts, task):
            return super().compose(facts, task, rng, style)
        return phrases.formula("unknown", rng)

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        if self.attribute(task) in known(facts, task):
            verdict = super().check(facts, task, reading)
            verdict.quality *= steps(verdict.stray, 1.0, 0.75, 0.5)  # text copied
            return verdict
        subject = task.slots["subject"]
        verdict, _ = weigh_about(facts, task, reading, subject=subject)
        verdict.false += len(items_of(reading))
        verdict.quality = float(has(reading, "unknown") and not verdict.false)
        verdict.detail = 1
        return verdict
