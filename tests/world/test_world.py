"""The miniature world: determinism, splits, shares, the gold judge, the labelers."""

import collections
import itertools
import json
import random
import re

import numpy as np
import pytest

from instructgpt.evals.agreement.pairs import agreement
from instructgpt.world import Prompt, World, judge
from instructgpt.world import misconceptions as world_misconceptions
from instructgpt.world.demonstrations import swap_value
from instructgpt.world.facts import RESIDENTS, TOWNS
from instructgpt.world.kinds import CATEGORIES, Task
from instructgpt.world.prompts import MAX_TOKENS, count_tokens, make_task
from instructgpt.world.splits import LeakGuard, split_of_question
from instructgpt.world.tasks import KINDS

SPLITS = ("train", "valid", "test")
WORDS = re.compile(r"\w+|[^\w\s]")


@pytest.fixture(scope="module")
def world() -> World:
    return World(0)


@pytest.fixture(scope="module")
def prompts(world) -> dict[str, list[Prompt]]:
    return {s: world.prompts(s, 1600 if s == "train" else 800) for s in SPLITS}


def test_a_seed_gives_the_same_world_and_another_seed_another():
    one, same, another = World(3), World(3), World(4)
    assert one.facts == same.facts != another.facts
    assert list(one.documents("train", 20)) == list(same.documents("train", 20))
    assert one.prompts("test", 20) == same.prompts("test", 20)
    assert one.demonstrations("valid", 20) == same.demonstrations("valid", 20)
    assert one.labelers() == same.labelers()
    assert list(one.documents("train", 20)) != list(another.documents("train", 20))


def test_a_longer_draw_begins_with_the_shorter_one(world):
    assert world.prompts("train", 60)[:20] == world.prompts("train", 20)
    documents = list(world.documents("valid", 30))
    assert documents[:10] == list(world.documents("valid", 10))


def test_streams_and_splits_differ(world):
    texts = [
        {p.text for p in world.prompts("train", 200, stream=stream)}
        for stream in ("rm", "ppo")
    ]
    assert len(texts[0] & texts[1]) < 40
    one, two = (
        {d["text"] for d in world.documents(s, 100)} for s in ("train", "valid")
    )
    assert not one & two
    with pytest.raises(ValueError, match="unknown split"):
        world.prompts("dev", 1)


def test_prompts_are_mostly_distinct(prompts):
    for split, drawn in prompts.items():
        distinct = len({p.text for p in drawn})
        assert distinct >= 0.95 * len(drawn), (split, distinct)
        assert len({p.id for p in drawn}) == len(drawn)


def test_splits_share_no_customer_no_question_and_no_text(prompts):
    for one, two in itertools.combinations(SPLITS, 2):
        for value in (lambda p: p.customer, core_question, lambda p: p.text):
            first, second = ({value(p) for p in prompts[s]} for s in (one, two))
            assert not first & second


def core_question(prompt: Prompt) -> str:
    """The prompt's question by hand: no dialogue around it, no constraint after it."""
    text = KINDS[prompt.task.kind].prompt(prompt.task)
    if "Human: " in text:
        text = text.split("Human: ")[-1].removesuffix("\nAI:")
    return " ".join(text.removesuffix(" What can I do?").split()).lower()


SIZES = {
    "documents": (800, 30, 30),
    "demonstrations": (300, 60, 60),
    "prompts": (700, 150, 150),
    "rm_prompts": (700, 60, 0),
}


@pytest.mark.parametrize("seed", range(5))
def test_no_held_out_prompt_or_question_stands_in_training_text(seed):
    world = World(seed)
    training = [
        " ".join(record.get(field, "").split()).lower()
        for splits in world.sets(SIZES).values()
        for record in splits["train"]()
        for field in ("text", "prompt", "response")
    ]
    text = "\n".join(training)
    asked = [
        *world.ppo_prompts("valid", 150),
        *world.ppo_prompts("test", 150),
        *world.rm_prompts("valid", 60),
        *world.prompts("test", 60, source="labeler", stream="sft-labeler"),
    ]
    assert {p.source for p in asked} == {"customer", "labeler"}
    for prompt in asked:
        assert " ".join(prompt.text.split()).lower() not in text
        assert core_question(prompt) not in text, prompt
    # What is looked for can be found.
    question = core_question(world.ppo_prompts("train", 1)[0])
    assert sum(question in one for one in training) > 0


def test_a_world_that_gives_questions_away_is_not_built(monkeypatch):
    makers = World(0).sets(SIZES)
    assert all(len(list(makers[k]["train"]())) == n[0] for k, n in SIZES.items())
    monkeypatch.setattr(world_misconceptions, "split_of_question", lambda _: "train")
    with pytest.raises(AssertionError, match=r"held-out question .* stands in"):
        list(makers["documents"]["train"]())
    list(makers["documents"]["test"]())


def test_the_guard_finds_a_question_whatever_its_case_and_spaces():
    guard = LeakGuard(["Where is Kelm?", "Where is the town of Kelm?"])
    assert guard.find("Tell me:\nwhere  is KELM? Now.") == "where is kelm ?"
    assert guard.find("Where is the town of  Kelm?") == "where is the town of kelm ?"
    assert guard.find("Where is Kelm now?") is None
    assert guard.find("Is Kelm?") is None
    with pytest.raises(ValueError, match="too short"):
        LeakGuard(["Kelm?"])


def test_what_asks_the_same_is_in_the_same_split():
    """Whatever stands around a question, and whichever kind asks it."""
    assert split_of_question("Where  is\nKelm?") == split_of_question("Where is Kelm?")
    asked, chat = KINDS["ask_person"], KINDS["chat_ask"]
    rng = random.Random(0)
    world = World(0)
    for split in SPLITS:
        for _ in range(50):
            task = make_task(world.facts, rng, split=split, kind=chat)
            slots = {"subject": task.slots["subject"]}
            if slots["subject"] in TOWNS:
                continue
            number = asked.attributes.index(task.slots["attribute"]) * 2
            number += task.slots["wording"]
            same = Task("ask_person", number, slots["subject"], slots)
            assert asked.question(same) == chat.question(task)
            assert asked.question(same) in chat.prompt(task)


def test_prompts_of_ppo_are_customers_and_a_draw_of_their_own(world):
    ppo, rm = world.ppo_prompts("train", 400), world.rm_prompts("train", 400)
    assert {p.source for p in ppo} == {"customer"}
    labelers = sum(p.source == "labeler" for p in rm) / len(rm)
    assert labelers == pytest.approx(0.2, abs=0.06)
    assert len({p.text for p in ppo} & {p.text for p in rm}) < 80
    records = world.sets({"prompts": (20, 0, 5), "rm_prompts": (20, 5, 0)})
    assert set(records["prompts"]) == {"train", "test"}
    assert [r["prompt"] for r in records["prompts"]["train"]()] == [
        p.text for p in ppo[:20]
    ]
    with pytest.raises(ValueError, match="no recipes"):
        list(world.sets({"recipes": (1, 0, 0)})["recipes"]["train"]())


def test_customers_write_different_numbers_of_prompts(prompts):
    counts = collections.Counter(
        p.customer for p in prompts["train"] if p.source == "customer"
    )
    assert counts.most_common(1)[0][1] > 10 * np.median(list(counts.values()))


@pytest.mark.parametrize("split", SPLITS)
def test_categories_and_styles_have_their_shares(prompts, split):
    drawn = prompts[split]
    counts = collections.Counter(p.category for p in drawn)
    for category, percent in CATEGORIES.items():
        share = counts[category] / len(drawn)
        assert share == pytest.approx(percent / 100, rel=0.25, abs=0.02), category
    styles = collections.Counter(p.style for p in drawn)
    for style, low, high in (
        ("plain", 0.45, 0.62),
        ("few_shot", 0.1, 0.25),
        ("user_based", 0.2, 0.33),
    ):
        assert low < styles[style] / len(drawn) < high, style
    assert {p.task.kind for p in drawn} == set(KINDS)


def test_lengths_keep_to_their_limits(world, prompts):
    rng = random.Random(0)
    lengths = []
    for prompt in itertools.chain(*prompts.values()):
        assert count_tokens(prompt.text) <= MAX_TOKENS
        lengths.append(len(WORDS.findall(world.demonstrate(prompt, rng))))
    assert max(lengths) <= 30 and np.quantile(lengths, 0.99) <= 25
    documents = [len(WORDS.findall(d["text"])) for d in world.documents("train", 500)]
    assert 60 <= np.mean(documents) <= 100 and max(documents) < 250
    assert len(world.few_shot_prefix().split()) <= 120


def test_the_vocabulary_is_small(world, prompts):
    texts = [d["text"] for d in world.documents("train", 2000)]
    texts += [p.text for drawn in prompts.values() for p in drawn]
    texts += [r["response"] for r in world.demonstrations("train", 800)]
    assert len({w for text in texts for w in WORDS.findall(text)}) < 500


def test_every_fact_is_told_often(world):
    text = " ".join(d["text"] for d in world.documents("train", 3000))
    for subject in (RESIDENTS[0], RESIDENTS[-1], TOWNS[0]):
        for value in world.facts.table[subject].values():
            told = re.findall(rf"{subject} [^.]*\b{value}\b", text)
            assert len(told) > 10, (subject, value)


def test_prompts_survive_json(prompts):
    for prompt in prompts["test"]:
        record = json.loads(json.dumps(prompt.record()))
        assert all(isinstance(v, str) for v in record.values())
        assert Prompt.from_record(record) == prompt


def test_demonstrations_follow_the_contract(world):
    records = world.demonstrations("train", 400)
    fields = "id prompt response customer source category style"
    assert all(set(r) == set(fields.split()) for r in records)
    share = sum(r["source"] == "labeler" for r in records) / len(records)
    assert share == pytest.approx(0.89, abs=0.01)
    assert len({r["id"] for r in records}) == len(records)


def answers(world: World, prompt: Prompt, rng: random.Random, off: list[Prompt]):
    """Answers like those of a supervised model: good, flawed, cut and off the task."""
    for _ in range(rng.randint(4, 9)):
        text = world.demonstrate(prompt, rng)
        draw = rng.random()
        if draw < 0.15:
            text = swap_value(text, rng)
        elif draw < 0.22:
            text = text[: max(5, len(text) - rng.randint(3, 15))]
        elif draw < 0.3:
            text = world.demonstrate(rng.choice(off), rng)
        yield text


@pytest.mark.parametrize("rule", ["training", "final"])
def test_labelers_agree_as_often_as_in_the_paper(world, prompts, rule):
    labelers = world.labelers()
    training = [rater for rater in labelers if not rater.held_out]
    held_out = [rater for rater in labelers if rater.held_out]
    assert (len(training), len(held_out)) == (15, 5)
    rng = random.Random(0)
    sets = [
        (p, list(answers(world, p, rng, prompts["valid"])))
        for p in prompts["train"][:160]
    ]
    for pool in (training, held_out):
        ranked = [
            [r.rank(p, a, rng, rule=rule) for r in rng.sample(pool, 3)] for p, a in sets
        ]
        assert 0.70 <= agreement(ranked) <= 0.76
        flat = [rank for item in ranked for ranks in item for rank in ranks]
        assert set(flat) == {1, 2, 3, 4, 5}
    assert all(1 in ranks for item in ranked for ranks in item)


def test_labelers_put_helpfulness_first_in_training_and_truth_in_evaluations(world):
    """Of a fuller answer with an untruth and a shorter true one (§3.4, Fig. 10)."""
    facts = world.facts.table["Mara"]
    town, job, food = (facts[a] for a in ("town", "job", "food"))
    pet = "dog" if facts["pet"] != "dog" else "cat"
    task = Task("describe_person", 0, "Mara", {"subject": "Mara"})
    full = f"Mara is a {job} and lives in {town}. She has a {pet} and likes {food}."
    true = f"Mara is a {job} and lives in {town}."
    rude = f"{true} Go away."
    assert judge(world, task, rude).flags["inappropriate_for_customer_assistant"]
    wins = {}
    for rule in ("training", "final"):
        rng, drawn = random.Random(0), []
        for rater in world.labelers() * 40:
            first, second, third = rater.rank(task, [full, true, rude], rng, rule=rule)
            drawn.append((first < second, second < third))
        wins[rule] = np.mean(drawn, axis=0)
    assert wins["training"][0] > wins["final"][0] + 0.1
    assert 0.5 < wins["training"][1] < wins["final"][1]


def test_equal_answers_tie_and_ranks_follow_quality(world, prompts):
    prompt = next(p for p in prompts["train"] if p.task.kind == "ask_person")
    good = world.ideal(prompt, 0)
    responses = [good, "Go away.", f"{good}\n", ""]
    rater = world.labelers()[0]
    first = []
    for seed in range(200):
        ranks = rater.rank(prompt, responses, np.random.default_rng(seed))
        assert ranks[0] == ranks[2] and all(1 <= r <= 5 for r in ranks)
        first.append(ranks[0] < ranks[1])
    assert np.mean(first) > 0.95
    again = [rater.rank(prompt, responses, random.Random(5)) for _ in range(2)]
    assert again[0] == again[1]
