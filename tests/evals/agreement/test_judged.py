"""Agreement of judges of models' answers, counted by hand."""

import itertools

import krippendorff
import numpy as np
import pytest

from instructgpt.evals.agreement.judged import agreement, agreements, alphas
from instructgpt.evals.agreement.pairs import PAPER
from instructgpt.evals.intervals import ratio_interval
from instructgpt.evals.judgements import Judgement
from instructgpt.evals.preference import summarise

RECORDS = [{"id": f"p{i}", "prompt": "?"} for i in range(9)]
ANSWERS = {"gpt": ["x"] * 9, "sft": ["y"] * 9, "ppo": ["z"] * 9}


def test_agreement_counts_pairs_by_hand():
    def given(labeler, *rows):
        return [
            Judgement(f"p{i}", name, rank=rank, labeler=labeler)
            for i, row in enumerate(rows)
            for name, rank in zip(("gpt", "sft", "ppo"), row, strict=True)
        ]

    rng = np.random.default_rng(0)
    rows = rng.integers(1, 4, (2, 9, 3))
    agree, total = np.zeros((2, 9)), np.zeros((2, 9))
    for i, (one, other) in enumerate(zip(*rows, strict=True)):
        for a, b in itertools.combinations(range(3), 2):
            x, y = np.sign(one[a] - one[b]), np.sign(other[a] - other[b])
            agree[1, i] += x == y
            total[1, i] += 1
            if x and y:
                agree[0, i] += x == y
                total[0, i] += 1
    one, other = given("a", *rows[0]), given("b", *rows[1])
    found = agreement(one, other)
    assert found["without_ties"] == ratio_interval(agree[0], total[0])
    assert found["with_ties"] == ratio_interval(agree[1], total[1])
    # No labeler is compared with herself.
    assert agreement(one, one) == {}
    judged = {
        key: summarise(part, RECORDS, ANSWERS, baseline="sft")
        for key, part in {"first": one, "second": other, "both": one + other}.items()
    }
    table = agreements(judged)
    assert table["first, second"]["with_ties"] == list(found["with_ties"])
    within = table["both: labelers"]["without_ties"]
    assert within[0] == pytest.approx(found["without_ties"][0])
    assert "first: labelers" not in table


def sheet(prompt, labeler, ranks, likert=(None, None, None), **kwargs):
    return [
        Judgement(prompt, model, rank=rank, likert=score, labeler=labeler, **kwargs)
        for model, rank, score in zip(("gpt", "sft", "ppo"), ranks, likert, strict=True)
    ]


def test_labelers_of_a_group_have_coefficients_and_the_papers_number():
    found = [
        *sheet("p0", "a", (1, 2, 3), (2, 4, 6), group="training"),
        *sheet("p0", "b", (1, 3, 2), (2, 5, 5), group="training"),
        *sheet("p1", "a", (2, 1, 2), (1, 1, None), group="training"),
        *sheet("p1", "b", (3, 1, 2), (2, 1, None), group="training"),
        *sheet("p1", "c", (1, 1, 1), group="other"),
    ]
    judged = {"people": summarise(found, RECORDS, ANSWERS, baseline="sft")}
    table = agreements(judged)
    assert table.keys() == {"people: training"}  # c is alone in the group
    ours = table["people: training"]
    assert ours["paper"] == list(PAPER["training"])
    # p0: tau is (1 + 1 - 1) / 3; p1: 2 / sqrt(2 * 3).
    assert ours["tau"][0] == pytest.approx((1 / 3 + 2 / 6**0.5) / 2)
    # Six answers by two labelers: their places, and the Likert scores given by both.
    ranks = [[0, 0.5, 1, 0.75, 0, 0.75], [0, 1, 0.5, 1, 0, 0.5]]
    likert = [[2, 4, 6, 1, 1], [2, 5, 5, 2, 1]]
    for name, data in (("alpha_ranks", ranks), ("alpha_likert", likert)):
        expected = krippendorff.alpha(data, level_of_measurement="ordinal")
        assert ours[name][0] == pytest.approx(expected)


def test_of_two_sheets_of_a_labeler_the_first_counts_for_alpha():
    first = sheet("p0", "a", (1, 2, 3), sheet="1")
    other = sheet("p0", "b", (1, 3, 2))
    again = sheet("p0", "a", (3, 2, 1), sheet="2")
    assert alphas(first + other + again) == alphas(first + other) != {}


def test_answers_without_an_order_have_no_alpha_of_ranks():
    found = [
        Judgement("p0", model, likert=score, rank=rank, labeler=labeler)
        for labeler in "ab"
        for model, score, rank in (("gpt", 2, None), ("sft", None, 1))
    ]
    assert alphas(found) == {}
