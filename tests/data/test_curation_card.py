"""The data card against NumPy, and its tables by hand; languages in a sample."""

import random
from collections import Counter

import numpy as np
import pytest

from instructgpt.data.curation import Tally, card_to_json, render_card
from instructgpt.data.curation.card import MAX_NAMES, OTHER, spread
from instructgpt.data.curation.language import Sample, language_shares, make_identifier
from instructgpt.data.curation.ledger import CustomerCounts


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 101, 1000])
def test_a_spread_is_that_of_the_lengths_one_by_one(number, rng):
    lengths = rng.integers(1, 60, number)
    found = spread(Counter(lengths.tolist()))
    quartiles = np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf")
    assert found.number == number
    assert found.mean == pytest.approx(lengths.mean())
    assert found.std == pytest.approx(lengths.std())
    assert [found.q25, found.median, found.q75] == quartiles.tolist()
    assert found.max == lengths.max()


def record(customer="", category="", **more):
    return {"customer": customer, "category": category, **more}


@pytest.fixture
def card():
    tally = Tally()
    tally.add(record("x", "chat"), "train", prompt=10, responses=[1])
    tally.add(record("x", "chat"), "train", prompt=20, responses=[2])
    tally.add(record("", "a|b"), "train", prompt=30, responses=[9])
    tally.add(record("y"), "test", prompt=40, responses=[3])
    tally.add(record("y", source="labeler"), "test", prompt=60, responses=[4])
    return tally.card(
        measure="tokens",
        customers={"test": CustomerCounts(1, 2.0, 2), "train": CustomerCounts(1, 2, 2)},
        languages={"en": 0.75, "de": 0.25},
        language_sample=4,
    )


def test_each_table_adds_up_the_same_records(card):
    assert card.sizes == {
        "labeler": {"train": 1, "test": 1},
        "customer": {"train": 2, "test": 1},
    }
    assert list(card.customers) == ["train", "test"]
    assert {s: (p.number, p.mean) for s, p in card.prompts.items()} == {
        "train": (3, 20.0),
        "test": (2, 50.0),
    }
    assert {s: r.mean for s, r in card.responses.items()} == {"train": 4, "test": 3.5}
    assert {c: p.number for c, p in card.categories.items()} == {
        "(none)": 2,
        "chat": 2,
        "a|b": 1,
    }
    assert card.source_prompts["labeler"].mean == 45
    assert card.source_responses["customer"].mean == 2


def test_the_card_as_markdown_and_json(card):
    text = render_card(card, title="mine")
    lines = text.splitlines()
    assert lines[0] == "# mine"
    assert "Lengths in tokens" in text
    assert "| total | 3 | 2 |" in lines
    assert "| train | 1 | 2.00 | 2 |" in lines
    assert "| train | 3 | 20.0 | 8.2 | 10 | 20 | 30 | 30 |" in lines
    assert r"| a\|b | 20.0% | 1 | 30.0 | 0.0 | 30 | 30 | 30 | 30 |" in lines
    assert "## Languages, in a sample of 4" in lines
    assert "| en | 75.0% |" in lines
    values = card_to_json(card)
    assert values["prompts"]["test"]["max"] == 60
    assert values["customers"]["train"] == {"customers": 1, "mean": 2, "max": 2}


def test_prompts_alone_have_no_table_of_responses():
    tally = Tally()
    tally.add(record(), "train", prompt=1, responses=[])
    empty = {"customers": {}, "languages": {}, "language_sample": 0}
    text = render_card(tally.card(measure="characters", **empty), title="mine")
    assert "Response" not in text
    assert "Languages" not in text
    assert "customer" not in text


def test_so_many_categories_that_some_are_counted_together():
    tally = Tally()
    for i in range(3 * MAX_NAMES):
        tally.add(record(category=f"c{i}"), "train", prompt=1, responses=[])
    empty = {"customers": {}, "languages": {}, "language_sample": 0}
    categories = tally.card(measure="characters", **empty).categories
    assert len(categories) == MAX_NAMES + 1
    assert categories[OTHER].number == 2 * MAX_NAMES


def test_a_sample_is_of_the_smallest_keys_in_any_order():
    keys = list(range(-50, 50))
    random.Random(0).shuffle(keys)
    sample = Sample(3)
    for key in keys:
        sample.add(key, f"text {key}" + "x" * 5000)
    assert [text[:9].rstrip("x") for text in sample.texts()] == [
        "text -50",
        "text -49",
        "text -48",
    ]
    assert len(sample.texts()[0]) == 1000
    nothing = Sample(0)
    nothing.add(1, "text")
    assert nothing.texts() == []


def test_shares_of_languages_by_py3langid():
    pytest.importorskip("py3langid")
    texts = ["Write a short story about a shepherd who finds an old lamp."] * 3
    texts.append("Schreibe eine kurze Geschichte über einen Hirten.")
    assert language_shares(texts, make_identifier()) == {"en": 0.75, "de": 0.25}
