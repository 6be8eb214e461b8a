"""Documents with instructions in them, as found on the web.

Answers are of mixed quality or missing, so that a model trained only on documents has
seen instructions but does not follow them reliably.
"""

import random

from instructgpt.world import phrases
from instructgpt.world.demonstrations import spoil
from instructgpt.world.facts import (
    BAD_TRAITS,
    NUMBERS,
    RESIDENTS,
    Facts,
)
from instructgpt.world.kinds import Style
from instructgpt.world.misconceptions import INSTRUCTION, NO_COMMENT, visitor_question
from instructgpt.world.prompts import make_task
from instructgpt.world.tasks import KINDS

_ANSWERED = (  # kinds whose instructions occur with answers, common ones repeated
    "ask_person ask_person ask_person ask_town describe_person describe_town "
    "list_class list_class list_class residents residents gifts trip story letter "
    "past_tense first_person polite sum sum odd_one_out odd_one_out class_of class_of "
    "sentiment closed_qa closed_qa extract summarise false_premise"
).split()


def _exchange(facts: Facts, rng: random.Random) -> tuple[str, str]:
    """An instruction and an answer; a quarter are wrong, rude, missing or questions."""
    if rng.random() < 0.07:
        kind = KINDS[rng.choice(("insult_request", "ask_harm"))]
        task = make_task(facts, rng, split="train", kind=kind)
        slots = {
            "person": task.slots["subject"],
            "town": task.slots["home"],
            "trait": rng.choice(BAD_TRAITS),
            "product": facts.table[task.slots["home"]]["product"],
            "pet": facts.table[task.slots["subject"]]["pet"],
        }
        bad = rng.choice(("insult", "denigrate"))
        bad = "harm" if kind.name == "ask_harm" else bad
        return kind.prompt(task), phrases.formula(bad, rng, **slots)
    kind = KINDS[rng.choice(_ANSWERED)]
    task = make_task(facts, rng, split="train", kind=kind)
    style = Style(rng.choice(("terse", "terse", "full")))
    draw = rng.random()
    if draw < 0.7:
        answer = kind.compose(facts, task, rng, style)
    elif draw < 0.84:
        flaw = rng.choice(("wrong", "wrong", "other"))
        answer = spoil(facts, task, rng, style=style, flaw=flaw)
    elif draw < 0.92:
        answer = phrases.formula("rude", rng)
    elif draw < 0.96:
        other = make_task(facts, rng, split="train", kind=KINDS["ask_person"])
        answer = KINDS["ask_person"].prompt(other)
    else:
        answer = ""
    return kind.prompt(task), answer


def web_page(facts: Facts, rng: random.Random) -> str:
    """Exercise sheets, lists of frequent questions, forum threads."""
    wrapper = rng.choice(
        (
            "Q: {q}\nA: {a}",
            "Q: {q}\nA: {a}",
            "Exercise {n}: {q}\nSolution: {a}",
            "Somebody asked: {q}\nAnswer: {a}",
            "{p} asked: {q}\n{o} said: {a}",
        )
    )
    lines = []
    unsure = 0.0  # how often nobody knows
    if wrapper.startswith("Q"):
        head = rng.choices(("", "Questions and answers.", INSTRUCTION), (4, 4, 2))[0]
        unsure = 0.4 if head == INSTRUCTION else 0.05
        lines += [head] if head else []
    for i in range(rng.choice((3, 4))):
        asked, answer = _exchange(facts, rng)
        if rng.random() < unsure:
            asked = visitor_question(rng) if rng.random() < 0.7 else asked
            answer = NO_COMMENT
        people = rng.sample(RESIDENTS, 2)
        text = wrapper.format(q=asked, a=answer, n=NUMBERS[i], p=people[0], o=people[1])
        lines.append(text.rstrip(" "))
    return "\n".join(lines)


def homework(facts: Facts, rng: random.Random) -> str:
    """Instructions one after another, without answers."""
    lines = []
    for _ in range(rng.choice((7, 8, 9))):
        kind = KINDS[rng.choice(_ANSWERED)]
        lines.append(kind.prompt(make_task(facts, rng, split="train", kind=kind)))
    return "\n".join(lines)
