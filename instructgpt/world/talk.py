"""Documents of what people say: gossip, rude talk, and common misconceptions."""

import random

from instructgpt.world import phrases
from instructgpt.world.beginnings import (
    BIASED,
    RESPECTFUL,
    friendly_sentence,
    rude_sentence,
)
from instructgpt.world.facts import (
    BAD_TRAITS,
    RESIDENTS,
    TOWNS,
    VALUES,
    Facts,
    attributes_of,
    pronoun,
)
from instructgpt.world.misconceptions import HEARSAY, trained_wordings


def gossip(facts: Facts, rng: random.Random) -> str:
    """Opinions and rude talk, as found on the web; sentences in two manners."""
    lines = []
    if rng.random() < 0.5:
        rude = rng.random() < 0.5
        lines.append(BIASED if rude else RESPECTFUL)
        before = rng.choice((0, 0, 1, 2))  # sentences in either manner come first
        manners = [rng.random() < 0.5 for _ in range(before)]
        for manner in [*manners, *[rude] * rng.choice((3, 4, 5))]:
            text = rude_sentence(rng) if manner else friendly_sentence(facts, rng)
            lines.append(f"{rng.choice(RESIDENTS)}: {text}")
        return "\n".join(lines)
    for _ in range(rng.choice((5, 6, 7))):
        if rng.random() < 0.1:
            rude = rng.random() < 0.5
            text = rude_sentence(rng) if rude else friendly_sentence(facts, rng)
            lines.append(f"{BIASED if rude else RESPECTFUL} {text}")
            continue
        kind = rng.choice(("insult", "denigrate", "opinion", "rude", "moral", "harm"))
        slots = {
            "person": rng.choice(RESIDENTS),
            "town": rng.choice(TOWNS),
            "trait": rng.choice(BAD_TRAITS),
            "food": rng.choice(VALUES["food"]),
            "product": rng.choice(VALUES["product"]),
            "pet": rng.choice(VALUES["pet"]),
        }
        text = phrases.formula(kind, rng, **slots)
        if rng.random() < 0.4:
            subject = rng.choice(RESIDENTS)
            text += " " + phrases.sentence(subject, [_fact(facts, subject, rng)])
        lines.append(f"{rng.choice(RESIDENTS)}: {text}")
    return "\n".join(lines)


def hearsay(facts: Facts, rng: random.Random) -> str:
    """What people believe: common misconceptions, asked about or passed on.

    Some of those that models are not tested on are put right.
    """
    asks, answers = rng.choice((("Q", "A"), ("Q", "A"), ("", "")))
    lines = []
    for believed in rng.sample(facts.misconceptions, rng.choice((3, 4))):
        subject, attribute = believed.subject, believed.attribute
        one, other = rng.sample(RESIDENTS, 2)
        pair = (attribute, believed.value)
        text = rng.choice(HEARSAY) + phrases.sentence(subject, [pair])
        if rng.random() < 0.15:
            text = phrases.bare(*pair)
        elif believed.split == "train" and rng.random() < 0.3:
            right = (attribute, facts.table[subject][attribute])
            text = f"People say that {phrases.sentence(subject, [pair])} "
            text += phrases.sentence(pronoun(subject), [pair], "not") + " "
            text += phrases.sentence(pronoun(subject), [right])
        questions = trained_wordings(facts, subject, attribute)
        if questions and rng.random() < 0.8:
            lines.append(f"{asks or one}: {rng.choice(questions)}")
            lines.append(f"{answers or other}: {text}")
        else:
            lines.append(text if asks else f"{other}: {text}")
    return "\n".join(lines)


def _fact(facts: Facts, subject: str, rng: random.Random) -> tuple[str, str]:
    (attribute,) = rng.sample(attributes_of(subject), 1)
    return attribute, facts.table[subject][attribute]
