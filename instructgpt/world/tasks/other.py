"""Tasks of the category other: sums, and the word that does not belong."""

import random

from instructgpt.world.facts import (
    CLASS_OF_ATTRIBUTE,
    NUMBERS,
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
        verdict = weigh_off_topic(facts, task, reading)
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
        verdict = weigh_off_topic(facts, task, reading)
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
