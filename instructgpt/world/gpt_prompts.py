"""Prompts as they were sent to GPT-3: texts to continue (paper §4.1, Figs 1 and 3).

The task is implied by a pattern of solved examples, by a transcript or by the beginning
of a document; no instruction is given (App. A.2.2 has examples). The tasks are those of
the other prompts, so that the gold judge judges the answers by the same rules. They are
for the comparison of models only: the prompts of PPO are of the other distribution.
"""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from instructgpt.world import phrases
from instructgpt.world.facts import Facts
from instructgpt.world.given_text import context_text
from instructgpt.world.kinds import Kind, Style, Task
from instructgpt.world.prompts import (
    MAX_TOKENS,
    Prompt,
    authors,
    count_tokens,
    kind_table,
    make_task,
    pick,
)
from instructgpt.world.tasks import KINDS
from instructgpt.world.tasks.extract import Extract
from instructgpt.world.tasks.open_qa import QUESTIONS
from instructgpt.world.tasks.rewrite import Rewrite

DISTRIBUTION = "gpt3"
PATTERNED = 0.6  # share of prompts with solved examples before the one to continue


class _Frame(NamedTuple):
    """The text around a task: "{answer}" follows it in an example and is left open."""

    text: str
    level: str = "full"  # style of the examples' answers


_ASKED = (
    _Frame("Q: {question}\nA:"),
    _Frame("Q: {question}\nA:", "terse"),
    _Frame("Guest: {question}\nClerk:"),
    _Frame("Question: {question} Answer:", "terse"),
)
_TALK = (_Frame("Guest: {question}\nClerk:"), _Frame("Human: {question}\nAI:"))
_FRAMES: dict[str, tuple[_Frame, ...]] = {
    "describe_person": (_Frame("Name: {subject}\nText:"), _Frame("About {subject}:")),
    "describe_town": (_Frame("Town: {subject}\nText:"), _Frame("About {subject}:")),
    "letter": (_Frame("A letter from {subject} to {other}:"),),
    "story": (_Frame("A story about {subject}:"), _Frame("The day of {subject}:")),
    "advert": (_Frame("A poster for {subject}:"), _Frame("Visit {subject}!")),
    "birthday": (_Frame("A birthday card for {subject}:"),),
    "list_class": (
        _Frame("A note with {number} {classes}:", "terse"),
        _Frame("List of {number} {classes}:"),
    ),
    "residents": (_Frame("{number} people who live in {subject}:", "terse"),),
    "gifts": (_Frame("{number} gifts for {subject}:", "terse"),),
    "trip": (_Frame("{number} things to do in {subject}:", "terse"),),
    "ask_person": _ASKED,
    "ask_town": _ASKED,
    "false_premise": (_Frame("Q: {question}\nA:"), _Frame("Guest: {question}\nClerk:")),
    "ask_harm": _TALK,
    "closed_qa": (
        _Frame("{given}\nQ: {asked}\nA:", "terse"),
        _Frame("Text: {given}\nQuestion: {asked}\nAnswer:"),
    ),
    "extract": (_Frame("Text: {given}\n{plural}:", "terse"),),
    "chat_ask": _TALK,
    "chat_greet": _TALK,
    "chat_mood": _TALK,
    "chat_harm": _TALK,
    "past_tense": (_Frame("Today: {source}\nIn the past:"),),
    "first_person": (_Frame("{source}\n{who} says:"),),
    "polite": (_Frame("Rude: {source}\nPolite:"),),
    "summarise": (_Frame("{text}\nIn short:"), _Frame("Text: {text}\nSummary:")),
    "sentiment": (
        _Frame("Review: {text} Mood:", "terse"),
        _Frame("Review: {text} Answer:"),
    ),
    "class_of": (
        _Frame("Word: {thing} Class:", "terse"),
        _Frame("What kind? {thing}:", "terse"),
    ),
    "sum": (_Frame("{a} plus {b}:"), _Frame("The sum of {a} and {b}:", "terse")),
    "odd_one_out": (
        _Frame("Words: {words}. Odd:", "terse"),
        _Frame("Which of {words}:"),
    ),
}


def draw_gpt_prompts(
    facts: Facts, *, seed: int, split: str, number: int
) -> Iterator[Prompt]:
    """Yields `number` prompts of a split, distinct if possible."""
    seen: set[str] = set()
    kinds = kind_table([KINDS[name] for name in _FRAMES])
    for i in range(number):
        rng = random.Random(f"kind of gpt prompt {seed} {split} {i}")
        kind: Kind = pick(*kinds, rng)
        text, style, task = "", "", None
        for attempt in range(40):
            rng = random.Random(f"gpt prompt {seed} {split} {i} {attempt}")
            text, style, task = _draw(facts, rng, kind=kind, split=split)
            if text not in seen and count_tokens(text) <= MAX_TOKENS:
                break
        assert task is not None
        seen.add(text)
        yield Prompt(
            id=f"gpt-{split}-{i}",
            text=text,
            customer=pick(*authors("customer", split), rng),
            source="customer",
            category=kind.category,
            style=style,
            task=task,
            distribution=DISTRIBUTION,
        )


def _draw(
    facts: Facts, rng: random.Random, *, kind: Kind, split: str
) -> tuple[str, str, Task]:
    """The text to continue, its style, and the task that it implies."""
    task = make_task(facts, rng, split=split, kind=kind)
    frame = rng.choice(_FRAMES[kind.name])
    parts = [_fill(frame, kind, task)]
    wanted = rng.choice((1, 2)) if rng.random() < PATTERNED else 0
    for _ in range(0 if kind.harmful else wanted):
        example = make_task(facts, rng, split=split, kind=kind)
        if example.entity == task.entity:
            continue
        answer = kind.compose(facts, example, rng, Style(frame.level))
        shown = f"{_fill(frame, kind, example)} {answer}"
        if count_tokens("\n".join([shown, *parts])) > MAX_TOKENS:
            break
        parts.insert(0, shown)
    return "\n".join(parts), "few_shot" if len(parts) > 1 else "continuation", task


def _fill(frame: _Frame, kind: Kind, task: Task) -> str:
    return phrases.capital(frame.text.format(**_slots(kind, task)))


def _slots(kind: Kind, task: Task) -> dict[str, Any]:
    """What a frame may say of a task."""
    slots = dict(task.slots)
    if isinstance(kind, Rewrite):
        slots["source"] = kind.source(task)
    if "context" in slots:
        slots["given"] = context_text(slots["context"])
        slots["who"] = slots["context"][0][0]
    if kind.name == "closed_qa":
        wording = QUESTIONS[slots["attribute"]][slots["wording"]]
        slots["asked"] = wording.format(s=slots["subject"])
    if kind.name == "extract":
        slots["plural"] = phrases.capital(Extract.plurals[slots["attribute"]])
    if hasattr(kind, "text"):
        slots["text"] = kind.text(task)
    slots["question"] = kind.question(task)
    return slots
