"""Kinds of task in the categories classification and other."""

import random

from instructgpt.data.world import phrases
from instructgpt.data.world.facts import (
    BAD,
    CLASS_OF_ATTRIBUTE,
    GOOD,
    NUMBERS,
    THINGS,
    VALUES,
    Facts,
)
from instructgpt.data.world.grammar import Reading
from instructgpt.data.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    finish,
    items_of,
    weigh_about,
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
        verdict, told = weigh_about(facts, task, reading, subject="")
        verdict.stray += len(told)
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
        verdict, told = weigh_about(facts, task, reading, subject="")
        verdict.stray += len(told)
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
    """The thing as a sentence begins with it: "A dog", "Soup"."""
    if attribute in ("pet", "job"):
        return f"A {thing}"
    return phrases.capital(thing)


class Sum(Kind):
    """A sum of two small numbers."""

    name, category, weight = "sum", "other", 0.5
    templates = (
        "What is {a} plus {b}?",
        "What is the sum of {a} and {b}?",
        "Tell me what {a} plus {b} is.",
        "Find the sum of {a} and {b}.",
    )
    allowed = frozenset({"sum", "fragment"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        a = rng.randrange(1, 8)
        b = rng.randrange(1, 9 - a)
        slots = {"a": NUMBERS[a - 1], "b": NUMBERS[b - 1], "total": NUMBERS[a + b - 1]}
        return f"{a}+{b}", slots

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        slots = task.slots
        text = f"The sum of {slots['a']} and {slots['b']} is {slots['total']}."
        if style.level == "terse":
            text = f"It is {slots['total']}."
        return finish(task, with_courtesy(task, text, rng, style))

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict, told = weigh_about(facts, task, reading, subject="")
        verdict.stray += len(told)
        slots = task.slots
        sums = [u for u in reading.units if u.kind == "sum"]
        spelt = [u for u in sums if u.slot("number")]
        said = [u.slot("number3") for u in sums] + [v for _, v in items_of(reading)]
        asked = all(
            {u.slot("number"), u.slot("number2")} == {slots["a"], slots["b"]}
            for u in spelt
        )
        right = bool(said) and asked and all(s == slots["total"] for s in said)
        verdict.quality = float(right)
        verdict.false += bool(said) and not right
        verdict.full, verdict.detail = bool(spelt), int(bool(spelt))
        return verdict


class OddOneOut(Kind):
    """Which word does not belong to the others?"""

    name, category, weight = "odd_one_out", "other", 0.5
    attributes = ("pet", "food", "colour", "job", "hobby")
    templates = (
        "Which word does not belong: {words}?",
        "One of these words does not belong: {words}. Which one?",
        "Find the word that does not belong: {words}.",
        "Words: {words}. Which word does not belong?",
    )
    allowed = frozenset({"odd", "fragment"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        many, one = rng.sample(self.attributes, 2)
        odd = rng.choice(VALUES[one])
        words = [odd, *rng.sample(VALUES[many], 2)]
        rng.shuffle(words)
        slots = {"words": ", ".join(words), "odd": odd, "attribute": one}
        return f"{odd}/{many}", slots

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        text = f"The word {task.slots['odd']}"
        if style.level == "terse":
            return finish(task, f"{text}.")
        text += " does not belong"
        if style.level == "detailed":
            name = CLASS_OF_ATTRIBUTE[task.slots["attribute"]]
            text += f" because it is {'an' if name == 'animal' else 'a'} {name}"
        return finish(task, with_courtesy(task, text + ".", rng, style))

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict, told = weigh_about(facts, task, reading, subject="")
        verdict.stray += len(told)
        odd = task.slots["odd"]
        units = [u for u in reading.units if u.kind == "odd"]
        whole = "does not belong" in reading.text.lower()
        said = [u.slot("thing") for u in units] + [v for _, v in items_of(reading)]
        verdict.quality = float(bool(said) and all(s == odd for s in said))
        verdict.full = bool(units) and whole
        name = CLASS_OF_ATTRIBUTE[task.slots["attribute"]]
        for unit in units:
            given = unit.slot("class")
            verdict.detail += given == name
            verdict.false += given not in (None, name)
        return verdict
