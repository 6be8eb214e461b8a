"""Annotations become work or are refused by name; work becomes an annotation."""

import itertools

import pytest

from instructgpt.labelling.interface import FLAGS, Rating, Refused, Task, Work
from instructgpt.labelling.pages import to_result, to_work

WHEN = "2026-12-01T10:00:00+00:00"
DEMONSTRATION = Task("k", "demonstration", (), "p")
RATING = Task("k", "rating", (), "p", ("x",))
RANKING = Task("k", "ranking", (), "p", ("x", "y", "z"))
FINAL = Task("k", "final", (), "p", ("x", "y"))


def annotated(result, **fields):
    when = "2026-12-01T11:00:00.123+01:00"
    return {"result": result, "lead_time": 2.5, "created_at": when, **fields}


def part(name, kind, value):
    return {"from_name": name, "to_name": "x", "type": kind, "value": {kind: value}}


def read(task, result, **fields):
    return to_work(task, annotated(result, **fields), where="here")


def ranked(columns):
    return [part("ranks", "ranker", columns)]


def test_all_that_a_page_can_say_comes_back():
    flags = {name: i % 2 == 0 for i, name in enumerate(FLAGS)}
    done = {"seconds": 2.5, "when": WHEN}
    for task, work in (
        (DEMONSTRATION, Work("k", response=" A line\nand one. ", **done)),
        (RATING, Work("k", ratings=(Rating(7, flags),), note="n", **done)),
        (RANKING, Work("k", ranks=(2, 1, 2), note="n", **done)),
        (FINAL, Work("k", ratings=(Rating(1), Rating(2)), ranks=(1, 1), **done)),
    ):
        assert read(task, to_result(work)) == work


def test_every_ranking_of_three_comes_back():
    for ranks in itertools.product((1, 2, 3), repeat=3):
        dense = tuple(sorted(set(ranks)).index(rank) + 1 for rank in ranks)
        assert read(RANKING, to_result(Work("k", ranks=ranks))).ranks == dense


def test_an_empty_rank_takes_no_number():
    columns = {
        "_": [],
        "rank_1": [],
        "rank_2": ["c"],
        "rank_3": [],
        "rank_9": ["a", "b"],
    }
    assert read(RANKING, ranked(columns)).ranks == (2, 2, 1)


def test_a_skip_holds_nothing_else_and_keeps_the_time():
    work = read(RANKING, [{"nonsense": 1}], was_cancelled=True)
    assert work == Work("k", skipped=True, seconds=2.5, when=WHEN)


def test_a_time_that_was_not_measured_is_zero():
    assert (
        read(DEMONSTRATION, to_result(Work("k", response="r")), lead_time=None).seconds
        == 0
    )


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"_": ["b"], "rank_1": ["a", "c"]}, "not ranked are the answers b"),
        ({"_": ["a", "b", "c"]}, "not ranked are the answers a, b, c"),
        ({}, "not ranked are the answers a, b, c"),
        ({"rank_1": ["a", "b", "c", "d"]}, "no card is 'd'"),
        ({"rank_1": ["a", "b", "c", 1]}, "no card is 1"),
        ({"rank_1": ["a", "b", "c"], "rank_2": ["a"]}, "card 'a' lies twice"),
        ({"rank_10": ["a", "b", "c"]}, "no column is 'rank_10'"),
        ({"rank_1": "abc"}, "rank_1 holds 'abc'"),
        (["a", "b", "c"], "['a', 'b', 'c']"),
    ],
)
def test_ranks_that_are_no_ranking(columns, reason):
    found = read(RANKING, ranked(columns))
    assert isinstance(found, Refused)
    assert found == ("here", f"ranks are no ranking: {reason}")


@pytest.mark.parametrize(
    ("task", "result", "reason"),
    [
        (DEMONSTRATION, [], "there is no answer"),
        (DEMONSTRATION, [part("response", "text", [" \n"])], "there is no answer"),
        (DEMONSTRATION, [part("response", "text", ["a", "b"])], "not one text"),
        (DEMONSTRATION, [part("response", "text", 3)], "'response' is 3, not one text"),
        (DEMONSTRATION, "text", "its result is 'text', not a list"),
        (DEMONSTRATION, None, "its result is None, not a list"),
        (DEMONSTRATION, [1], "field None is none of the page's"),
        (DEMONSTRATION, [part("note", "text", ["n"])], "'note' is none of the page's"),
        (DEMONSTRATION, [part("response", "choices", ["a"])], "no text"),
        (DEMONSTRATION, [{"from_name": "response"}], "'response' is None: no text"),
        (RATING, [], "there is no rating"),
        (
            RATING,
            [part("likert_0", "choices", ["8"])],
            "not one of 1, 2, 3, 4, 5, 6, 7",
        ),
        (RATING, [part("likert_0", "choices", ["1", "2"])], "not one of 1"),
        (RATING, [part("likert_0", "choices", [5])], "is [5], not one of"),
        (RATING, [part("likert_0", "choices", "5")], "is '5', not one of"),
        (RATING, [part("likert_1", "choices", ["5"])], "'likert_1' is none of the"),
        (RATING, [part("hallucination_0", "choices", ["?"])], "not one of Yes, No"),
        (RATING, [part("likert_0", "choices", ["5"])] * 2, "'likert_0' is given twice"),
        (FINAL, ranked({"rank_1": ["a", "b"]}), "there is no rating"),
        (FINAL, [part("likert_0", "choices", ["5"])], "ranks are no ranking"),
    ],
)
def test_an_edited_result_is_refused(task, result, reason):
    refused = read(task, result)
    assert isinstance(refused, Refused)
    assert refused.where == "here"
    assert reason in refused.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lead_time": "long"}, "the time spent is 'long'"),
        ({"lead_time": -1.0}, "the time spent is -1.0"),
        ({"lead_time": True}, "the time spent is True"),
        ({"lead_time": float("nan")}, "the time spent is nan"),
        ({"created_at": None}, "handed in at None, no time"),
        ({"created_at": "now"}, "handed in at 'now', no time"),
    ],
)
def test_times_that_cannot_be(fields, reason):
    refused = read(DEMONSTRATION, to_result(Work("k", response="r")), **fields)
    assert isinstance(refused, Refused)
    assert reason in refused.reason
