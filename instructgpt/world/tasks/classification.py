"""Tasks of the category classification: sentiment, and the class of a thing."""

import random

from instructgpt.world import phrases
from instructgpt.world.facts import (
    BAD,
    CLASS_OF_ATTRIBUTE,
    GOOD,
    THINGS,
    VALUES,
    Facts,
)
from instructgpt.world.grammar import Reading
from instructgpt.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    finish,
    items_of,
    weigh_off_topic,
    with_courtesy,
)


class Sentiment(Kind):
    """Is a review positive or negative?"""

    name, category, weight = "sentiment", "classification", 0.6
    closed = True
    templates = (
        "Is this review positive or negative? {text}",
        "Review: {text} Is it positive or negative?",
        "{text} Is this a positive or a negative review?",
        "Positive or negative? Review: {text}",
    )
    constraints = ("one_word",)
    allowed = frozenset({"sentiment", "fragment"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        first, second = rng.sample(THINGS, 2)
        good = rng.random() < 0.5
        words = rng.sample(GOOD if good else BAD, 2)
        slots = {
            "pairs": [[first, words[0]], [second, words[1]]],
            "mood": "positive" if good else "negative",
        }
        return f"{first}/{words[0]}", slots

    def prompt(self, task: Task) -> str:
        return self.templates[task.template].format(text=self.text(task))

    def text(self, task: Task) -> str:
        """The review."""
        (a, x), (b, y) = task.slots["pairs"]
        return f"The {a} was {x} and the {b} was {y}."

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        mood = task.slots["mood"]
        if style.level == "terse" or task.constraint == "one_word":
            return finish(task, phrases.capital(mood) + ".")
        text = f"The review is {mood}."
        if style.level == "detailed":
            thing, word = rng.choice(task.slots["pairs"])
            text = f"The review is {mood} because the {thing} was {word}."
        return finish(task, with_courtesy(task, text, rng, style))

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict = weigh_off_topic(facts, task, reading)
        mood = task.slots["mood"]
        units = [u for u in reading.units if u.kind == "sentiment"]
        bare = [v for a, v in items_of(reading)]
        said = [u.slot("mood") for u in units] + bare
        verdict.quality = float(bool(said) and all(s == mood for s in said))
        verdict.full = bool(units)
        for unit in units:
            reason = unit.slot("thing"), unit.slot("adjective")
            if reason != (None, None):
                right = list(reason) in task.slots["pairs"]
                verdict.detail += right
                verdict.false += not right
        return verdict


class ClassOf(Kind):
    """Which class does a thing belong to?"""

    name, category, weight = "class_of", "classification", 0.4
    attributes = ("pet", "food", "colour", "job", "hobby")
    templates = (
        "Is {thing} an animal, a food, a colour, a job or a hobby?",
        "Animal, food, colour, job or hobby: {thing}",
        "Into which class, animal, food, colour, job or hobby, do you put {thing}?",
        "Which class does {thing} belong to, animal, food, colour, job or hobby?",
    )
    allowed = frozenset({"class", "fragment"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        attribute = rng.choice(self.attributes)
        thing = rng.choice(VALUES[attribute])
        return thing, {"thing": thing, "attribute": attribute}

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        thing, attribute = task.slots["thing"], task.slots["attribute"]
        name = CLASS_OF_ATTRIBUTE[attribute]
        article = "an" if name == "animal" else "a"
        if style.level == "terse":
            return finish(task, phrases.capital(f"{article} {name}."))
        text = f"{named(thing, attribute)} is {article} {name}."
        if style.level == "detailed":
            other = rng.choice([v for v in VALUES[attribute] if v != thing])
            text += f" {named(other, attribute)} is also {article} {name}."
        return finish(task, with_courtesy(task, text, rng, style))

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict = weigh_off_topic(facts, task, reading)
        thing, attribute = task.slots["thing"], task.slots["attribute"]
        name = CLASS_OF_ATTRIBUTE[attribute]
        units = [u for u in reading.units if u.kind == "class"]
        bare = [v for _, v in items_of(reading)]
        about = [u for u in units if u.slot("thing") in (None, thing)]
        said = [u.slot("class") for u in about] + bare
        verdict.quality = float(bool(said) and all(s == name for s in said))
        verdict.full = bool(about)
        for unit in units:
            if unit not in about:
                right = unit.slot("class") == name
                right = right and unit.slot("thing") in VALUES[attribute]
                verdict.detail += right
                verdict.false += not right
        return verdict


def named(thing: str, attribute: str) -> str:
    """The name of a thing at the start of a sentence: "A dog", "Soup"."""
    if attribute in ("pet", "job"):
        return f"A {thing}"
    return phrases.capital(thing)
