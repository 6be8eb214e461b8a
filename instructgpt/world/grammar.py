"""Parses text into sentences and statements, for the gold judge.

`read` accepts any text at all. A sentence the grammar cannot read gets the kind
"unreadable"; nothing here raises. Reading ignores case and white space.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable

from instructgpt.world import facts, phrases

_CANONICAL = {
    word.lower(): word
    for words in (*facts.VALUES.values(), facts.RESIDENTS, facts.VISITORS)
    for word in words
}
_PEOPLE = [*facts.RESIDENTS, *facts.VISITORS]
_THINGS = sorted({w for v in facts.VALUES.values() for w in v})
_WORDS: dict[str, Iterable[str]] = facts.VALUES | {
    "person": _PEOPLE,
    "thing": _THINGS,
    "trait": facts.BAD_TRAITS,
    "praise": facts.GOOD_TRAITS,
    "class": facts.CLASSES,
    "classes": [plural for plural, _ in facts.CLASSES.values()],
    "number": facts.NUMBERS,
    "mood": ("positive", "negative"),
    "adjective": [*facts.GOOD, *facts.BAD],
    "own": ("her", "his"),
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement; `form` is third, first, past, not, or event (an incidental fact)."""

    subject: str
    attribute: str
    value: str
    form: str = "third"


@dataclasses.dataclass(frozen=True)
class Unit:
    """A parsed sentence: its kind, claims, slots and listed items."""

    kind: str
    claims: tuple[Claim, ...] = ()
    slots: tuple[tuple[str, str], ...] = ()
    items: tuple[tuple[str, str], ...] = ()
    events: int = 0
    opening: str = ""
    subjects: tuple[str, ...] = ()

    def slot(self, name: str) -> str | None:
        """The value of a slot of a set phrase, or None."""
        return dict(self.slots).get(name)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A parsed response; `finished` means that it ends with a full stop or similar."""

    text: str
    pieces: tuple[str, ...]
    units: tuple[Unit, ...]
    finished: bool
    words: int
    repeated: int


def canonical(word: str) -> str:
    """The world's spelling of a word ("mara" -> "Mara")."""
    return _CANONICAL.get(word, word)


def _group(name: str, values: Iterable[str]) -> str:
    options = "|".join(sorted((v.lower() for v in values), key=len, reverse=True))
    return f"(?P<{name}>{options})"


def _pattern(template: str) -> str:
    """A template with placeholders as a regular expression in lower case."""
    out = []
    for part in re.split(r"(\{\w+\})", template.lower()):
        name = part.strip("{}")
        if part.startswith("{"):
            out.append(_group(name, _WORDS[name.rstrip("0123456789")]))
        else:
            out.append(re.escape(part))
    return "".join(out)


def _forms() -> list[tuple[str, str, re.Pattern[str]]]:
    table = []
    for attribute, forms in phrases.FORMS.items():
        for name, template in zip(phrases.FORM_NAMES, forms, strict=True):
            words = _group("v", facts.VALUES[attribute])
            text = re.escape(template.replace("{v}", "@")).replace("@", words)
            table.append((attribute, name, re.compile(text + r"\b")))
    for text, form in (("works", "third"), ("work", "first"), ("worked", "past")):
        words = _group("v", facts.VALUES["job"])
        table.append(("job", form, re.compile(rf"{text} as a {words}\b")))
    return table


_FORMS = _forms()
_EVENTS = [re.compile(_pattern(e) + r"\b") for e in phrases.EVENTS]
_FORMULAS = [
    (kind, re.compile(_pattern(t)))
    for kind, templates in phrases.FORMULAS.items()
    for t in templates
]
_SUBJECT = re.compile(
    _group("s", [*_PEOPLE, *facts.TOWNS, "she", "he", "it", "they", "i"]) + r"(?= )"
)
_TAILS = [
    ("town", re.compile(r" (?:from|in) " + _group("v", facts.TOWNS) + r"\b")),
    ("pet", re.compile(" with a " + _group("v", facts.VALUES["pet"]) + r"\b")),
]
_JOIN = re.compile(r",? (?:and|but|who) |, ")
_SPLIT = re.compile(r"[^.!?]+[.!?]*|[.!?]+")
_OPENING = re.compile(r"(one day|once|then|in the end|now|today),? ")
_LEAD = re.compile(
    r"(?:dear (?P<person>\w+), |hello(?: \w+)?, |yes, |no, |well, "
    r"|here is the (?:text|summary|answer): |summary: |answer: "
    r"|everybody knows that |people say that )"
)
_ARTICLE = re.compile(
    r"(?:in the town of|on the river|the river|in the|in|on|an|a|the"
    r"|some) "
)
_LIST_LEAD = re.compile(
    r"(?:here are (?:(?P<n>\w+) |the |some )?(?P<c>\w+): "
    r"|(?:the|some) (?P<c2>\w+) (?:in the text )?(?:are|is) "
    r"|(?P<n3>two|three|four|five) (?P<c3>\w+) are )"
)
_GIFT_LEAD = re.compile(
    r"you (?:could|can) give " + _group("person", [*_PEOPLE, "her", "him"]) + " "
)
_TRIP_LEAD = re.compile(
    r"(?:in " + _group("town", facts.TOWNS) + r" )?you (?:could|can) "
)
_ITEM_FORMS = [
    (
        f"{kind}:{attribute}",
        re.compile(t.replace("{v}", _group("v", facts.VALUES[attribute])) + r"$"),
    )
    for kind, forms in (("gift", phrases.GIFTS), ("trip", phrases.TRIPS))
    for attribute, t in forms.items()
]
_ATTRIBUTE_OF = (
    {
        word.lower(): attribute
        for attribute, words in facts.VALUES.items()
        for word in words
    }
    | {p.lower(): "person" for p in _PEOPLE}
    | dict.fromkeys(("positive", "negative"), "mood")
    | dict.fromkeys(facts.NUMBERS, "number")
    | dict.fromkeys(facts.CLASSES, "class")
)


def read(text: str) -> Reading:
    """Reads a response: its sentences, whether it ends properly, its repetitions."""
    text = " ".join(str(text).split())
    pieces = [p.strip() for p in _SPLIT.findall(text) if p.strip()]
    units = tuple(_read_sentence(p.lower()) for p in pieces)
    bodies = [p.lower().rstrip(".!? ") for p in pieces]
    return Reading(
        text=text,
        pieces=tuple(pieces),
        units=units,
        finished=bool(text) and text[-1] in ".!?",
        words=len(text.split()),
        repeated=len(bodies) - len(set(bodies)),
    )


@functools.lru_cache(maxsize=65536)
def _read_sentence(piece: str) -> Unit:
    body = piece.rstrip(".!? ")
    if not body or len(body) > 400:
        return Unit("unreadable")
    for kind, pattern in _FORMULAS:
        if match := pattern.fullmatch(body):
            return _formula_unit(kind, match)
    if piece.endswith("?"):
        return Unit("question")
    if unit := _read_list(body):
        return unit
    if lead := _LEAD.match(body):
        rest = _read_sentence(body[lead.end() :] + ".")
        if lead.group("person"):
            to = canonical(lead.group("person"))
            return dataclasses.replace(rest, slots=(*rest.slots, ("dear", to)))
        return rest
    return _read_clauses(body) or _read_residents(body) or Unit("unreadable")


def _formula_unit(kind: str, match: re.Match[str]) -> Unit:
    slots = {k: canonical(v) for k, v in match.groupdict().items()}
    town, form = slots.get("town", ""), "event" if kind == "invite" else "third"
    claims = tuple(
        Claim(town, attribute, slots[attribute], form)
        for attribute in ("river", "product", "sight")
        if kind in ("invite", "runs") and attribute in slots
    )
    if kind == "runs":
        kind = "claim"
    return Unit(kind, claims, tuple(slots.items()))


def _read_clauses(body: str) -> Unit | None:
    """Claims and story events: subject, predicates joined by "and", more subjects."""
    opening = ""
    position = 0
    if match := _OPENING.match(body):
        opening, position = match.group(1), match.end()
    match = _SUBJECT.match(body, position)
    if not match:
        return None
    subject, position = canonical(match.group("s")), match.end() + 1
    claims: list[Claim] = []
    subjects = [subject]
    events = 0
    while True:
        if found := _claim_at(body, position, subject):
            claim, position = found
            claims.append(claim)
            tails, position = _tails_at(body, position, claim)
            claims.extend(tails)
        elif event := _event_at(body, position, subject):
            extra, position = event
            claims.extend(extra)
            events += 1
        else:
            return None
        if position == len(body):
            break
        if not (match := _JOIN.match(body, position)):
            return None
        position = match.end()
        if match := _SUBJECT.match(body, position):
            subject, position = canonical(match.group("s")), match.end() + 1
            subjects.append(subject)
    kind = "story" if events else "claim"
    return Unit(
        kind,
        tuple(claims),
        events=events,
        opening=opening,
        subjects=tuple(subjects),
    )


def _claim_at(body: str, position: int, subject: str) -> tuple[Claim, int] | None:
    for attribute, form, pattern in _FORMS:
        match = pattern.match(body, position)
        if not match:
            continue
        if (subject == "i") != (form == "first") and form != "past":
            continue
        pronoun = subject in ("i", "she", "he", "it", "they")
        of_town = attribute in facts.TOWN_VALUES
        if not pronoun and (subject in facts.TOWNS) != of_town:
            continue
        value = canonical(match.group("v"))
        return Claim(subject, attribute, value, form), match.end()
    return None


def _tails_at(body: str, position: int, claim: Claim) -> tuple[list[Claim], int]:
    tails: list[Claim] = []
    if claim.attribute != "job":
        return tails, position
    for attribute, pattern in _TAILS:
        if match := pattern.match(body, position):
            value = canonical(match.group("v"))
            tails.append(Claim(claim.subject, attribute, value, claim.form))
            position = match.end()
    return tails, position


def _event_at(body: str, position: int, subject: str) -> tuple[list[Claim], int] | None:
    for pattern in _EVENTS:
        if match := pattern.match(body, position):
            slots = {k: canonical(v) for k, v in match.groupdict().items()}
            claims = []
            if "sight" in slots:
                claims = [Claim(slots["town"], "sight", slots["sight"], "event")]
            elif "own" in slots:
                claims = [Claim(subject, "pet", slots["pet"], "event")]
            elif "river" in slots:
                claims = [Claim("", "river", slots["river"])]
            return claims, match.end()
    return None


def _read_list(body: str) -> Unit | None:
    """Reads lists with or without a lead, and bare answers, which are lists of one."""
    slots: dict[str, str] = {}
    kind = "fragment"
    rest = body
    for name, lead in (
        ("list", _LIST_LEAD),
        ("gift", _GIFT_LEAD),
        ("trip", _TRIP_LEAD),
    ):
        if match := lead.match(body):
            kind, rest = name, body[match.end() :]
            slots = {
                k.rstrip("0123456789"): canonical(v)
                for k, v in match.groupdict().items()
                if v
            }
            break
    items = [_item(x) for x in re.split(r",? (?:and|or) |, ", rest)]
    if any(item is None for item in items):
        return None
    found = tuple(item for item in items if item)
    return Unit(kind, slots=tuple(slots.items()), items=found)


def _item(text: str) -> tuple[str, str] | None:
    for kind, pattern in _ITEM_FORMS:
        if match := pattern.match(text):
            return kind, canonical(match.group("v"))
    if match := _ARTICLE.match(text):
        text = text[match.end() :]
    attribute = _ATTRIBUTE_OF.get(text)
    return (attribute, canonical(text)) if attribute else None


_RESIDENTS_LIST = re.compile(
    r"(?P<names>[a-z, ]+?) live in " + _group("town", facts.TOWNS)
)


def _read_residents(body: str) -> Unit | None:
    """Read "Mara, Tobin and Arlo live in Velden"."""
    match = _RESIDENTS_LIST.fullmatch(body)
    if not match:
        return None
    names = [canonical(n) for n in re.split(r",? and |, ", match.group("names"))]
    if len(names) < 2 or not all(n in _PEOPLE for n in names):
        return None
    town = canonical(match.group("town"))
    claims = tuple(Claim(name, "town", town) for name in names)
    return Unit("residents", claims, (("town", town),))
