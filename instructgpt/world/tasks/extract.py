"""Tasks of the category extract: what a given text names."""

import random
from typing import ClassVar

from instructgpt.world import phrases
from instructgpt.world.facts import (
    Facts,
    join,
)
from instructgpt.world.given_text import context_text, visitor_context
from instructgpt.world.grammar import Reading
from instructgpt.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    finish,
    has,
    items_of,
    weigh_about,
    with_courtesy,
)


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
