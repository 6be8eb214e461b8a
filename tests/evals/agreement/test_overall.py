"""Rows, and agreement by group, category and labeler, counted by hand."""

import itertools
import json

import krippendorff
import numpy as np
import pytest
from scipy.stats import kendalltau

from instructgpt.errors import UserError
from instructgpt.evals.agreement.overall import (
    by_category,
    by_group,
    comparisons,
)
from instructgpt.evals.agreement.pairs import agreement_interval
from instructgpt.evals.agreement.quality import by_labeler
from instructgpt.evals.agreement.rows import Ranked, check_rows
from tests.evals.agreement.simulated import people, work

# Two prompts. Prompt p is ranked by a and b of the training labelers and by c, who is
# held out; prompt q by a and b.
ROWS = [
    Ranked("p", "a", (1, 2, 3), group="training", category="chat", likert=(6, 4, 2)),
    Ranked("p", "b", (1, 3, 2), group="training", category="chat", likert=(7, 2, 2)),
    Ranked("p", "c", (1, 1, 2), group="heldout", category="chat", likert=(5, 5, None)),
    Ranked("q", "a", (2, 1, 2), group="training", category="qa", likert=(3, 5, 3)),
    Ranked("q", "b", (1, 1, 2), group="training", category="qa", likert=(4, 4, 1)),
]
# None of these count: a repeat, a gold item, a skipped task.
OTHERS = [
    Ranked("p", "a", (3, 2, 1), group="training", category="chat", repeat=True),
    Ranked("g", "a", (1, 2), group="training", category="chat", gold=(1, 2)),
    Ranked("g", "b", (1, 2), group="training", category="chat", gold=(1, 2)),
    Ranked("q", "c", group="heldout", category="qa"),
]


def test_a_constructed_set_by_hand():
    rows = check_rows(ROWS + OTHERS)
    found = comparisons(rows)
    assert [(x.first.id, x.first.labeler, x.second.labeler) for x in found] == [
        ("p", "a", "b"),
        ("p", "a", "c"),
        ("p", "b", "c"),
        ("q", "a", "b"),
    ]
    # The signs of the pairs 01, 02, 12:
    # p: a + + +, b + + -, c 0 + +; q: a - 0 +, b 0 + +.
    # p, a and b: without ties 2 of 3, with ties 2 of 3, tau (1 + 1 - 1) / 3.
    # q, a and b: without ties 1 of 1, with ties 1 of 3, tau 1 / sqrt(2 * 2).
    groups = by_group(rows, found)
    training = groups["training"]
    assert training["without_ties"][0] == pytest.approx(3 / 4)
    assert training["with_ties"][0] == pytest.approx(3 / 6)
    assert training["tau"][0] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert training["bootstrap"]["without_ties"][0] == pytest.approx(3 / 4)
    assert training["paper"] == [0.726, 0.015]
    assert (training["labelers"], training["prompts"], training["comparisons"]) == (
        2,
        2,
        2,
    )
    # c agrees with a on 2 of 2 and 2 of 3, with b on 1 of 2 and 1 of 3.
    assert groups["everyone"]["without_ties"][0] == pytest.approx((3 + 2 + 1) / 8)
    assert groups["everyone"]["with_ties"][0] == pytest.approx((3 + 2 + 1) / 12)
    assert groups["heldout"] == {
        "bootstrap": {},
        "labelers": 1,
        "prompts": 0,
        "comparisons": 0,
        "paper": [0.773, 0.013],
    }
    assert list(groups) == ["training", "heldout", "everyone"]
    # Places and Likert scores of the six answers by a, b and c.
    nan = np.nan
    ranks = [
        [0, 0.5, 1, 0.75, 0, 0.75],
        [0, 1, 0.5, 0.25, 0.25, 1],
        [0.25, 0.25, 1, nan, nan, nan],
    ]
    likert = [[6, 4, 2, 3, 5, 3], [7, 2, 2, 4, 4, 1], [5, 5, nan, nan, nan, nan]]
    for name, data in (("alpha_ranks", ranks), ("alpha_likert", likert)):
        for group, labelers in (("training", 2), ("everyone", 3)):
            expected = krippendorff.alpha(
                data[:labelers], level_of_measurement="ordinal"
            )
            assert groups[group][name][0] == pytest.approx(expected)
    categories = by_category(rows, found)
    assert categories["chat"]["without_ties"][0] == pytest.approx((2 + 2 + 1) / 7)
    assert categories["qa"]["with_ties"][0] == pytest.approx(1 / 3)
    assert (categories["chat"]["prompts"], categories["qa"]["prompts"]) == (1, 1)
    labelers = by_labeler(rows, found)
    assert labelers["a"]["others"]["without_ties"][0] == pytest.approx((2 + 1 + 2) / 6)
    assert labelers["c"]["others"]["with_ties"][0] == pytest.approx((2 + 1) / 6)
    assert labelers["c"]["others"]["tau"][0] == pytest.approx(
        np.mean([kendalltau((1, 1, 2), x).statistic for x in ((1, 2, 3), (1, 3, 2))])
    )


def test_figures_equal_those_of_the_label_stage(rng):
    """Its `agreement_interval` is over the same rankings, in any order of the rows."""
    rows = check_rows(work(rng, people(6, rng), prompts=40, each=3))
    by_id = {}
    for row in rows:
        if row.compared:
            by_id.setdefault(row.id, []).append(row.ranks)
    expected = agreement_interval(list(by_id.values()))
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    found = by_group(shuffled, comparisons(shuffled))["training"]["without_ties"]
    assert found == pytest.approx(list(expected))


def test_names_without_a_group_are_labelers():
    rows = check_rows([row._replace(group="") for row in ROWS])
    groups = by_group(rows, comparisons(rows))
    assert list(groups) == ["labelers"] and "paper" not in groups["labelers"]
    json.dumps(groups, allow_nan=False)


def test_every_two_labelers_of_a_prompt_are_compared_once(rng):
    rows = check_rows(work(rng, people(5, rng), prompts=10, each=4))
    found = comparisons(rows)
    names = [
        (x.first.id, frozenset((x.first.labeler, x.second.labeler))) for x in found
    ]
    by_id = {}
    for row in rows:
        if row.compared:
            by_id.setdefault(row.id, []).append(row.labeler)
    assert (
        len(set(names))
        == len(names)
        == sum(len(list(itertools.combinations(x, 2))) for x in by_id.values())
    )
    assert found[0].of(found[0].second.labeler) is found[0].second
    assert found[0].of("nobody") is None


GOOD = Ranked("p", "a", (1, 2, 3), group="training")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no rankings; give"),
        ([GOOD._replace(id="")], r"ranking 1 \('a' on ''\): has no id or no labeler"),
        (
            [GOOD, GOOD],
            r"ranking 2 \('a' on 'p'\): ranked before by this labeler; mark",
        ),
        ([GOOD._replace(ranks=(1, 3, 3))], r"ranks \[1, 3, 3\] are no ranking; number"),
        ([GOOD._replace(ranks=(1, 2, 2.0))], "are no ranking"),
        ([GOOD._replace(ranks=(1,))], "1 answer; a ranking needs two or more"),
        ([GOOD._replace(gold=(0, 1, 2))], r"gold \[0, 1, 2\] are no ranking"),
        ([GOOD._replace(gold=(1, 2))], "gold has 2 values for 3 answers"),
        ([GOOD._replace(likert=(1, 2))], "likert has 2 values for 3 answers"),
        ([GOOD._replace(likert=(1, 2, 8))], "a Likert score is 8; give 1 to 7"),
        (
            [GOOD._replace(shown=(0, 1, 1))],
            r"\[0, 1, 1\], no order of the answers 0 to 2",
        ),
        ([GOOD._replace(when="Monday")], "when is 'Monday'; give a time as"),
        ([GOOD._replace(seconds=-1)], "-1 seconds for 0 words; give 0"),
        ([GOOD._replace(seconds=float("inf"))], "inf seconds"),
        (
            [GOOD, GOOD._replace(labeler="b", ranks=(1, 2))],
            r"'b' on 'p'\): 2 answers, and 3 in an earlier row",
        ),
        (
            [GOOD, GOOD._replace(id="q", group="heldout")],
            "in the group 'heldout', and in 'training' before; give each labeler one",
        ),
    ],
)
def test_rows_that_cannot_be_are_named(rows, says):
    with pytest.raises(UserError, match=says):
        check_rows(rows)


def test_times_with_and_without_zone():
    assert GOOD._replace(when="1970-01-01T00:01:00").time == 60
    assert GOOD._replace(when="1970-01-01T01:01:00+01:00").time == 60
    assert GOOD._replace(when="1970-01-01T00:01:00Z").time == 60
    assert np.isnan(GOOD.time)
