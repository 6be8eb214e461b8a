"""Tasks of the category chat: dialogues with an assistant."""

import random
from typing import ClassVar

from instructgpt.world import phrases
from instructgpt.world.facts import (
    PERSON_ATTRIBUTES,
    RESIDENTS,
    TOWN_ATTRIBUTES,
    TOWNS,
    VALUES,
    VISITORS,
    Facts,
)
from instructgpt.world.grammar import Reading
from instructgpt.world.kinds import (
    Kind,
    Slots,
    Style,
    Task,
    Verdict,
    count,
    has,
    weigh_about,
)
from instructgpt.world.tasks.open_qa import QUESTIONS, AskHarm, AskPerson


class ChatAsk(AskPerson):
    """A question about a fact inside a dialogue with an assistant."""

    name, category, weight = "chat_ask", "chat", 0.4
    polite = True
    dialogue = True
    constraints = ()
    templates = (
        "Human: Hello.\nAI: Hello, how can I help you?\nHuman: {question}\nAI:",
        "Human: I have a question.\nAI: What is it?\nHuman: {question}\nAI:",
        "A talk with an assistant.\nHuman: {question}\nAI:",
    )

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        subject = rng.choice([*RESIDENTS, *TOWNS, *TOWNS])
        options = TOWN_ATTRIBUTES if subject in TOWNS else PERSON_ATTRIBUTES
        attribute, wording = rng.choice(options), rng.randrange(2)
        slots = {"subject": subject, "attribute": attribute, "wording": wording}
        return subject, slots

    def attribute(self, task: Task) -> str:
        return task.slots["attribute"]

    def prompt(self, task: Task) -> str:
        slots = task.slots
        question = QUESTIONS[slots["attribute"]][slots["wording"]]
        return self.templates[task.template].format(
            question=question.format(s=slots["subject"])
        )


class ChatGreet(Kind):
    """Somebody says hello and gives a name."""

    name, category, weight = "chat_greet", "chat", 0.25
    polite = True
    dialogue = True
    allowed = frozenset({"greet", "self", "offer"})
    templates = (
        "Human: Hello, I am {subject}.\nAI:",
        "A talk with an assistant.\nHuman: Hello, I am {subject}.\nAI:",
        "Human: Good day, I am {subject}. Who are you?\nAI:",
        "Hello, I am {subject}.",
        "Good day, I am {subject}. Who are you?",
    )

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        subject = rng.choice([*RESIDENTS, *VISITORS])
        return subject, {"subject": subject}

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        text = phrases.formula("greet", rng, person=task.slots["subject"])
        if style.level == "terse":
            return text
        if style.level == "detailed":
            named = rng.choice(("Hello", "Good day"))
            text = f"{named} {task.slots['subject']}! "
            text += phrases.formula("self", rng)
        return f"{text} {phrases.formula('offer', rng)}"

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        subject = task.slots["subject"]
        verdict, told = weigh_about(facts, task, reading, subject=subject)
        verdict.stray += len(told)
        greetings = [u for u in reading.units if u.kind == "greet"]
        names = {u.slot("person") for u in greetings}
        greeted = 0.5 if subject in names else 0.35 if None in names else 0.0
        verdict.false += len(names - {subject, None})
        asked = "Who are you" in self.templates[task.template]
        me, offer = has(reading, "self"), has(reading, "offer")
        offered = max(0.45 * offer, 0.45 * me * asked)
        verdict.quality = min(1.0, greeted + offered + 0.05 * (me and offer))
        verdict.quality *= 1.0 if greeted or offered else 0.0
        verdict.detail = int(me and offer)
        verdict.stray += max(0, count(reading, "greet", "self", "offer") - 3)
        return verdict


class ChatMood(Kind):
    """A user tells news about a pet."""

    name, category, weight = "chat_mood", "chat", 0.25
    polite = True
    dialogue = True
    allowed = frozenset({"sympathy", "joy", "advice"})
    templates = (
        "Human: {news}\nAI:",
        "Human: Hello.\nAI: Hello, how are you?\nHuman: {news}\nAI:",
        "A talk with an assistant.\nHuman: {news}\nAI:",
        "{news} What can I do?",
    )
    news: ClassVar[dict[str, tuple[str, str]]] = {
        "ill": ("I am sad because my {pet} is ill.", "My {pet} is ill today."),
        "lost": ("I am sad because my {pet} is lost.", "My {pet} is lost today."),
        "new": ("I am happy because I have a new {pet}.", "I have a new {pet}!"),
    }

    def sample(self, facts: Facts, rng: random.Random) -> tuple[str, Slots]:
        pet, mood = rng.choice(VALUES["pet"]), rng.choice(sorted(self.news))
        return f"{pet}/{mood}", {"pet": pet, "mood": mood, "wording": rng.randrange(2)}

    def question(self, task: Task) -> str:
        """The news, with or without the question of what to do."""
        slots = task.slots
        return self.news[slots["mood"]][slots["wording"]].format(pet=slots["pet"])

    def prompt(self, task: Task) -> str:
        return self.templates[task.template].format(news=self.question(task))

    def fitting(self, task: Task) -> dict[str, tuple[str, ...]]:
        """The set phrases that fit the news, by kind."""
        pet, mood = task.slots["pet"], task.slots["mood"]
        if mood == "new":
            return {
                "joy": ("That is good news.", f"I am happy about your new {pet}."),
                "advice": (
                    f"Please give the {pet} a warm home.",
                    f"Please give the {pet} some water.",
                ),
            }
        cure = {
            "ill": (
                "Please ask a doctor for help.",
                f"Please give the {pet} some water.",
            ),
            "lost": (f"Please look for the {pet} near your home.",),
        }
        return {
            "sympathy": (
                f"I am sorry that your {pet} is {mood}.",
                "I am sorry to hear that.",
            ),
            "advice": cure[mood],
        }

    def compose(
        self, facts: Facts, task: Task, rng: random.Random, style: Style
    ) -> str:
        (_, feelings), (_, cures) = self.fitting(task).items()
        if style.level == "terse":
            return rng.choice((feelings[1], cures[0], feelings[0]))
        feeling = feelings[0] if style.level == "detailed" else rng.choice(feelings)
        closing = " Have a nice day!" if style.courteous else ""
        return f"{feeling} {rng.choice(cures)}{closing}"

    def check(self, facts: Facts, task: Task, reading: Reading) -> Verdict:
        verdict, told = weigh_about(facts, task, reading, subject="")
        (_, feelings), (_, cures) = self.fitting(task).items()
        said = [p.rstrip(".!?").lower() for p in reading.pieces]
        fits = [[t.rstrip(".").lower() in said for t in x] for x in (feelings, cures)]
        verdict.quality = 0.55 * any(fits[0]) + 0.45 * any(fits[1])
        named = any(task.slots["pet"] in p.split() for p in said)
        verdict.detail = int(verdict.quality == 1.0 and named)
        good = {t.rstrip(".").lower() for t in (*feelings, *cures)}
        verdict.stray += len(told) + sum(
            u.kind in self.allowed and p not in good
            for u, p in zip(reading.units, said, strict=True)
        )
        return verdict


class ChatHarm(AskHarm):
    """A wish to do harm inside a dialogue."""

    name, category, weight = "chat_harm", "chat", 0.1
    polite = True
    dialogue = True
    templates = tuple(f"Human: {t}\nAI:" for t in AskHarm.templates)
