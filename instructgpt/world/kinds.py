"""The base class of kinds of tasks: templates, good answers and judging rules.

Each kind is one class in `tasks/`, so that its questions, its good answers and their
judging are in one place.
"""

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from instructgpt.world import phrases
from instructgpt.world.facts import (
    PERSON_ATTRIBUTES,
    VALUES,
    Facts,
    attributes_of,
    pronoun,
)
from instructgpt.world.grammar import Claim, Reading

# The paper's Table 1 (use-case categories of the API prompts), in percent.
CATEGORIES = {
    "generation": 45.6,
    "open_qa": 12.4,
    "brainstorming": 11.2,
    "chat": 8.4,
    "rewrite": 6.6,
    "summarization": 4.2,
    "classification": 3.5,
    "other": 3.5,
    "closed_qa": 2.6,
    "extract": 1.9,
}

Slots = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task that the judge can check; `slots` holds only JSON values."""

    kind: str
    template: int
    entity: str
    slots: Slots = dataclasses.field(hash=False)
    constraint: str = ""

    def to_json(self) -> str:
        """The task as one line of JSON; `from_json` undoes it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    @functools.lru_cache(maxsize=65536)
    def from_json(text: str) -> "Task":
        """A task from `to_json`; ValueError or TypeError where it is not one."""
        return Task(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class Style:
    """How a demonstrator answers: "terse", "full" or "detailed"; courteous or not."""

    level: str = "detailed"
    courteous: bool = False


@dataclasses.dataclass
class Verdict:
    """The result of a judging rule; integers are numbers of statements.

    quality: how far the response does what was asked, in [0, 1]; 0 means not at all.
    full: whether it is a whole sentence. detail: further relevant true statements.
    false: untrue or unfaithful statements. stray: statements nobody asked for.
    forgiven: numbers of sentences that the grammar need not be able to read.
    """

    quality: float = 0.0
    full: bool = True
    detail: int = 0
    false: int = 0
    stray: int = 0
    forgiven: set[int] = dataclasses.field(default_factory=set)


class Kind:
    """A kind of task; subclasses fill in the class attributes and three methods."""

    name: ClassVar[str]
    category: ClassVar[str]
    weight: ClassVar[float] = 1.0
    templates: ClassVar[tuple[str, ...]]
    constraints: ClassVar[tuple[str, ...]] = ()
    polite: ClassVar[bool] = False  # courtesy matters, as in a chat
    closed: ClassVar[bool] = False  # the answer must be faithful to a given text
    harmful: ClassVar[bool] = False  # the right answer is a refusal
    free_template: ClassVar[bool] = True  # any template fits any slots
    dialogue: ClassVar[bool] = False  # the prompt is a dialogue already
    allowed: ClassVar[frozenset[str]] = frozenset()  # further kinds of sentence

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        """Draws the subject of a task, and the slots that fill the templates."""
        raise NotImplementedError

    def choose_template(self, slots: Slots, rng: random.Random) -> int:
        """Chooses a template that fits the slots."""
        return rng.randrange(len(self.templates))

    def accepts(self, task: Task, constraint: str) -> bool:
        """Whether a constraint makes sense for a task."""
        return constraint in self.constraints

    def prompt(self, task: Task) -> str:
        """The instruction, without constraint and without preface."""
        return self.templates[task.template].format(**task.slots)

    def question(self, task: Task) -> str:
        """The core question: the prompt without the frame of a dialogue around it.

        Tasks of any kind with the same core question belong to the same split. It is
        the text, word for word: another wording of the same thing may be in another
        split, unless the kind gives all of its wordings one core question.
        """
        text = self.prompt(task)
        if self.dialogue:
            text = text.rpartition("Human: ")[2].removesuffix("\nAI:")
        return text

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        """A right answer in a style; the constraint is kept where it can be."""
        raise NotImplementedError

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        """Judges a response by the rule of this kind."""
        raise NotImplementedError


def constraint_text(constraint: str, rng: random.Random) -> str:
    """The constraint in the words of a user."""
    name, _, what = constraint.partition(":")
    wordings = {
        "one_sentence": ("Use one sentence.", "Answer in one sentence."),
        "two_sentences": ("Use two sentences.", "Write two sentences."),
        "hello": ("Begin with Hello.", "Say Hello first."),
        "one_word": ("Answer with one word.", "Use one word."),
        "mention": (f"Mention the {what}.", f"Please name the {what}."),
        "avoid": (f"Do not mention the {what}.", f"Do not name the {what}."),
    }
    return rng.choice(wordings[name])


def satisfies(facts: Facts, task: Task, reading: Reading) -> bool:
    """Whether a response keeps the task's explicit constraint (none: True)."""
    name, _, what = task.constraint.partition(":")
    words = reading.text.lower().replace(",", " ").replace(".", " ").split()
    if name == "one_sentence":
        return len(reading.units) == 1
    if name == "two_sentences":
        return len(reading.units) == 2
    if name == "hello":
        return reading.text.lower().startswith("hello")
    if name == "one_word":
        return reading.words == 1
    if name in ("mention", "avoid"):
        value = known(facts, task).get(what, "").lower()
        named = value in words
        if name == "avoid":
            return not named and bool(words)
        return named
    return True


def known(facts: Facts, task: Task) -> dict[str, str]:
    """The facts about a task's subject, from the given text or else the world."""
    subject = task.slots.get("subject", task.entity)
    context = context_of(task).get(subject)
    return context if context is not None else facts.table.get(subject, {})


def context_of(task: Task) -> dict[str, dict[str, str]]:
    """The statements of the given text: subject -> attribute -> value."""
    table: dict[str, dict[str, str]] = {}
    for subject, attribute, value in task.slots.get("context", ()):
        table.setdefault(subject, {})[attribute] = value
    return table


def truth(facts: Facts, task: Task) -> Callable[[Claim], bool]:
    """Builds the check of claims by the given text, or else by the world."""
    context = context_of(task)

    def decide(claim: Claim) -> bool:
        table = context.get(claim.subject)
        if table is None:
            table = facts.table.get(claim.subject, {})
        value = table.get(claim.attribute)
        if claim.form == "not":
            return value is not None and value != claim.value
        return value == claim.value

    return decide


def resolve(
    reading: Reading, default: str, speaker: str = ""
) -> tuple[list[Claim], int]:
    """All claims with pronouns replaced, and the number of pronouns that did not fit.

    A pronoun means the last named subject that it fits, or `default` at the start; "I"
    means `speaker`.
    """
    named, claims, unfit = [default], [], 0
    for unit in reading.units:
        for claim in unit.claims:
            subject = claim.subject
            if subject in ("she", "he", "it"):
                fitting = [n for n in named if n and pronoun(n).lower() == subject]
                unfit += not fitting
                subject = fitting[-1] if fitting else named[-1]
            elif subject == "i":
                subject = speaker or "I"
            elif subject and subject != "they":
                named.append(subject)
            claims.append(dataclasses.replace(claim, subject=subject))
    return claims, unfit


def items_of(reading: Reading) -> list[tuple[str, str]]:
    """All listed items in order, with repetitions."""
    return [item for unit in reading.units for item in unit.items]


def has(reading: Reading, *kinds: str) -> bool:
    """Whether some sentence is of one of the kinds."""
    return any(unit.kind in kinds for unit in reading.units)


def count(reading: Reading, *kinds: str) -> int:
    """Number of sentences of one of the kinds."""
    return sum(unit.kind in kinds for unit in reading.units)


def steps(number: int, *values: float) -> float:
    """Returns `values[number]`, or the last value for larger numbers."""
    return values[min(number, len(values) - 1)]


def weigh_about(
    facts: Facts, task: Task, reading: Reading, *, subject: str, speaker: str = ""
) -> tuple[Verdict, set[str]]:
    """Counts false and stray claims; returns also the subject's attributes told."""
    decide = truth(facts, task)
    claims, unfit = resolve(reading, subject, speaker)
    verdict, told = Verdict(false=unfit), set()
    said: set[Claim] = set()
    home = facts.of(subject, "town")
    for claim in claims:
        if claim.subject == "":
            continue
        if claim in said and claim.form != "event":
            verdict.stray += 1
        said.add(claim)
        if not decide(claim):
            verdict.false += 1
        elif claim.subject == subject and claim.form != "not":
            told.add(claim.attribute)
        elif claim.subject == home and home is not None:
            told.add(f"home {claim.attribute}")
        else:
            verdict.stray += 1
    return verdict, told


def weigh_off_topic(facts: Facts, task: Task, reading: Reading) -> Verdict:
    """Counts false and stray claims where the task is about no resident or town."""
    verdict, told = weigh_about(facts, task, reading, subject="")
    verdict.stray += len(told)
    return verdict


def choose_attributes(
    task: Task,
    rng: random.Random,
    *,
    number: int,
    first: Sequence[str] = (),
    options: Iterable[str] = PERSON_ATTRIBUTES,
) -> list[str]:
    """Attributes to tell: those to mention first, never those to avoid."""
    name, _, what = task.constraint.partition(":")
    pool = [a for a in options if a not in first]
    rng.shuffle(pool)
    if name == "mention" and what in pool:
        pool.remove(what)
        first = [*first, what]
    chosen = [*first, *pool]
    if name == "avoid":
        chosen = [a for a in chosen if a != what]
    return chosen[: max(number, len(first))]


def tell(
    facts: Facts,
    task: Task,
    attributes: Sequence[str],
    *,
    sentences: int,
    form: str = "third",
    subject: str = "",
) -> str:
    """A paragraph about the task's subject that keeps to the number of sentences."""
    name = task.constraint
    fixed = {"one_sentence": 1, "two_sentences": 2}.get(name, sentences)
    table = known(facts, task)
    pairs = [(a, table[a]) for a in attributes]
    who = subject or task.slots.get("subject", task.entity)
    return phrases.paragraph(who, pairs, sentences=fixed, form=form)


def finish(task: Task, text: str) -> str:
    """Puts a greeting first where the constraint asks for one."""
    return f"Hello! {text}" if task.constraint == "hello" else text


def with_courtesy(task: Task, text: str, rng: random.Random, style: Style) -> str:
    """The text with a courteous closing where the style and constraint want one."""
    limited = task.constraint in ("one_sentence", "two_sentences", "one_word")
    if not style.courteous or limited:
        return text
    closing = (
        "I hope this helps.",
        "Thank you for asking.",
        "Please ask me if you need more help.",
    )
    return f"{text} {rng.choice(closing)}"


def other_value(attribute: str, value: str, rng: random.Random) -> str:
    """Another value of the same list."""
    return rng.choice([v for v in VALUES[attribute] if v != value])


def other_attributes(subject: str, attribute: str) -> list[str]:
    """The further attributes of a subject."""
    return [a for a in attributes_of(subject) if a != attribute]
