"""The texts that come with a prompt: statements about visitors."""

import random

from instructgpt.world import phrases
from instructgpt.world.facts import (
    PERSON_ATTRIBUTES,
    VALUES,
    VISITORS,
)
from instructgpt.world.kinds import (
    Task,
    context_of,
)


def visitor_context(
    rng: random.Random, *, visitors: int, each: int, same: bool = False
) -> list[list[str]]:
    """Draws statements about visitors, each [subject, attribute, value]."""
    chosen = rng.sample(VISITORS, visitors)
    attributes = rng.sample(PERSON_ATTRIBUTES, each)
    context = []
    for i, who in enumerate(chosen):
        if i and not same:
            attributes = rng.sample(PERSON_ATTRIBUTES, each)
        context += [[who, a, rng.choice(VALUES[a])] for a in attributes]
    return context


def context_text(context: list[list[str]]) -> str:
    """The given text: one sentence for every two statements about a visitor."""
    parts = []
    for who, table in context_of(Task("", 0, "", {"context": context})).items():
        pairs = list(table.items())
        parts.append(phrases.paragraph(who, pairs, sentences=(len(pairs) + 1) // 2))
    return " ".join(parts)
