"""Tasks of the category brainstorming: lists of things and ideas."""

import random
from typing import ClassVar

from instructgpt.world import phrases
from instructgpt.world.facts import (
    CLASSES,
    NUMBERS,
    RESIDENTS,
    TOWNS,
    VALUES,
    Facts,
    join,
    pronoun,
)
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


class ListClass(Kind):
    """Name some members of a class of things."""

    name, category, weight = "list_class", "brainstorming", 0.35
    templates: ClassVar[tuple[str, ...]] = (
        "List {number} {classes}.",
        "Name {number} {classes}.",
        "Give me {number} {classes} for my list.",
        "Which {classes} do you know? Name {number}.",
        "I need a list of {number} {classes}.",
    )
    constraints: ClassVar[tuple[str, ...]] = ("hello",)
    allowed = frozenset({"list", "fragment"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        name = rng.choice(sorted(CLASSES))
        number = rng.choice((2, 3))
        if name == "product":
            name = "job"
        slots = {"classes": CLASSES[name][0], "attribute": CLASSES[name][1]}
        return f"{name}{number}", slots | {"number": NUMBERS[number - 1]}

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        number = NUMBERS.index(task.slots["number"]) + 1
        items = rng.sample(VALUES[task.slots["attribute"]], number)
        listed = join(phrases.with_article(task.slots["attribute"], items))
        if style.level == "terse":
            text = phrases.capital(listed) + "."
        else:
            classes = task.slots["classes"]
            lead = f"Here are {task.slots['number']} {classes}: "
            if style.level == "full" and rng.random() < 0.5:
                lead = f"Some {classes} are "
            text = f"{lead}{listed}."
        return finish(task, with_courtesy(task, text, rng, style))

    def right(self, facts: Facts, task: Task) -> set[tuple[str, str]]:
        """The items that count as right."""
        attribute = task.slots["attribute"]
        return {(attribute, v) for v in VALUES[attribute]}

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        items = items_of(reading)
        number = NUMBERS.index(task.slots["number"]) + 1
        verdict, told = weigh_about(
            facts, task, reading, subject=task.slots.get("subject", "")
        )
        verdict.stray += len(told)
        right = self.right(facts, task) & set(items)
        wrong = len(items) - len(right)
        share = min(1.0, len(right) / number)
        exact = len(items) == number and not wrong
        verdict.quality = share if exact else max(0.0, 0.65 * share - 0.2 * wrong)
        verdict.false += len({i for i in items if i not in self.right(facts, task)})
        verdict.full = not has(reading, "fragment")
        verdict.detail = int(exact and any(u.slot("n") for u in reading.units))
        return verdict


class Residents(ListClass):
    """Name people who live in a town."""

    name, weight = "residents", 0.15
    templates = (
        "Name {number} people who live in {subject}.",
        "Who lives in {subject}? Give me {number} names.",
        "List {number} people from {subject}.",
        "Which people of {subject} do you know? Name {number}.",
    )
    allowed = frozenset({"residents", "fragment", "list"})

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        subject = rng.choice(TOWNS)
        return f"{subject}2", {"subject": subject, "number": "two"}

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        town = task.slots["subject"]
        number = NUMBERS.index(task.slots["number"]) + 1
        people = facts.living_in(town)
        listed = join(rng.sample(people, min(number, len(people))))
        text = f"{listed}." if style.level == "terse" else f"{listed} live in {town}."
        if style.level == "detailed":
            person = listed.split(",")[0].split(" ")[0]
            attribute = rng.choice(("job", "pet", "food"))
            pair = (attribute, facts.table[person][attribute])
            text += " " + phrases.sentence(person, [pair])
        return finish(task, with_courtesy(task, text, rng, style))

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        town = task.slots["subject"]
        number = NUMBERS.index(task.slots["number"]) + 1
        verdict, _ = weigh_about(facts, task, reading, subject="")
        names = [v for a, v in items_of(reading) if a == "person"]
        claims = [c for u in reading.units for c in u.claims if c.form != "not"]
        listed = [c.subject for c in claims if (c.attribute, c.value) == ("town", town)]
        named = [*names, *listed]
        right = {n for n in named if facts.of(n, "town") == town}
        wrong = len(named) - len(right)
        exact = len(right) == number and not wrong
        share = min(1.0, len(right) / number)
        verdict.quality = share if exact else max(0.0, 0.65 * share - 0.2 * wrong)
        verdict.false += len([n for n in names if facts.of(n, "town") != town])
        verdict.full = not has(reading, "fragment")
        extra = [
            c
            for c in claims
            if c.subject in right
            and facts.of(c.subject, c.attribute) == c.value
            and c.attribute != "town"
        ]
        verdict.detail = len(extra)
        verdict.stray = max(0, verdict.stray - len(right) - len(extra))
        return verdict


class Gifts(ListClass):
    """Ideas for a gift that fit what the person likes."""

    name, weight = "gifts", 0.3
    templates = (
        "Give me {number} ideas for a gift for {subject}.",
        "What could I give {subject}? I need {number} ideas.",
        "List {number} gifts that {subject} would like.",
        "I need {number} gifts for {subject}.",
    )
    allowed = frozenset({"gift", "fragment"})
    forms, prefix = phrases.GIFTS, "gift"
    subjects = RESIDENTS

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        subject = rng.choice(self.subjects)
        number = rng.choice((2, 3))
        slots = {"subject": subject, "number": NUMBERS[number - 1]}
        return f"{subject}{number}", slots

    def right(self, facts: Facts, task: Task) -> set[tuple[str, str]]:
        table = facts.table[task.slots["subject"]]
        return {(f"{self.prefix}:{a}", table[a]) for a in self.forms}

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        subject = task.slots["subject"]
        number = NUMBERS.index(task.slots["number"]) + 1
        table = facts.table[subject]
        chosen = rng.sample(sorted(self.forms), number)
        listed = join([self.forms[a].format(v=table[a]) for a in chosen])
        lead = self.lead(subject)
        text = f"{lead} {listed}."
        if style.level == "terse":
            text = phrases.capital(listed) + "."
        elif style.level == "detailed":
            told = [a for a in self.reasons if a not in chosen] or list(self.reasons)
            attribute = rng.choice(told)
            text += " " + phrases.sentence(
                pronoun(subject), [(attribute, table[attribute])]
            )
        return finish(task, with_courtesy(task, text, rng, style))

    reasons: tuple[str, ...] = ("food", "hobby", "pet", "colour")

    def lead(self, subject: str) -> str:
        """How the list begins."""
        return f"You could give {subject}"

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        subject = task.slots["subject"]
        verdict = super().check(facts, task, reading)
        about, told = weigh_about(facts, task, reading, subject=subject)
        verdict.stray = about.stray
        verdict.detail = len(told)
        leads = [u for u in reading.units if u.kind == self.prefix]
        name = "person" if self.prefix == "gift" else "town"
        for unit in leads:
            if (unit.slot(name) or subject) not in (subject, "her", "him"):
                verdict.quality *= 0.3
        return verdict


class Trip(Gifts):
    """Ideas for a trip to a town."""

    name, weight = "trip", 0.2
    templates = (
        "Give me {number} ideas for a trip to {subject}.",
        "What could I do in {subject}? I need {number} ideas.",
        "I will visit {subject}. Give me {number} things to do.",
        "List {number} things that people can do in {subject}.",
    )
    allowed = frozenset({"trip", "fragment"})
    forms, prefix, subjects = phrases.TRIPS, "trip", TOWNS
    reasons = ("sight", "river", "product", "direction", "weather")

    def lead(self, subject: str) -> str:
        return f"In {subject} you could"
