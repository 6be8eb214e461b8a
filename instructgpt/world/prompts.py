"""Prompts: tasks in the words of customers, in the paper's categories and styles.

A core question belongs to exactly one split, and so does a customer (see splits.py).
Section 3.2 and appendix A of the paper; the categories' shares are its Table 1.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from instructgpt.world.facts import TOWNS, Facts
from instructgpt.world.kinds import (
    CATEGORIES,
    Kind,
    Style,
    Task,
    constraint_text,
)
from instructgpt.world.splits import split_of, split_of_question
from instructgpt.world.tasks import KINDS

STYLES = {"plain": 0.5, "few_shot": 0.25, "user_based": 0.25}
MAX_TOKENS = 34  # words and punctuation marks of a prompt
CONSTRAINED = 0.32  # share of constrained prompts, if the kind allows constraints

_PREFACES = (
    "I have a school in {town}.",
    "I write for people in {town}.",
    "I have a shop in {town}.",
    "We make a book for people.",
    "This is for my class.",
    "I make cards for people.",
    "I work for the town of {town}.",
    "You are my assistant.",
)
_WRAPPERS = (
    ("Task: {q}\nAnswer: {a}", "Task: {q}\nAnswer:"),
    ("Q: {q}\nA: {a}", "Q: {q}\nA:"),
    ("{q}\n{a}", "{q}"),
)
_DRAWS = 4000  # largest number of draws to find a task of a split
_TOKEN = re.compile(r"\w+|[^\w\s]|\n")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt with its structured task; `record` gives the stored form."""

    id: str
    text: str
    customer: str
    source: str
    category: str
    style: str
    task: Task
    distribution: str = "instructgpt"  # or "gpt3": a text to continue

    def record(self) -> dict[str, str]:
        """The `prompts` record: all strings, the task as JSON."""
        return {
            "id": self.id,
            "prompt": self.text,
            "customer": self.customer,
            "source": self.source,
            "category": self.category,
            "style": self.style,
            "task": self.task.to_json(),
            "distribution": self.distribution,
        }

    @staticmethod
    def from_record(record: dict[str, Any]) -> "Prompt":
        """The prompt of a record; the inverse of `record`."""
        return Prompt(
            id=record["id"],
            text=record["prompt"],
            customer=record["customer"],
            source=record.get("source", "customer"),
            category=record["category"],
            style=record["style"],
            task=Task.from_json(record["task"]),
            distribution=record.get("distribution") or "instructgpt",
        )


def count_tokens(text: str) -> int:
    """Number of words, punctuation marks and line ends of a text."""
    return len(_TOKEN.findall(text))


@functools.lru_cache(maxsize=8)
def authors(source: str, split: str) -> tuple[list[str], list[float]]:
    """The authors of a split with cumulative weights; few customers write most."""
    number = 600 if source == "customer" else 80
    names, weights = [], []
    for i in range(1, number + 1):
        name = f"{source}_{i:04d}"
        if split_of(f"author {name}") == split:
            names.append(name)
            weights.append(1 / (i + 5) if source == "customer" else 1.0)
    return names, list(itertools.accumulate(weights))


def pick(names: list[Any], cumulated: list[float], rng: random.Random) -> Any:
    """Draws one of the names by their cumulative weights."""
    return names[bisect.bisect(cumulated, rng.random() * cumulated[-1])]


def kind_table(kinds: Sequence[Kind]) -> tuple[list[Kind], list[float]]:
    """The kinds with cumulative weights that give each category its share."""
    totals: dict[str, float] = {}
    for kind in kinds:
        totals[kind.category] = totals.get(kind.category, 0.0) + kind.weight
    weights = [CATEGORIES[k.category] * k.weight / totals[k.category] for k in kinds]
    return list(kinds), list(itertools.accumulate(weights))


def kinds_of(facts: Facts, split: str) -> list[Kind]:
    """The kinds that have a question in the split; a small kind may have none."""
    kinds = []
    for kind in KINDS.values():
        rng = random.Random(f"is there a question of {kind.name} in {split}")
        with contextlib.suppress(ValueError):
            make_task(facts, rng, split=split, kind=kind)
            kinds.append(kind)
    return kinds


def make_task(
    facts: Facts,
    rng: random.Random,
    *,
    split: str,
    kind: Kind,
    template: int | None = None,
    constrained: float = 0.0,
) -> Task:
    """Draws a task of a kind whose core question belongs to the split.

    Raises:
      ValueError: the kind has no such question in this world, or none was drawn.
    """
    for _ in range(_DRAWS):
        entity, slots = kind.sample(facts, rng)
        number = kind.choose_template(slots, rng)
        if template is not None and kind.free_template:
            number = template
        task = Task(kind.name, number, entity, slots)
        if split_of_question(kind.question(task)) == split:
            break
    else:
        raise ValueError(f"the {split} split has no task of kind {kind.name}")
    if kind.constraints and rng.random() < constrained:
        constraint = rng.choice(kind.constraints)
        if kind.accepts(task, constraint):
            return dataclasses.replace(task, constraint=constraint)
    return task


def make_prompt(
    facts: Facts,
    rng: random.Random,
    *,
    kind: Kind,
    styles: Sequence[str],
    split: str,
    source: str,
    number: str,
) -> Prompt:
    """Draws one prompt within the length limit; the second style is a fallback."""
    style, spare = styles
    if style == "few_shot" and (kind.harmful or kind.dialogue):
        style = spare
    for attempt in itertools.count():
        if attempt == 24 and style == "few_shot":  # two texts too long for one prompt
            style = spare
        task = make_task(facts, rng, split=split, kind=kind, constrained=CONSTRAINED)
        text = kind.prompt(task)
        if task.constraint:
            text = f"{text} {constraint_text(task.constraint, rng)}"
        if style == "few_shot":
            text = _few_shot(facts, rng, split=split, task=task, text=text)
        elif style == "user_based":
            preface = rng.choice(_PREFACES).format(town=rng.choice(TOWNS))
            text = f"{preface}{chr(10) if kind.dialogue else ' '}{text}"
        if text and count_tokens(text) <= MAX_TOKENS:
            break
    return Prompt(
        id=number,
        text=text,
        customer=pick(*authors(source, split), rng),
        source=source,
        category=kind.category,
        style=style,
        task=task,
    )


def _few_shot(
    facts: Facts, rng: random.Random, *, split: str, task: Task, text: str
) -> str:
    """One or two solved examples of the same template, then the query."""
    kind = KINDS[task.kind]
    shown, asked = rng.choice(_WRAPPERS)
    parts = [asked.format(q=text)]
    for _ in range(rng.choice((1, 1, 2))):
        example = make_task(facts, rng, split=split, kind=kind, template=task.template)
        if example.entity == task.entity:
            continue
        answer = kind.compose(facts, example, rng, Style("full"))
        block = shown.format(q=kind.prompt(example), a=answer)
        if count_tokens("\n".join([block, *parts])) > MAX_TOKENS:
            break
        parts.insert(0, block)
    return "\n".join(parts) if len(parts) > 1 else ""


def draw_prompts(
    facts: Facts, *, seed: int, split: str, number: int, stream: str, source: str | None
) -> Iterator[Prompt]:
    """Yields `number` prompts of a split, distinct if possible; see `World.prompts`."""
    seen: set[str] = set()
    kinds = kind_table(kinds_of(facts, split))
    for i in range(number):
        prompt = None
        # A repeated prompt is replaced by one of the same kind and style, so that kinds
        # with few distinct prompts keep their share.
        rng = random.Random(f"kind of prompt {seed} {stream} {split} {i}")
        kind = pick(*kinds, rng)
        style = rng.choices(list(STYLES), weights=list(STYLES.values()))[0]
        spare = rng.choices(("plain", "user_based"), weights=(2, 1))[0]
        for attempt in range(20):
            rng = random.Random(f"prompt {seed} {stream} {split} {i} {attempt}")
            author = source or ("customer" if rng.random() < 0.8 else "labeler")
            prompt = make_prompt(
                facts,
                rng,
                kind=kind,
                styles=(style, spare),
                split=split,
                source=author,
                number=f"{stream}-{split}-{i}",
            )
            if prompt.text not in seen:
                break
        assert prompt is not None
        seen.add(prompt.text)
        yield prompt
