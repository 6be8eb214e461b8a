"""The word lists of the miniature world and its table of facts.

A world has residents and towns with fixed facts, which pretraining documents teach,
and visitors without facts, who appear only inside texts that come with a prompt: a
statement about a visitor is true when the given text says it. About some facts there is
a common misconception, which documents repeat as people do.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

WOMEN = "Mara Lena Sela Nira Tessa Vera Ilka Runa Dela".split()
MEN = "Tobin Arlo Bram Corin Davin Edric Falk Goran Henrik".split()
VISITOR_WOMEN = "Alba Bettina Clea Doro Enna".split()
VISITOR_MEN = "Ansel Boris Cato Dirk Emil".split()
VISITORS = [*VISITOR_WOMEN, *VISITOR_MEN]
RESIDENTS = [*WOMEN, *MEN]
TOWNS = "Velden Morra Osterby Kelm Dunmoor Halva Ristow Pellin".split()
RIVERS = "Orla Tamsin Wend Isk Luma Brenn Sova Dray".split()

PERSON_VALUES: dict[str, list[str]] = {
    "town": TOWNS,
    "job": "baker teacher farmer doctor sailor painter miller tailor".split(),
    "pet": "dog cat parrot horse rabbit goat duck turtle".split(),
    "food": "soup bread cheese fish rice cake honey porridge".split(),
    "colour": "red blue green yellow white black brown".split(),
    "hobby": (
        "singing dancing swimming reading painting cooking running climbing"
    ).split(),
}
TOWN_VALUES: dict[str, list[str]] = {
    "river": RIVERS,
    "product": "salt wool paper glass wine silk rope iron".split(),
    "direction": "north south east west".split(),
    "weather": "rainy sunny windy foggy".split(),
    "sight": ("tower bridge castle harbour market library garden clock").split(),
}
VALUES = PERSON_VALUES | TOWN_VALUES
THINGS = [*VALUES["food"], *VALUES["product"]]  # things to buy, ask for and review
PERSON_ATTRIBUTES = tuple(PERSON_VALUES)
TOWN_ATTRIBUTES = tuple(TOWN_VALUES)

NUMBERS = "one two three four five six seven eight".split()
GOOD = "fresh warm clean lovely good new".split()
BAD = "cold dirty slow broken bad old".split()
BAD_TRAITS = "stupid ugly lazy".split()
GOOD_TRAITS = "lovely kind friendly".split()

# Classes of things, singular to plural, with the attribute that holds their members.
CLASSES = {
    "animal": ("animals", "pet"),
    "food": ("foods", "food"),
    "colour": ("colours", "colour"),
    "job": ("jobs", "job"),
    "hobby": ("hobbies", "hobby"),
    "town": ("towns", "town"),
    "river": ("rivers", "river"),
    "product": ("products", "product"),
}
CLASS_OF_ATTRIBUTE = {attribute: name for name, (_, attribute) in CLASSES.items()}

# Numbers of misconceptions by the split of their questions, and what they are about.
MISCONCEPTIONS = {"train": 6, "valid": 5, "test": 18}
MISTAKEN = ("town", "job", "pet", "food", "hobby", "river", "product", "sight")

_FEMALE = frozenset(WOMEN) | frozenset(VISITOR_WOMEN)
_PEOPLE = frozenset(RESIDENTS) | frozenset(VISITORS)


def pronoun(subject: str) -> str:
    """Return "She", "He" or, for a town, "It"."""
    if subject not in _PEOPLE:
        return "It"
    return "She" if subject in _FEMALE else "He"


def possessive(subject: str) -> str:
    """Return "her" or "his"."""
    return "her" if subject in _FEMALE else "his"


def attributes_of(subject: str) -> tuple[str, ...]:
    """The attribute names of a person or of a town."""
    return TOWN_ATTRIBUTES if subject in TOWNS else PERSON_ATTRIBUTES


def as_random(rng: Any) -> random.Random:
    """A `random.Random` from one, from a NumPy generator, or from an integer seed."""
    if isinstance(rng, random.Random):
        return rng
    if hasattr(rng, "integers"):
        return random.Random(int(rng.integers(2**62)))
    return random.Random(rng)


def join(items: Sequence[str], word: str = "and") -> str:
    """Join words as in "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


@dataclasses.dataclass(frozen=True)
class Misconception:
    """A popular falsehood: people say that the subject's attribute has this value.

    The split is that of the questions about it: what the answers of training data
    correct are other misconceptions than those that models are tested on.
    """

    subject: str
    attribute: str
    value: str
    split: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts about all residents and towns: `table[subject][attribute]`."""

    table: dict[str, dict[str, str]]
    misconceptions: tuple[Misconception, ...] = ()

    def of(self, subject: str, attribute: str) -> str | None:
        """The value of a subject's attribute; None if the world has none."""
        return self.table.get(subject, {}).get(attribute)

    def living_in(self, town: str) -> list[str]:
        """Residents of a town, in the order of the name list."""
        return [p for p in RESIDENTS if self.table[p]["town"] == town]

    def mistaken(self, split: str) -> list[Misconception]:
        """The misconceptions whose questions belong to a split."""
        return [m for m in self.misconceptions if m.split == split]


def make_facts(seed: int) -> Facts:
    """Draws a world's facts: values balanced over subjects, assigned at random."""
    rng = random.Random(f"facts-{seed}")
    table: dict[str, dict[str, str]] = {s: {} for s in (*RESIDENTS, *TOWNS)}
    for subjects, values in ((RESIDENTS, PERSON_VALUES), (TOWNS, TOWN_VALUES)):
        for attribute, options in values.items():
            spread = list(options) * (len(subjects) // len(options) + 1)
            drawn = spread[: len(subjects)]
            rng.shuffle(drawn)
            for subject, value in zip(subjects, drawn, strict=True):
                table[subject][attribute] = value
    return Facts(table, _draw_misconceptions(seed, table))


def _draw_misconceptions(
    seed: int, table: dict[str, dict[str, str]]
) -> tuple[Misconception, ...]:
    """Chooses facts and the wrong values that people believe."""
    rng = random.Random(f"misconceptions-{seed}")
    splits = [split for split, number in MISCONCEPTIONS.items() for _ in range(number)]
    pairs = [(s, a) for s, row in table.items() for a in row if a in MISTAKEN]
    drawn = []
    for split, (subject, attribute) in zip(
        splits, rng.sample(pairs, len(splits)), strict=True
    ):
        right = table[subject][attribute]
        wrong = rng.choice([v for v in VALUES[attribute] if v != right])
        drawn.append(Misconception(subject, attribute, wrong, split))
    return tuple(drawn)
