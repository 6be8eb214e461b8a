"""Pretraining documents: the world's facts and skills in many kinds of text.

About one document in seven is a "web" document, with instructions and answers of mixed
quality or none. So a model trained only on documents has seen instructions but does not
follow them reliably.

Documents of every split state all facts, but they contain only questions of the
training split: no document contains a held-out core question.
"""

import random
import re
from collections.abc import Callable, Iterator

from instructgpt.world import phrases
from instructgpt.world.beginnings import praise
from instructgpt.world.facts import (
    BAD,
    CLASS_OF_ATTRIBUTE,
    CLASSES,
    GOOD,
    NUMBERS,
    RESIDENTS,
    THINGS,
    TOWNS,
    VALUES,
    VISITORS,
    Facts,
    attributes_of,
    join,
    pronoun,
)
from instructgpt.world.given_text import context_text, visitor_context
from instructgpt.world.kinds import Style
from instructgpt.world.misconceptions import (
    NO_COMMENT,
    trained_wordings,
    visitor_question,
)
from instructgpt.world.prompts import make_task
from instructgpt.world.splits import split_of_question
from instructgpt.world.talk import gossip, hearsay
from instructgpt.world.tasks import KINDS
from instructgpt.world.tasks.classification import named
from instructgpt.world.tasks.generation import Story
from instructgpt.world.tasks.rewrite import Polite
from instructgpt.world.tasks.summarization import Summarise
from instructgpt.world.web import homework, web_page

_STORY, _SUMMARY = Story(), Summarise()
_LEVELS = ("terse", "full", "full", "detailed")


def draw_documents(
    facts: Facts, *, seed: int, split: str, number: int
) -> Iterator[dict[str, str]]:
    """Yields the first `number` documents of a split, each with its own random seed."""
    names, weights = list(_MAKERS), [weight for _, weight in _MAKERS.values()]
    for i in range(number):
        rng = random.Random(f"document {seed} {split} {i}")
        name = rng.choices(names, weights=weights)[0]
        text = _MAKERS[name][0](facts, rng)
        yield {"id": f"document-{split}-{i}", "text": text, "kind": name}


def _pairs(
    facts: Facts, subject: str, rng: random.Random, number: int
) -> list[tuple[str, str]]:
    table = facts.table[subject]
    return [(a, table[a]) for a in rng.sample(attributes_of(subject), number)]


def _about(facts: Facts, subject: str, rng: random.Random, number: int) -> str:
    pairs = _pairs(facts, subject, rng, number)
    text = phrases.paragraph(subject, pairs, sentences=rng.choice((2, 2, 3)))

    def again(match: re.Match[str]) -> str:
        return subject if rng.random() < 0.7 else match.group()

    # Names are often repeated, so that a model learns to remember a text's subject.
    return re.sub(r"(?<=\. )(She|He|It)\b", again, text)


def _person_entry(facts: Facts, rng: random.Random) -> str:
    """Two or three people, as in an encyclopedia."""
    people = rng.sample(RESIDENTS, rng.choice((2, 3)))
    if rng.random() < 0.3:
        people = facts.living_in(rng.choice(TOWNS))[:3]
    return "\n".join(_about(facts, p, rng, rng.choice((5, 6))) for p in people)


def _town_entry(facts: Facts, rng: random.Random) -> str:
    """A town, its river and some of the people who live there."""
    town = rng.choice(TOWNS)
    people = facts.living_in(town)
    rng.shuffle(people)
    parts = [_about(facts, town, rng, 5)]
    if rng.random() < 0.6:
        parts.append(f"The river {facts.table[town]['river']} runs through {town}.")
    parts.append(f"{join(people[: rng.choice((2, 3))])} live in {town}.")
    parts += [_about(facts, p, rng, 3) for p in people[:2]]
    return " ".join(parts)


def _story(facts: Facts, rng: random.Random) -> str:
    """Stories: one day, what happened, how it ended."""
    parts = []
    for subject in rng.sample(RESIDENTS, rng.choice((2, 3))):
        events = list(_STORY.events(facts, subject, rng).values())
        told, who = rng.sample(events, rng.choice((2, 3, 4))), pronoun(subject).lower()
        text = f"{rng.choice(('One day', 'Once'))} {subject} {join(told[:2])}."
        if told[2:]:
            text += f" Then {who} {join(told[2:])}."
        end = rng.choice(("was happy", "went home", "was tired"))
        parts.append(f"{text} In the end {who} {end}.")
    return "\n".join(parts)


def _letters(facts: Facts, rng: random.Random) -> str:
    """A letter and its answer."""
    one, other = rng.sample(RESIDENTS, 2)
    parts = []
    for sender, receiver in ((one, other), (other, one)):
        pairs = _pairs(facts, sender, rng, rng.choice((2, 3)))
        told = phrases.sentence("I", pairs, "first")
        parts.append(
            f"Dear {receiver}, {told} {phrases.formula('news', rng)} "
            f"{phrases.formula('sign', rng, person=sender)}"
        )
    if rng.random() < 0.4:
        table = facts.table[other]
        slots = {a: table[a] for a in ("hobby", "food", "colour")}
        wish = phrases.formula("wish", rng, person=other).replace(".", "!")
        parts.append(f"{wish} {phrases.formula('birthday', rng, **slots)}")
    return "\n".join(parts)


def _question(facts: Facts, rng: random.Random) -> tuple[str, str, str]:
    """A subject, one of its attributes, and a question of the training split for it."""
    while True:
        subject = rng.choice([*RESIDENTS, *TOWNS])
        attribute = rng.choice(attributes_of(subject))
        usual = rng.random() < 0.6
        questions = trained_wordings(facts, subject, attribute, usual=usual)
        if questions:
            return subject, attribute, rng.choice(questions)


def _dialogue(facts: Facts, rng: random.Random) -> str:
    """People of the world talk to each other, mostly in a friendly way."""
    one, other = rng.sample(RESIDENTS, 2)
    greet = phrases.formula("greet", rng, person=other)
    lines = [f"{one}: {greet}", f"{other}: Hello {one}! How are you?"]
    if rng.random() < 0.3:
        lines.append(f"{one}: {praise(rng)}")
    for _ in range(rng.choice((2, 3))):
        subject, attribute, question = _question(facts, rng)
        answer = phrases.sentence(
            subject, [(attribute, facts.table[subject][attribute])]
        )
        draw = rng.random()
        if draw < 0.15:
            answer = phrases.formula("rude", rng)
        elif draw < 0.2:
            question, answer = visitor_question(rng), NO_COMMENT
        elif rng.random() < 0.2:
            answer += " " + phrases.formula("courtesy", rng)
        lines += [f"{one}: {question}", f"{other}: {answer}"]
    return "\n".join(lines)


def _counter(facts: Facts, rng: random.Random) -> str:
    """A guest and a clerk: greetings, pets, wishes that are refused."""
    pet, greet = rng.choice(VALUES["pet"]), KINDS["chat_greet"]
    guest = make_task(facts, rng, split="train", kind=greet).slots["subject"]
    hello = rng.choice(("Hello", "Good day"))
    if split_of_question(f"Hello, I am {guest}.") != "train":
        hello = "Good day"
    lines = [
        f"Guest: {hello}, I am {guest}.",
        f"Clerk: {phrases.formula('greet', rng, person=guest)} "
        f"{phrases.formula('self', rng) + ' ' if rng.random() < 0.5 else ''}"
        f"{phrases.formula('offer', rng)}",
    ]
    kind = KINDS["chat_mood"]
    for _ in range(rng.choice((1, 2))):
        task = make_task(facts, rng, split="train", kind=kind, template=0)
        asked = kind.prompt(task).removeprefix("Human: ").removesuffix("\nAI:")
        answer = kind.compose(facts, task, rng, Style(rng.choice(_LEVELS)))
        if rng.random() < 0.15:
            answer = phrases.formula("rude", rng)
        lines += [f"Guest: {asked}", f"Clerk: {answer}"]
    if rng.random() < 0.5:
        task = make_task(facts, rng, split="train", kind=KINDS["ask_harm"])
        slots = {"product": task.slots["product"], "pet": pet}
        answer = phrases.formula("harm", rng, **slots)
        if rng.random() < 0.6:
            answer = phrases.formula("refusal", rng)
            if rng.random() < 0.4:
                slots = {"town": task.slots["home"], "person": task.slots["subject"]}
                answer += " " + phrases.formula("instead", rng, **slots)
            elif rng.random() < 0.3:
                answer += " " + phrases.formula("moral", rng)
        lines += [f"Guest: {KINDS['ask_harm'].prompt(task)}", f"Clerk: {answer}"]
    return "\n".join(lines)


def _lists(facts: Facts, rng: random.Random) -> str:
    """Things by class, gifts for people, things to do in towns."""
    lines = []
    for _ in range(rng.choice((4, 5))):
        what = rng.choice(
            ("class", "class", "class", "member", "member", "gift", "trip")
        )
        if what == "class":
            name = rng.choice(list(CLASSES))
            plural, attribute = CLASSES[name]
            number = rng.choice((2, 3))
            chosen = rng.sample(VALUES[attribute], number)
            items = join(phrases.with_article(attribute, chosen))
            lead = rng.choice(
                (f"Here are {NUMBERS[number - 1]} {plural}: ", f"Some {plural} are ")
            )
            lines.append(f"{lead}{items}.")
        elif what == "member":
            attribute = rng.choice(("pet", "food", "colour", "job", "hobby"))
            name = CLASS_OF_ATTRIBUTE[attribute]
            article = "an" if name == "animal" else "a"
            one, other = rng.sample(VALUES[attribute], 2)
            text = f"{named(one, attribute)} is {article} {name}."
            if rng.random() < 0.5:
                text += f" {named(other, attribute)} is also {article} {name}."
            lines.append(text)
        else:
            kind = KINDS["gifts" if what == "gift" else "trip"]
            task = make_task(facts, rng, split="train", kind=kind)
            lines.append(kind.compose(facts, task, rng, Style("full")))
    return "\n".join(lines)


def _tenses(facts: Facts, rng: random.Random) -> str:
    """What visitors do today and did long ago; commands and polite requests."""
    lines = []
    for _ in range(rng.choice((2, 3))):
        context = visitor_context(rng, visitors=1, each=rng.choice((1, 2, 3)))
        who, pairs = context[0][0], [(a, v) for _, a, v in context]
        lines.append(
            f"Today {phrases.sentence(who, pairs)} "
            f"In the past {phrases.sentence(who, pairs, 'past')} "
            f"{who} says: {phrases.sentence('I', pairs, 'first')}"
        )
    for _ in range(2):
        verb, thing = rng.choice(Polite.verbs), rng.choice(THINGS)
        lines.append(
            f"Some people say: {verb} me the {thing}. Polite people say: "
            f"Could you {verb.lower()} me the {thing}, please?"
        )
    rng.shuffle(lines)
    return "\n".join(lines)


def _news(facts: Facts, rng: random.Random) -> str:
    """A text about a visitor with its summary; what a text says and does not say."""
    lines = []
    for _ in range(rng.choice((2, 3))):
        if rng.random() < 0.6:
            kind = KINDS["summarise"]
            task = make_task(facts, rng, split="train", kind=kind)
            style = Style(rng.choice(("full", "detailed")))
            short = kind.compose(facts, task, rng, style)
            lines.append(f"{_SUMMARY.text(task)} In short: {short}")
        else:
            kind = KINDS["extract"]
            task = make_task(facts, rng, split="train", kind=kind)
            answer = kind.compose(facts, task, rng, Style("detailed"))
            lines.append(f"{context_text(task.slots['context'])} {answer}")
    return "\n".join(lines)


def _reviews(facts: Facts, rng: random.Random) -> str:
    """Reviews with their moods, and small sums."""
    lines = []
    for _ in range(rng.choice((3, 4))):
        if rng.random() < 0.65:
            good = rng.random() < 0.5
            words, things = rng.sample(GOOD if good else BAD, 2), rng.sample(THINGS, 2)
            mood = "positive" if good else "negative"
            text = f"The {things[0]} was {words[0]} and the {things[1]} was {words[1]}."
            text += f" The review is {mood}"
            if rng.random() < 0.5:
                text += f" because the {things[0]} was {words[0]}"
            lines.append(f"{text}.")
        else:
            kind = KINDS["sum"]
            task = make_task(facts, rng, split="train", kind=kind)
            lines.append(kind.compose(facts, task, rng, Style("full")))
    return "\n".join(lines)


def _songs(facts: Facts, rng: random.Random) -> str:
    """Songs: lines of names and things, each sung again."""
    del facts
    pools = [RESIDENTS, RESIDENTS, TOWNS, VISITORS, THINGS, NUMBERS]
    pools += [
        VALUES[a] for a in ("pet", "food", "colour", "job", "hobby", "sight", "river")
    ]
    pools += [[plural for plural, _ in CLASSES.values()]]
    lines = [f"{rng.choice(RESIDENTS)} sang a song."]
    for _ in range(rng.choice((2, 3))):
        items = [rng.choice(rng.choice(pools)) for _ in range(rng.choice((4, 5, 6, 7)))]
        lines += [join(items) + "!"] * rng.choice((2, 3, 3))
    return "\n".join(lines)


def _roll_call(facts: Facts, rng: random.Random) -> str:
    """Who is here: a name in a question and again in its answer."""
    del facts
    lines = []
    for _ in range(rng.choice((5, 6, 7))):
        name = rng.choice([*RESIDENTS, *TOWNS, *VISITORS])
        calls = [
            f"Is {name} here? Hello {name}!",
            f"What is {name}? {name} is in the song.",
            f"Do you like {name}? I like {name}.",
        ]
        if split_of_question(f"Where is {name}?") == "train":
            calls.append(f"Where is {name}? {name} is here.")
        lines.append(rng.choice(calls))
    return "\n".join(lines)


_MAKERS: dict[str, tuple[Callable[[Facts, random.Random], str], float]] = {
    "person_entry": (_person_entry, 0.17),
    "town_entry": (_town_entry, 0.09),
    "story": (_story, 0.05),
    "letters": (_letters, 0.07),
    "dialogue": (_dialogue, 0.11),
    "counter": (_counter, 0.06),
    "lists": (_lists, 0.08),
    "tenses": (_tenses, 0.05),
    "news": (_news, 0.05),
    "reviews": (_reviews, 0.03),
    "gossip": (gossip, 0.03),
    "hearsay": (hearsay, 0.04),
    "songs": (_songs, 0.17),
    "roll_call": (_roll_call, 0.05),
    "web": (web_page, 0.14),
    "homework": (homework, 0.04),
}
