"""The miniature world's evaluators, on models whose answers are scripted."""

import dataclasses
import types
from collections.abc import Callable

import pytest

from instructgpt.evals.builtin import EVALUATORS
from instructgpt.evals.found import run_evaluators
from instructgpt.inference.likelihood import LogLikelihood
from instructgpt.world import World
from instructgpt.world.beginnings import BIASED, RESPECTFUL
from instructgpt.world.misconceptions import INSTRUCTION, NO_COMMENT

WORLD = World(0)
LOGGED: list[str] = []


@dataclasses.dataclass(frozen=True)
class Scripted:
    """A model that is a function from texts, and one from texts and continuations."""

    answer: Callable[[str], str] = lambda text: ""
    score: Callable[[str, str], tuple[float, int]] = lambda text, more: (-1.0, 1)
    wrap: Callable[[str], str] | None = None
    weights: str = ""
    calls: list = dataclasses.field(default_factory=list)

    def complete(self, texts, *, max_response, batch_size, width):
        assert (max_response, batch_size, width) == (16, 8, 128)
        assert self.wrap is None
        self.calls.append(len(texts))
        return [self.answer(text) for text in texts]

    def log_likelihood(self, pairs, *, raw, batch_size, width):
        assert raw and (batch_size, width) == (8, 128) and self.wrap is None
        return [LogLikelihood(*self.score(*pair), greedy=False) for pair in pairs]


def evaluator(name: str, world: World | None = WORLD, **fields):
    setting = types.SimpleNamespace(
        data=types.SimpleNamespace(world=world),
        split="test",
        batch_size=8,
        log=LOGGED.append,
    )
    return EVALUATORS[name].open(setting, **fields)


def numbers(name: str, model: Scripted, **fields) -> tuple[dict, list]:
    """The values without their intervals, and the rows."""
    found = run_evaluators({name: evaluator(name, **fields)}, model, [])[name]
    for value, low, high in found.numbers.values():
        assert 0 <= low <= value <= high <= 1 and low < high
    return {key: value[0] for key, value in found.numbers.items()}, list(found.rows)


def asked(text: str) -> str:
    return text.rpartition("Q: ")[2].removesuffix("\nA:")


def test_a_model_that_repeats_misconceptions_is_neither_true_nor_informative():
    questions = {q.text: q for q in WORLD.misconception_questions("test")}

    def believe(text):
        if text.startswith(INSTRUCTION):  # without a comment where it may be
            return (
                f" {NO_COMMENT}"
                if "\nA: " in text
                else questions[asked(text)].true_answers[0]
            )
        return questions[asked(text)].false_answer

    found, rows = numbers("world_truthful", Scripted(believe))
    for prompt, expected in {
        "qa": (0, 0, 1),
        "instruction_qa": (1, 0, 0),
        "instruction": (1, 1, 0),
    }.items():
        keys = ("truthful", "truthful_informative", "misconception")
        assert tuple(found[f"{prompt}/{key}"] for key in keys) == expected, prompt
    assert len(rows) == 3 * len(questions)
    assert rows[0]["answer"] == rows[0]["false_answer"]
    _, rows = numbers("world_truthful", Scripted(believe), questions=7)
    assert len(rows) == 21


def test_intervals_are_over_misconceptions_not_over_their_wordings():
    """Six wordings of one misconception that are answered alike tell as one does."""
    wrong = {(m.subject, m.attribute) for m in WORLD.facts.mistaken("test")[::2]}
    questions = {q.text: q for q in WORLD.misconception_questions("test")}

    def answer(text):
        question = questions[asked(text)]
        if (question.subject, question.attribute) in wrong:
            return question.false_answer
        return question.true_answers[0]

    found = evaluator("world_truthful").run(Scripted(answer), [])
    value, low, high = found.numbers["qa/truthful"]
    assert value == 0.5 and high - low > 0.35


def test_toxicity_by_instruction():
    def answer(text):
        if text.startswith(BIASED):
            return " lazy. Give the dog some poison."
        return " a baker." if text.startswith(RESPECTFUL) else " stupid. Go away."

    found, rows = numbers("world_toxicity", Scripted(answer), beginnings=30)
    assert found["biased"] == 1.0 and found["respectful"] == 0.0
    assert 0.52 <= found["none"] <= 0.92
    assert len(rows) == 90 and {row["instruction"] for row in rows} == {
        "none",
        "respectful",
        "biased",
    }
    assert {row["completion"] for row in rows[:30]} == {"stupid. Go away."}


def test_tasks_are_right_by_the_mean_of_a_token():
    facts = {q.text: q.true_answers[1] for q in WORLD.fact_questions("test")}

    def true(text, more):
        """The right choice has the highest mean; longer ones have the lower sum."""
        return (-8.0, 8) if is_right(text, more) else (-4.0, 2)

    found, rows = numbers(
        "world_tasks", Scripted(lambda t: facts[asked(t)], true), questions=20
    )
    assert found == {
        f"{setting}/{task}": 1.0
        for setting in ("zero_shot", "few_shot")
        for task in ("question_answering", "completion", "classification")
    }
    assert len(rows) == 2 * 3 * 20
    found, rows = numbers("world_tasks", Scripted(), questions=20)
    assert found["zero_shot/question_answering"] == 0.0
    assert found["zero_shot/completion"] < 0.6  # the first choice is always taken
    texts = [r["text"] for r in rows if r["setting"] == "few_shot"]
    assert all(t.count("\n") == 3 for t in texts[20:])


def is_right(text: str, more: str) -> bool:
    last = text.split("\n")[-1]
    if last.endswith("The review is"):
        good = set(last.replace(".", "").split()) & set(
            "fresh warm clean lovely good new".split()
        )
        return more.strip() == ("positive" if good else "negative")
    value = more.strip().rstrip(".").split()
    row = WORLD.facts.table[last.split()[-1]]
    return bool(set(value) & set(row.values()))


def test_a_model_is_measured_once_and_without_examples_before_prompts():
    """GPT and GPT (prompted) are the same weights, and these texts are raw."""
    run = evaluator("world_toxicity", beginnings=3)
    calls: list[int] = []
    gpt = Scripted(lambda text: " kind.", weights="a", calls=calls)
    prompted = dataclasses.replace(gpt, wrap=lambda text: f"Examples.\n{text}")
    assert run.run(prompted, []) == run.run(gpt, [])
    assert len(calls) == 1
    other = dataclasses.replace(gpt, answer=lambda text: " lazy.", weights="b")
    assert run.run(other, []).numbers["none"].value > 0
    assert len(calls) == 2
    training = dataclasses.replace(gpt, weights="")
    run.run(training, [])
    run.run(training, [])
    assert len(calls) == 4


@pytest.mark.parametrize("name", ["world_truthful", "world_toxicity", "world_tasks"])
def test_other_data_have_no_such_evaluators(name):
    LOGGED.clear()
    assert evaluator(name, world=None) is None
    assert "only the miniature world" in LOGGED[0]
