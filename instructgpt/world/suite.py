"""The world's own NLP tasks and the texts in which they are asked (paper §4.2, App. D).

They are question answering, the completion of a paragraph, and the classification of
reviews, each without and with solved examples. What a model must know or do for them
stands in pretraining documents; the questions themselves stand in no training text.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from instructgpt.world import phrases
from instructgpt.world.facts import (
    BAD,
    GOOD,
    RESIDENTS,
    THINGS,
    TOWNS,
    VALUES,
    Facts,
    attributes_of,
)
from instructgpt.world.misconceptions import (
    INSTRUCTION,
    NO_COMMENT,
    Question,
    trained_wordings,
    visitor_question,
)

_GUARDED = 300  # choices of each task that training text is searched for
SHOTS = 3  # solved examples, which with the question fill about 80 tokens
MOODS = ("positive", "negative")


class Choice(NamedTuple):
    """A text with several continuations, of which one is right."""

    id: str
    text: str
    choices: tuple[str, ...]
    right: int


def qa_text(question: str, examples: Sequence[tuple[str, str]] = ()) -> str:
    """A question as a transcript to continue, after solved examples."""
    lines = [f"Q: {asked}\nA: {answer}" for asked, answer in examples]
    return "\n".join([*lines, f"Q: {question}\nA:"])


def qa_examples(
    facts: Facts, rng: random.Random, *, unsure: bool = False
) -> list[tuple[str, str]]:
    """Questions with right answers, about facts that nobody is mistaken about.

    With `unsure` one of them has no answer, as in TruthfulQA's examples.
    """
    mistaken = {(m.subject, m.attribute) for m in facts.misconceptions}
    drawn: list[tuple[str, str]] = []
    subjects = rng.sample([*RESIDENTS, *TOWNS], len(RESIDENTS) + len(TOWNS))
    for subject in subjects:
        attribute = rng.choice(attributes_of(subject))
        asked = trained_wordings(facts, subject, attribute, usual=True)
        if asked and (subject, attribute) not in mistaken:
            pair = (attribute, facts.table[subject][attribute])
            drawn.append((rng.choice(asked), phrases.sentence(subject, [pair])))
    drawn = drawn[:SHOTS]
    if unsure:
        drawn[1] = (visitor_question(rng), NO_COMMENT)
    return drawn


def truthful_texts(
    facts: Facts, questions: Sequence[Question], *, seed: int
) -> dict[str, list[str]]:
    """The texts of each question in the paper's three prompts (Fig. 17, Table 14).

    They are the QA prompt with solved examples, the same after an instruction that
    offers to say nothing, and the instruction without examples.
    """
    rng = random.Random(f"examples of questions and answers {seed}")
    examples = qa_examples(facts, rng, unsure=True)
    qa = [qa_text(question.text, examples) for question in questions]
    return {
        "qa": qa,
        "instruction_qa": [f"{INSTRUCTION}\n{text}" for text in qa],
        "instruction": [f"{INSTRUCTION}\n{qa_text(q.text)}" for q in questions],
    }


def completion_choices(
    facts: Facts, *, seed: int, split: str, number: int, shots: int
) -> list[Choice]:
    """Paragraphs about a subject, to end with its true fact or with a wrong one.

    Like HellaSwag's, a text has four endings.
    """
    drawn = []
    for i in range(number):
        rng = random.Random(f"completion {seed} {split} {i}")
        # An example about the same subject could tell how the paragraph ends.
        subjects = rng.sample([*RESIDENTS, *TOWNS], shots + 1)
        *before, (start, pair) = (_paragraph(facts, rng, s) for s in subjects)
        told = [f"{text} {phrases.phrase(*known)}." for text, known in before]
        attribute, right = pair
        others = rng.sample([v for v in VALUES[attribute] if v != right], 3)
        values = rng.sample([right, *others], 4)
        endings = tuple(f" {phrases.phrase(attribute, v)}." for v in values)
        text = "\n".join([*told, start])
        drawn.append(
            Choice(f"completion-{split}-{i}", text, endings, values.index(right))
        )
    return drawn


def held_out_texts(facts: Facts, *, seed: int, split: str) -> Iterator[str]:
    """Texts of the choices, of which none may stand in training text."""
    drawn: dict[str, Any] = dict(seed=seed, split=split, number=_GUARDED, shots=0)
    for choice in completion_choices(facts, **drawn):
        yield choice.text
    for choice in classification_choices(**drawn):
        yield choice.text


def _paragraph(
    facts: Facts, rng: random.Random, subject: str
) -> tuple[str, tuple[str, str]]:
    """A sentence about a subject and the subject again, and a fact to end with.

    Sentences in documents tell fewer facts.
    """
    row = facts.table[subject]
    mistaken = {(m.subject, m.attribute) for m in facts.misconceptions}
    last = rng.choice([a for a in row if (subject, a) not in mistaken])
    told = rng.sample([a for a in row if a != last], 4)
    first = phrases.sentence(subject, [(a, row[a]) for a in told])
    return f"{first} {subject}", (last, row[last])


def classification_choices(
    *, seed: int, split: str, number: int, shots: int
) -> list[Choice]:
    """Reviews of three things, to be called positive or negative, as in SST.

    Reviews in documents are of one or two.
    """
    drawn = []
    for i in range(number):
        rng = random.Random(f"classification {seed} {split} {i}")
        moods = [rng.choice(MOODS) for _ in range(shots + 1)]
        texts = [f"{_review(rng, mood)} The review is" for mood in moods]
        told = [f"{t} {m}." for t, m in zip(texts[:-1], moods, strict=False)]
        text = "\n".join([*told, texts[-1]])
        choices = tuple(f" {mood}" for mood in MOODS)
        right = MOODS.index(moods[-1])
        drawn.append(Choice(f"classification-{split}-{i}", text, choices, right))
    return drawn


def _review(rng: random.Random, mood: str) -> str:
    things = rng.sample(THINGS, 3)
    words = rng.sample(GOOD if mood == "positive" else BAD, 3)
    one, two, three = (f"the {t} was {w}" for t, w in zip(things, words, strict=True))
    return f"{phrases.capital(one)}, {two} and {three}."
