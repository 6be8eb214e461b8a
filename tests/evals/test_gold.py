"""Summaries of gold judgements: win rate, Likert and flags with their intervals."""

import pytest

from instructgpt.evals.gold import FLAGS, summarise
from instructgpt.evals.intervals import ratio_interval
from instructgpt.world import Judgement, Task

GOOD = Judgement(4.0, 7, {flag: not negated for flag, negated in FLAGS.values()})
# A flag that is negated holds where the share does not.
BAD = Judgement(-2.0, 1, dict(FLAGS.values()))
RECORDS = [
    {
        "category": category,
        "task": Task("ask_person", 0, f"person {i}", {}).to_json(),
    }
    for i, category in enumerate(["open_qa", "open_qa", "open_qa", "chat"])
]


def test_only_the_baseline_itself_has_a_win_rate_without_a_doubt():
    marks = [GOOD, BAD, GOOD, BAD]
    assert summarise(RECORDS, marks, None)["win_rate"] == [0.5, 0.5, 0.5]
    # Another model whose answers are as good on every prompt may still differ.
    rate, low, high = summarise(RECORDS, marks, list(marks))["win_rate"]
    assert low < rate == 0.5 < high


def test_answers_that_are_all_alike_have_intervals_within_the_scale():
    found = summarise(RECORDS, [GOOD] * 4, [BAD] * 4)
    for value, low, high in (found["win_rate"], *found["flags"].values()):
        assert value in (0.0, 1.0)
        assert 0 <= low <= value <= high <= 1 and high - low > 0.5
    shares = ratio_interval([4], [4]), ratio_interval([1] * 4, [1] * 4)
    # The chat prompt is alone in its category.
    for values, (value, low, high) in zip(
        (found["categories"]["chat"], found["likert"]), shares, strict=True
    ):
        assert values == pytest.approx([1 + 6 * value, 1 + 6 * low, 1 + 6 * high])
