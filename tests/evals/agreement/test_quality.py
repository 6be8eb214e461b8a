"""The quality of labelers: by hand, and the rules on simulated labelers with faults."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import kendalltau

from instructgpt.evals.agreement.overall import comparisons
from instructgpt.evals.agreement.quality import (
    Rules,
    by_labeler,
    displayed_order,
    drift,
    gold_share,
    self_agreement,
)
from instructgpt.evals.agreement.rows import Ranked, check_rows
from instructgpt.evals.intervals import ratio_interval
from tests.evals.agreement.simulated import Someone, people, work


def test_gold_pairs_by_hand():
    rows = [
        # Gold pairs 01 and 02 are untied, 12 is tied: one right, one that a ties.
        Ranked("g", "a", (1, 2, 1), gold=(1, 2, 2)),
        Ranked("h", "a", (2, 1), gold=(1, 2)),  # wrong
        Ranked("p", "a", (1, 2)),  # no gold
    ]
    assert gold_share(rows) == list(ratio_interval([1.5, 0], [2, 1]))
    assert gold_share(rows[2:]) is None
    assert gold_share([Ranked("g", "a", (1, 2), gold=(1, 1))]) is None


def test_repeats_by_hand():
    rows = [
        Ranked("p", "a", (1, 2, 3)),
        Ranked("q", "a", (1, 2)),
        Ranked("p", "a", (1, 3, 2), repeat=True),
        Ranked("p", "a", (1, 2, 2), repeat=True),
        Ranked("x", "a", (1, 2), repeat=True),  # the first one is not there
    ]
    found = self_agreement(rows)
    # Of p: 2 of 3 and 2 of 2 without ties, 2 of 3 and 2 of 3 with.
    assert found["without_ties"][0] == pytest.approx(4 / 5)
    assert found["with_ties"][0] == pytest.approx(4 / 6)
    assert self_agreement(rows[:2]) is None


def test_drift_by_hand():
    # Six tasks in the order of time, not of the rows; labeler a agrees with b on the
    # pairs of the first tasks and on none of the last ones.
    alike = [(1, 2, 3)] * 3 + [(3, 2, 1)] * 3
    rows = [
        Ranked(f"p{i}", "a", ranks, when=f"2022-01-0{i + 1}")
        for i, ranks in reversed(list(enumerate(alike)))
    ] + [Ranked(f"p{i}", "b", (1, 2, 3), when="2022-01-01") for i in range(6)]
    found = drift("a", comparisons(check_rows(rows)))
    assert [third[0] for third in found["thirds"]] == [1, 0.5, 0]
    assert found["change"] == -1 and found["tasks"] == 6
    # A fall of 1 needs two of the three right tasks first, two of the three wrong ones
    # last: of the 720 orders, (3 * 2) * (3 * 2) * 2 do.
    assert found["p"] == pytest.approx(72 / 720, abs=0.03)
    untimed = [row._replace(when="") for row in rows]
    assert drift("a", comparisons(check_rows(untimed))) is None
    assert drift("a", []) is None


def test_displayed_order_by_hand():
    rows = [
        # Shown are the answers 2, 0, 1, with the ranks 1, 2, 3: as displayed.
        Ranked("p", "a", (2, 3, 1), shown=(2, 0, 1)),
        Ranked("q", "a", (1, 2, 2, 1), shown=(3, 2, 1, 0)),  # ranks 1, 2, 2, 1
        Ranked("r", "a", (1, 1), shown=(0, 1)),  # nothing but ties
        Ranked("s", "a", (1, 2)),  # not known
    ]
    found = displayed_order(rows)
    expected = kendalltau((1, 2, 2, 1), range(4)).statistic
    assert found["tasks"] == 2
    assert found["tau"] == pytest.approx((1 + expected) / 2)
    assert found["low"] < 0 < found["high"]
    assert displayed_order(rows[2:]) is None


def test_p_of_the_displayed_order_by_hand():
    # Of the 6 orders of each task, one has the tau 1 and one -1: with two tasks in
    # displayed order, 2 of 36 random ones are as extreme.
    rows = [Ranked(name, "a", (1, 2, 3), shown=(0, 1, 2)) for name in "pq"]
    assert displayed_order(rows)["p"] == pytest.approx(2 / 36, abs=0.02)
    # Against the displayed order it is the same.
    back = [row._replace(shown=(2, 1, 0)) for row in rows]
    assert displayed_order(back)["tau"] == -1
    assert displayed_order(back)["p"] == displayed_order(rows)["p"]


def test_the_test_of_the_displayed_order_has_its_level():
    """For orders drawn at random its p is uniform."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(300):
        rows = []
        for i in range(12):
            shown = tuple(map(int, rng.permutation(4 + i % 4)))
            rows.append(Ranked(str(i), "a", tuple(range(1, 5 + i % 4)), shown=shown))
        values.append(displayed_order(rows)["p"])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=0.06)


def test_pace_by_hand():
    rows = [
        *[Ranked(f"p{i}", "a", (1, 2), seconds=30, words=100) for i in range(12)],
        *[Ranked(f"p{i}", "b", (1, 2), seconds=60, words=100) for i in range(11)],
        Ranked("p11", "b", (1, 2), seconds=300, words=100),
        *[Ranked(f"p{i}", "c", (1, 2), seconds=9, words=100) for i in range(4)],
        *[Ranked(f"p{i}", "c", (1, 2), seconds=20, words=100) for i in range(4, 12)],
        Ranked("x", "d", (1, 2)),
    ]
    found = by_labeler(rows, comparisons(check_rows(rows)))
    # c takes 0.2 seconds for a word; a and b 0.3 and 0.6, whose median is 0.45. A third
    # of it is 0.15, and 4 of 12 tasks took 0.09.
    assert found["c"]["pace"]["others"] == pytest.approx(0.45)
    assert found["c"]["pace"]["median"] == pytest.approx(0.2)
    assert found["c"]["pace"]["rushed"] == pytest.approx(4 / 12)
    assert found["c"]["pace"]["for_a"] == "word"
    assert found["c"]["flags"] == ["rushes"]
    assert found["a"]["pace"]["others"] == pytest.approx((0.2 + 0.6) / 2)
    assert found["a"]["flags"] == found["b"]["flags"] == []
    assert "pace" not in found["d"]
    # One more task that was not rushed, and too few tasks.
    more = [*rows, Ranked("y", "c", (1, 2), seconds=20, words=100)]
    few = Rules(min_tasks=13)
    assert by_labeler(more, [])["c"]["flags"] == []
    assert by_labeler(rows, [], few)["c"]["flags"] == []
    # Without words the time of a task counts.
    bare = [row._replace(words=0) for row in rows]
    of_tasks = by_labeler(bare, [])["c"]["pace"]
    assert of_tasks["others"] == pytest.approx(45) and of_tasks["for_a"] == "task"


def test_ties_and_skips_by_hand():
    rows = [
        Ranked("p", "a", (1, 1, 2)),
        Ranked("q", "a", (1, 2)),
        Ranked("r", "a"),
        Ranked("r", "b"),
    ]
    found = by_labeler(check_rows(rows), comparisons(rows))
    assert found["a"]["ties"] == pytest.approx(1 / 4)
    assert (found["a"]["tasks"], found["a"]["skipped"]) == (3, 1)
    assert found["b"] == {
        "group": "",
        "tasks": 1,
        "skipped": 1,
        "repeats": 0,
        "others": {},
        "flags": [],
    }


def flagged(rng, labelers, *, seen, **kwargs):
    """How often each flag is given to labelers whose name begins with `seen`."""
    rows = check_rows(work(rng, labelers, **kwargs))
    found = by_labeler(rows, comparisons(rows))
    return Counter(
        flag
        for name, entry in found.items()
        if name.startswith(seen)
        for flag in entry["flags"]
    )


@pytest.mark.slow
def test_honest_labelers_are_flagged_as_rarely_as_the_rules_say():
    """600 honest labelers, whose speeds differ by 35 % and those of tasks by 50 %."""
    rng = np.random.default_rng(0)
    found = Counter()
    for _ in range(30):
        crew = people(20, rng)
        found += flagged(rng, crew, seen="rater", prompts=150, gold=12, repeats=2)
    assert found["follows the displayed order"] / 600 <= 0.02  # by its level 0.01
    assert found["drifts away"] / 600 <= 0.02  # by its level 0.01
    assert found["rushes"] / 600 <= 0.02
    assert found["misses gold"] / 600 <= 0.02  # these order 77 % right
    assert sum(found.values()) > 0


@pytest.mark.slow
def test_who_orders_just_the_gold_share_right_is_rarely_flagged():
    rng = np.random.default_rng(0)
    flags = 0
    for _ in range(1000):
        rows = []
        for i in range(12):
            right = rng.random() < 0.75
            rows.append(Ranked(str(i), "a", (1, 2) if right else (2, 1), gold=(1, 2)))
        flags += gold_share(rows)[2] < Rules().gold
    assert flags / 1000 <= 0.05


@pytest.mark.parametrize(
    ("fault", "flag", "rate"),
    [
        ("rushes", "rushes", 0.95),
        ("order", "follows the displayed order", 1.0),
        ("half order", "follows the displayed order", 0.95),
        ("drifts", "drifts away", 0.85),
        ("careless", "misses gold", 0.85),
    ],
)
@pytest.mark.slow
def test_a_fault_is_caught(fault, flag, rate):
    rng = np.random.default_rng(1)
    found, number = Counter(), 0
    for _ in range(4):
        crew = people(15, rng) + [Someone(f"bad_{i}", fault=fault) for i in range(5)]
        found += flagged(rng, crew, seen="bad", prompts=300, each=4, gold=15)
        number += 5
    assert found[flag] / number >= rate, found
