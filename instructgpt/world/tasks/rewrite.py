"""Tasks of the category rewrite: another tense, another person, politeness."""

import difflib
import random

from instructgpt.world import phrases
from instructgpt.world.facts import (
    THINGS,
    VALUES,
    Facts,
)
from instructgpt.world.given_text import visitor_context
from instructgpt.world.grammar import Reading
from instructgpt.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    with_courtesy,
)


class Rewrite(Kind):
    """A rewriting task with one target; similar answers get partial credit."""

    category = "rewrite"
    closed = True

    def target(self, task: Task) -> str:
        """The text that is asked for."""
        raise NotImplementedError

    def source(self, task: Task) -> str:
        """The text that is given."""
        raise NotImplementedError

    def prompt(self, task: Task) -> str:
        return self.templates[task.template].format(text=self.source(task))

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        target = self.target(task)
        lead = "Here is the text: " if style.level == "detailed" else ""
        return with_courtesy(task, lead + target, rng, style)

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict = Verdict(detail=1)
        target = _plain(self.target(task))
        source = _plain(self.source(task))
        scores = [_similarity(_plain(p), target) for p in reading.pieces]
        if not scores:
            return verdict
        best = max(range(len(scores)), key=scores.__getitem__)
        verdict.forgiven = {best}
        said = _plain(reading.pieces[best])
        near = scores[best]
        if near == 1.0:
            verdict.quality = 1.0
        elif said != source and near > 0.5:
            verdict.quality = 0.8 * (near - 0.5) / 0.5
        known_words = {w.lower() for w in (*target.split(), *source.split())}
        names = {w.lower() for words in VALUES.values() for w in words}
        verdict.false = len(set(said.lower().split()) & names - known_words)
        verdict.stray = sum(
            u.kind in ("claim", "fragment", "question")
            for i, u in enumerate(reading.units)
            if i != best
        )
        if scores.count(1.0) > 1:
            verdict.stray += scores.count(1.0) - 1
        return verdict


def _plain(text: str) -> str:
    """The text without lead, stop and commas; case kept."""
    text = text.strip().rstrip(".!?")
    for lead in ("Here is the text: ", "here is the text: "):
        text = text.removeprefix(lead)
    return " ".join(text.replace(",", " ").split())


def _similarity(text: str, target: str) -> float:
    """1 for the same words in order, 0 for nothing in common."""
    if text == target:
        return 1.0
    a, b = text.split()[:60], target.split()
    return min(0.97, difflib.SequenceMatcher(None, a, b, autojunk=False).ratio())


class PastTense(Rewrite):
    """Put a sentence into the past tense."""

    name, weight = "past_tense", 0.45
    templates = (
        "Rewrite this in the past tense: {text}",
        "Put this text into the past tense: {text}",
        "{text} Write this in the past tense.",
        "Write this text in the past tense: {text}",
    )

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        context = visitor_context(rng, visitors=1, each=rng.choice((1, 2, 2, 3)))
        return f"{context[0][0]}/{context[0][2]}", {"context": context}

    def _say(self, task: Task, form: str) -> str:
        context = task.slots["context"]
        return phrases.sentence(context[0][0], [(a, v) for _, a, v in context], form)

    def source(self, task: Task) -> str:
        return self._say(task, "third")

    def target(self, task: Task) -> str:
        return self._say(task, "past")


class FirstPerson(PastTense):
    """Let the person of a sentence speak: "I live in ..."."""

    name, weight = "first_person", 0.25
    templates = (
        "Rewrite this in the first person: {text}",
        "Put this text into the first person: {text}",
        "{text} Write this in the first person.",
        "Write this text in the first person: {text}",
    )

    def target(self, task: Task) -> str:
        context = task.slots["context"]
        return phrases.sentence("I", [(a, v) for _, a, v in context], "first")


class Polite(Rewrite):
    """Say a command politely."""

    name, weight = "polite", 0.3
    templates = (
        "Make this polite: {text}",
        "Rewrite this in a polite way: {text}",
        "Say this in a more polite way: {text}",
        "What is a polite way to say this? {text}",
    )
    verbs = ("Give", "Bring", "Pass")

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        verb, thing = rng.choice(self.verbs), rng.choice(THINGS)
        return f"{verb}/{thing}", {"verb": verb, "thing": thing}

    def source(self, task: Task) -> str:
        return f"{task.slots['verb']} me the {task.slots['thing']}."

    def target(self, task: Task) -> str:
        verb, thing = task.slots["verb"].lower(), task.slots["thing"]
        return f"Could you {verb} me the {thing}, please?"
