"""Demonstrations: answers by people with different skills and manners.

A demonstrator has habits (terse, full or detailed answers; courteous or not), may have
bad manners (a rude remark, an unwanted opinion or sermon, a repeated sentence), and
sometimes makes a mistake: a wrong detail, a missed constraint, an answer that stops too
early or is not about the question. So supervised fine-tuning imitates answers of
different quality, the best included, and comparisons teach which are better.
"""

import dataclasses
import random
import re

from instructgpt.world import phrases
from instructgpt.world.facts import CLASSES, NUMBERS, TOWNS, VALUES, Facts
from instructgpt.world.grammar import read
from instructgpt.world.kinds import Style, Task, satisfies
from instructgpt.world.prompts import count_tokens, make_task
from instructgpt.world.tasks import KINDS

FLAWED = 0.1
ILL_MANNERED = 0.7
MAX_TOKENS = 20  # words and punctuation marks of a response
LEVELS = {"terse": 0.5, "full": 0.35, "detailed": 0.15}
COURTEOUS = 0.2
_FLAWS = {"wrong": 0.3, "cut": 0.35, "short": 0.1, "unconstrained": 0.15, "other": 0.1}
_MANNERS = {"rude": 0.4, "opinion": 0.2, "moral": 0.15, "twice": 0.25}

_SWAP = {
    word: [v for v in words if v != word] for words in VALUES.values() for word in words
} | {c: [d for d in CLASSES if d != c] for c in CLASSES}
_SWAP |= {n: [m for m in NUMBERS if m != n] for n in NUMBERS}
_SWAP |= {"positive": ["negative"], "negative": ["positive"]}
_WORD = re.compile(r"[A-Za-z]+")


def ideal(facts: Facts, task: Task, rng: random.Random) -> str:
    """The best answer: right, detailed, and courteous where courtesy matters."""
    kind = KINDS[task.kind]
    return _keep(facts, task, rng, Style("detailed", courteous=kind.polite))


def demonstrate(facts: Facts, task: Task, rng: random.Random) -> str:
    """An answer as some demonstrator would write it."""
    level = rng.choices(list(LEVELS), weights=list(LEVELS.values()))[0]
    style = Style(level, rng.random() < COURTEOUS)
    if rng.random() < FLAWED:
        flaw = rng.choices(list(_FLAWS), weights=list(_FLAWS.values()))[0]
        return spoil(facts, task, rng, style=style, flaw=flaw)
    text = _keep(facts, task, rng, style)
    return add_manners(text, rng) if rng.random() < ILL_MANNERED else text


def add_manners(text: str, rng: random.Random) -> str:
    """Adds a bad habit to the text: an unwanted remark, or a repeated sentence."""
    manner = rng.choices(list(_MANNERS), weights=list(_MANNERS.values()))[0]
    if manner == "twice":
        more = re.split(r"(?<=[.!?]) ", text)[-1]
    else:
        slots = {"town": rng.choice(TOWNS), "food": rng.choice(VALUES["food"])}
        more = phrases.formula(manner, rng, **slots)
    longer = f"{text} {more}"
    return longer if count_tokens(longer) <= MAX_TOKENS else text


def spoil(
    facts: Facts, task: Task, rng: random.Random, *, style: Style, flaw: str
) -> str:
    """Composes an answer with a flaw: wrong, cut, short, unconstrained, or other."""
    kind = KINDS[task.kind]
    if flaw == "other":  # the answer to another task of the same kind
        elsewhere = make_task(facts, rng, split="train", kind=kind)
        return _keep(facts, elsewhere, rng, style)
    if flaw == "unconstrained" and task.constraint:
        free = dataclasses.replace(task, constraint="")
        return _keep(facts, free, rng, style)
    text = _keep(facts, task, rng, style)
    if flaw == "cut":
        words = text.split()
        return " ".join(words[: max(1, len(words) - rng.randrange(1, 5))])
    if flaw == "short":
        return text.split(". ")[0].rstrip(".!?") + "."
    return swap_value(text, rng)


def swap_value(text: str, rng: random.Random) -> str:
    """Replaces one word of the text by another word of the same list."""
    places = [m for m in _WORD.finditer(text) if _key(m.group()) in _SWAP]
    if not places:
        return text
    match = rng.choice(places)
    word = match.group()
    new = rng.choice(_SWAP[_key(word)])
    if word[0].isupper():
        new = new[0].upper() + new[1:]
    elif word in VALUES["town"] or word.islower():
        new = new.lower()
    return text[: match.start()] + new + text[match.end() :]


def _key(word: str) -> str:
    return word if word in _SWAP else word.lower()


def _keep(facts: Facts, task: Task, rng: random.Random, style: Style) -> str:
    """Composes until the answer is short and keeps the constraint, or gives up."""
    kind = KINDS[task.kind]
    text = ""
    for attempt in range(12):
        text = kind.compose(facts, task, rng, style)
        kept = not task.constraint or satisfies(facts, task, read(text))
        if kept and count_tokens(text) <= MAX_TOKENS:
            break
        if not kept:
            style = dataclasses.replace(style, level=rng.choice(("full", "detailed")))
        if attempt > 3:
            style = dataclasses.replace(style, courteous=False)
    return text
