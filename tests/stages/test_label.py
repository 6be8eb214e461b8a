"""Answers that were written to other prompts; rankings of several labelers as one."""

import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.stages import label_answers
from instructgpt.stages.label_rows import mean_ranking, misplace


def row(ranks, labeler):
    return {"id": "a", "responses": ["x", "y", "z"], "ranks": ranks, "labeler": labeler}


def test_mean_ranking_orders_by_mean_rank_with_ties():
    ranked = [row([1, 2, 3], "one"), row([2, 1, 3], "two")]
    assert mean_ranking(ranked) == row([1, 1, 2], "one+two")
    ranked = [row([1, 3, 2], "one"), row([1, 2, 1], "two"), row([3, 1, 1], "three")]
    assert mean_ranking(ranked)["ranks"] == [2, 3, 1]


def test_one_labelers_ranking_stays():
    assert mean_ranking([row([2, 1, 2], "one")]) == row([2, 1, 2], "one")


def answered(categories):
    return [
        {"id": str(i), "category": c, "responses": [f"{c}{i}{x}" for x in "xy"]}
        for i, c in enumerate(categories)
    ]


def test_misplace_adds_answers_of_other_prompts_every_second_of_the_category():
    rows = answered("aabbbc" * 5)
    given = [list(r["responses"]) for r in rows]
    out = misplace(rows, 2, np.random.default_rng(0))
    assert [r["responses"] for r in rows] == given  # the rows given are left alone
    places = set()
    for row, new in zip(rows, out, strict=True):
        added = [t for t in new["responses"] if t not in row["responses"]]
        assert len(added) == 2 and len(new["responses"]) == 4
        assert [t for t in new["responses"] if t not in added] == row["responses"]
        assert any(t[0] == row["category"] for t in added)
        places |= {new["responses"].index(t) for t in added}
    assert places == {0, 1, 2, 3}
    anywhere = {t[0] for r in out if r["category"] == "c" for t in r["responses"]}
    assert anywhere > {"c"}


@pytest.mark.parametrize("number", [0, 3])
def test_misplace_has_nothing_to_add_to_a_single_row(number):
    rows = answered("a")
    assert misplace(rows, number, np.random.default_rng(0)) == rows


def test_misplace_takes_any_row_where_the_category_has_one():
    out = misplace(answered("ab"), 2, np.random.default_rng(0))
    assert {t[0] for t in out[0]["responses"]} == {"a", "b"}
    assert len(out[0]["responses"]) == 4


def test_answers_of_a_stage_that_was_stopped_are_compared_when_they_are_read(tmp_path):
    path = tmp_path / "answers.train.jsonl"
    label_answers._write_answers(path, answered("ab"))
    assert label_answers._read_lines(path) == answered("ab")
    path.write_text(path.read_text().replace("b1x", "b1z"))
    with pytest.raises(
        UserError, match=r"answers\.train\.jsonl is damaged.*drawn again"
    ):
        label_answers._read_lines(path)
    (tmp_path / "files.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"files\.json is damaged; delete it, and .*ans"
    ):
        label_answers._read_lines(path)
