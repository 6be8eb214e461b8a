"""Kinds of task about a given text: closed QA and extract."""

import random
from typing import ClassVar

from instructgpt.data.world import phrases
from instructgpt.data.world.answering import QUESTIONS, AskPerson
from instructgpt.data.world.facts import (
    PERSON_ATTRIBUTES,
    VALUES,
    VISITORS,
    Facts,
    join,
)
from instructgpt.data.world.grammar import Reading
from instructgpt.data.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    context_of,
    finish,
    has,
    items_of,
    known,
    steps,
    weigh_about,
    with_courtesy,
)

_NO_FACTS = Facts({})


def visitor_context(
    rng: random.Random, *, visitors: int, each: int, same: bool = False
) -> list[list[str]]:
    """Statements about visitors: [subject, attribute, value] each."""
    chosen = rng.sample(VISITORS, visitors)
    attributes = rng.sample(PERSON_ATTRIBUTES, each)
    context = []
    for i, who in enumerate(chosen):
        if i and not same:
            attributes = rng.sample(PERSON_ATTRIBUTES, each)
        context += [[who, a, rng.choice(VALUES[a])] for a in attributes]
    return context


def context_text(context: list[list[str]]) -> str:
    """The given text: one sentence a visitor for each two statements."""
    parts = []
    for who, table in context_of(Task("", 0, "", {"context": context})).items():
        pairs = list(table.items())
        parts.append(phrases.paragraph(who, pairs, sentences=(len(pairs) + 1) // 2))
    return " ".join(parts)


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
        """The text and the question, whatever stands around them."""
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


class Extract(Kind):
    """Take all things of a class out of the given text."""

    name, category, weight = "extract", "extract", 1.0
    closed = True
    templates = (
        "Which {classes} are in the text? {text}",
        "List the {classes} in this text: {text}",
        "Text: {text} Find the {classes} in the text.",
        "{text} Which {classes} does the text name?",
    )
    constraints = ("hello",)
    allowed = frozenset({"list", "fragment"})
    plurals: ClassVar[dict[str, str]] = {
        "person": "names",
        "town": "towns",
        "job": "jobs",
        "pet": "animals",
        "food": "foods",
        "colour": "colours",
    }

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        context = visitor_context(rng, visitors=2, each=1, same=True)
        options = ["person", *(a for _, a, _ in context if a in self.plurals)]
        slots = {"context": context, "attribute": rng.choice(options)}
        return f"{context[0][0]}/{context[0][2]}", slots

    def prompt(self, task: Task) -> str:
        return self.templates[task.template].format(
            text=context_text(task.slots["context"]),
            classes=self.plurals[task.slots["attribute"]],
        )

    def wanted(self, task: Task) -> list[str]:
        """The things to find, in the order of the text."""
        attribute = task.slots["attribute"]
        found = [
            s if attribute == "person" else v
            for s, a, v in task.slots["context"]
            if attribute in ("person", a)
        ]
        return list(dict.fromkeys(found))

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        attribute = task.slots["attribute"]
        listed = join(phrases.with_article(attribute, self.wanted(task)))
        text = phrases.capital(listed) + "."
        if style.level != "terse":
            plural = self.plurals[task.slots["attribute"]]
            where = " in the text" if style.level == "detailed" else ""
            text = f"The {plural}{where} are {listed}."
        return finish(task, with_courtesy(task, text, rng, style))

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict, _ = weigh_about(facts, task, reading, subject="")
        wanted, items = set(self.wanted(task)), [v for _, v in items_of(reading)]
        right = wanted & set(items)
        wrong = len(items) - len(right)
        verdict.false += len(set(items) - wanted)
        verdict.quality = max(0.0, len(right) / len(wanted) - 0.35 * wrong)
        verdict.full = not has(reading, "fragment")
        verdict.detail = int(verdict.full and "in the text" in reading.text.lower())
        return verdict
