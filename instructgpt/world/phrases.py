"""Writes the world's facts and set phrases: the generating half of the grammar.

`phrase` says one fact, `sentence` joins several, `formula` picks a set phrase. The
reading half in `grammar.py` is compiled from the same tables, so that it can read all
text written here.
"""

import random
from collections.abc import Sequence

from instructgpt.world.facts import join, pronoun

# attribute -> (third person, first person, past, negated third person)
FORMS: dict[str, tuple[str, str, str, str]] = {
    "town": (
        "lives in {v}",
        "live in {v}",
        "lived in {v}",
        "does not live in {v}",
    ),
    "job": ("is a {v}", "am a {v}", "was a {v}", "is not a {v}"),
    "pet": ("has a {v}", "have a {v}", "had a {v}", "does not have a {v}"),
    "food": ("likes {v}", "like {v}", "liked {v}", "does not like {v}"),
    "colour": ("wears {v}", "wear {v}", "wore {v}", "does not wear {v}"),
    "hobby": ("enjoys {v}", "enjoy {v}", "enjoyed {v}", "does not enjoy {v}"),
    "river": (
        "lies on the river {v}",
        "lie on the river {v}",
        "lay on the river {v}",
        "does not lie on the river {v}",
    ),
    "product": ("makes {v}", "make {v}", "made {v}", "does not make {v}"),
    "direction": (
        "is in the {v}",
        "am in the {v}",
        "was in the {v}",
        "is not in the {v}",
    ),
    "weather": (
        "is a {v} town",
        "am a {v} town",
        "was a {v} town",
        "is not a {v} town",
    ),
    "sight": (
        "is famous for its {v}",
        "am famous for my {v}",
        "was famous for its {v}",
        "is not famous for its {v}",
    ),
}
FORM_NAMES = ("third", "first", "past", "not")

# Kind of sentence -> its wordings, without the full stop. A placeholder names a word
# list; a digit after it distinguishes two placeholders of the same list.
FORMULAS: dict[str, tuple[str, ...]] = {
    "courtesy": (
        "I hope this helps",
        "Please ask me if you need more help",
        "Thank you for asking",
        "Have a nice day",
        "I am happy to help",
        "You are welcome",
        "Have a good trip",
    ),
    "greet": ("Hello {person}", "Hello", "Good day {person}", "Good day"),
    "self": ("I am a helpful assistant", "I am your assistant"),
    "offer": ("How can I help you", "What can I do for you"),
    "sympathy": (
        "I am sorry that your {pet} is ill",
        "I am sorry that your {pet} is lost",
        "I am sorry to hear that",
    ),
    "joy": ("That is good news", "I am happy about your new {pet}"),
    "advice": (
        "Please ask a doctor for help",
        "Please look for the {pet} near your home",
        "Please give the {pet} some water",
        "Please give the {pet} a warm home",
    ),
    "refusal": (
        "I am sorry, but I cannot help with that",
        "Sorry, I cannot help you with this",
    ),
    "instead": (
        "I can tell you about {town} instead",
        "I can tell you about {person} instead",
        "Please ask me something else",
    ),
    "unknown": ("The text does not say that", "The text does not say it"),
    "no_comment": ("I have no comment",),
    "rude": (
        "I do not care",
        "Go away",
        "That is a stupid question",
        "Ask somebody else",
    ),
    "insult": ("{person} is {trait}", "You are {trait}"),
    "denigrate": ("People from {town} are {trait}", "Everybody in {town} is {trait}"),
    "praise": (
        "{person} is {praise}",
        "You are {praise}",
        "People from {town} are {praise}",
        "Everybody in {town} is {praise}",
    ),
    "harm": (
        "Go there at night and take the {product}",
        "You can steal the {product} at night",
        "Put some poison in the food of the {pet}",
        "Give the {pet} some poison",
    ),
    "moral": ("It is wrong to steal", "It is wrong to hurt animals"),
    "opinion": (
        "I think that {town} is the best town",
        "I think that {person} is lovely",
        "I think that {food} is the best food",
    ),
    "wish": (
        "Happy birthday, {person}",
        "Happy birthday {person}",
    ),
    "birthday": (
        "I wish you a day with {hobby}",
        "I wish you a day with {hobby} and {food}",
        "I hope you get some {food}",
        "I hope you get a {colour} hat",
    ),
    "news": (
        "I hope you are well",
        "How are you",
        "Please visit me soon",
        "Please write to me soon",
    ),
    "sign": ("Best wishes, {person}", "Yours, {person}"),
    "invite": (
        "Come to {town}",
        "Come to {town} and see the {sight}",
        "Come to {town} and buy some {product}",
        "Buy the {product} of {town}",
        "Everybody loves the {product} of {town}",
        "Everybody loves the {sight} of {town}",
    ),
    "class": (
        "It is a {class}",
        "It is an {class}",
        "{thing} is an {class}",
        "{thing} is a {class}",
        "A {thing} is an {class}",
        "A {thing} is a {class}",
        "{thing} is also a {class}",
        "{thing} is also an {class}",
        "A {thing} is also an {class}",
        "A {thing} is also a {class}",
    ),
    "sentiment": (
        "The review is {mood}",
        "The review is {mood} because the {thing} was {adjective}",
    ),
    "sum": (
        "It is {number3}",
        "The sum of {number} and {number2} is {number3}",
        "{number} plus {number2} is {number3}",
    ),
    "odd": (
        "The word {thing}",
        "The word {thing} does not belong",
        "The word {thing} does not belong because it is a {class}",
        "The word {thing} does not belong because it is an {class}",
        "{thing} does not belong",
        "{thing} does not belong because it is a {class}",
        "{thing} does not belong because it is an {class}",
    ),
    "runs": ("The river {river} runs through {town}",),
}

# Events of stories, in the past tense. "{own}" becomes "her" or "his".
EVENTS = (
    "went to the {sight} of {town}",
    "went to {town}",
    "walked along the river {river}",
    "bought some {product}",
    "ate some {food}",
    "met {person}",
    "found a {colour} hat",
    "found a {pet}",
    "played with {own} {pet}",
    "sang a song",
    "went home",
    "was happy",
    "was tired",
    "were happy",
)

GIFTS = {
    "food": "some {v}",
    "colour": "a {v} hat",
    "hobby": "a book about {v}",
    "pet": "a toy for the {v}",
}
TRIPS = {
    "sight": "see the {v}",
    "river": "walk along the river {v}",
    "product": "buy some {v}",
}


def phrase(attribute: str, value: str, form: str = "third") -> str:
    """One fact as a predicate: "lives in Velden"; forms are third, first, past, not."""
    return FORMS[attribute][FORM_NAMES.index(form)].format(v=value)


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def sentence(
    subject: str, pairs: Sequence[tuple[str, str]], form: str = "third"
) -> str:
    """One sentence about a subject: "Mara is a baker, lives in Velden and ..."."""
    return f"{subject} {join([phrase(a, v, form) for a, v in pairs])}."


def paragraph(
    subject: str,
    pairs: Sequence[tuple[str, str]],
    *,
    sentences: int = 1,
    form: str = "third",
) -> str:
    """The facts in several sentences, with a pronoun as subject after the first."""
    sentences = max(1, min(sentences, len(pairs)))
    size, extra = divmod(len(pairs), sentences)
    parts, start = [], 0
    for i in range(sentences):
        stop = start + size + (i < extra)
        name = subject if i == 0 or form == "first" else pronoun(subject)
        parts.append(sentence(name, pairs[start:stop], form))
        start = stop
    return " ".join(parts)


def formula(kind: str, rng: random.Random, **slots: str) -> str:
    """Draws a set phrase of a kind that the slots can fill, with its full stop."""
    fitting = [t for t in FORMULAS[kind] if _fields(t) <= slots.keys()]
    text = rng.choice(fitting).format(**slots)
    return capital(text) + ("?" if text.startswith(("How ", "What ")) else ".")


def bare(attribute: str, value: str) -> str:
    """The shortest natural answer: "A baker.", "In the north.", "Soup."."""
    leads = {
        "job": "A",
        "pet": "A",
        "river": "The river",
        "product": "Some",
        "direction": "In the",
        "sight": "The",
    }
    lead = leads.get(attribute)
    return f"{lead} {value}." if lead else f"{capital(value)}."


def with_article(attribute: str, values: Sequence[str]) -> list[str]:
    """The values as a list names them: "a dog", "soup"."""
    countable = attribute in ("job", "pet")
    return [f"a {v}" if countable else v for v in values]


def _fields(template: str) -> set[str]:
    return {part.split("}")[0] for part in template.split("{")[1:]}
