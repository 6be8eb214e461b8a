"""Tasks of the category summarization."""

import random

from instructgpt.world import phrases
from instructgpt.world.facts import (
    VALUES,
    VISITORS,
    Facts,
)
from instructgpt.world.grammar import Reading
from instructgpt.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    choose_attributes,
    context_of,
    finish,
    steps,
    weigh_about,
)


class Summarise(Kind):
    """One short sentence that keeps the main statements of a text."""

    name, category, weight = "summarise", "summarization", 1.0
    closed = True
    templates = (
        "Summarize this text: {text}",
        "{text} Summarize the text in a few words.",
        "Text: {text} Write a summary.",
        "Make this text shorter: {text}",
        "{text} What is the text about?",
    )
    constraints = ("one_sentence", "avoid:town", "mention:job")

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        subject = rng.choice(VISITORS)
        others = ("pet", "food", "colour", "hobby")
        attributes = ["job", "town", *rng.sample(others, rng.choice((2, 2, 3)))]
        rng.shuffle(attributes)
        context = [[subject, a, rng.choice(VALUES[a])] for a in attributes]
        return f"{subject}/{context[0][2]}", {"subject": subject, "context": context}

    def prompt(self, task: Task) -> str:
        return self.templates[task.template].format(text=self.text(task))

    def text(self, task: Task) -> str:
        """The given text: one sentence for each statement."""
        pairs = [(a, v) for _, a, v in task.slots["context"]]
        subject = task.slots["subject"]
        return phrases.paragraph(subject, pairs, sentences=len(pairs))

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        subject = task.slots["subject"]
        table = context_of(task)[subject]
        number = {"terse": 1, "full": 2, "detailed": 3}[style.level]
        chosen = choose_attributes(task, rng, number=number, options=tuple(table))
        pairs = [(a, v) for a, v in table.items() if a in chosen]
        text = phrases.sentence(subject, pairs)
        return finish(task, text)

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        subject = task.slots["subject"]
        verdict, told = weigh_about(facts, task, reading, subject=subject)
        verdict.quality = steps(len(told), 0.0, 0.45, 0.8, 1.0)
        verdict.detail = int(len(told) >= 3)
        limit = 0.85 * len(self.text(task).split())
        if reading.words > limit or reading.pieces == tuple(
            s + "." for s in self.text(task).rstrip(".").split(". ")
        ):
            verdict.quality *= 0.4
        elif len(reading.units) > 2:
            verdict.quality *= 0.7
        return verdict
