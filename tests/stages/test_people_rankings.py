"""People's rankings of a label stage's answers, as they come back."""

import json
from pathlib import Path

import pytest

from instructgpt.errors import UserError
from instructgpt.stages.people_rankings import rankings_by_prompt, read_rankings

ANSWERS = {
    "train": [
        {"id": "t", "prompt": "Why?", "history": [], "responses": ["a", "b", "a"]}
    ],
    "valid": [{"id": "v", "prompt": "Who?", "history": [], "responses": ["c", "d"]}],
}


def write(folder: Path, split: str, *rows: dict) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"comparisons.{split}.jsonl").write_text(text)


def ranked(split: str = "train", **changes) -> dict:
    (row,) = ANSWERS[split]
    ranks = list(range(1, len(row["responses"]) + 1))
    return {**row, "ranks": ranks, "labeler": "ann", **changes}


def test_answers_come_back_in_the_order_of_the_stage(tmp_path):
    write(tmp_path, "train", ranked(responses=["b", "a", "a"], ranks=[1, 2, 3]))
    write(tmp_path, "test", ranked("valid", labeler="ben"))
    write(tmp_path, "valid", ranked("valid"), ranked("valid", ranks=[1, 1]))
    found = read_rankings(tmp_path, ANSWERS)
    assert list(found) == ["train", "valid", "heldout"]
    assert found["train"][0]["responses"] == ["a", "b", "a"]
    assert found["train"][0]["ranks"] == [2, 1, 3]
    assert rankings_by_prompt(found["valid"]) == [[[1, 2], [1, 1]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "x"}, r"train\.jsonl:1: no prompt of this split .* has the id 'x'"),
        ({"prompt": "What?"}, r"train\.jsonl:1: another prompt than 't' has"),
        ({"responses": ["a", "b", "e"]}, r"train\.jsonl:1: other answers than the 3"),
        ({"ranks": [1, 3, 4]}, r"train\.jsonl:1: ranks \[1, 3, 4\] are no ranking"),
    ],
)
def test_other_rankings_are_refused(tmp_path, change, message):
    write(tmp_path, "train", ranked(**change))
    with pytest.raises(UserError, match=message):
        read_rankings(tmp_path, ANSWERS)


def test_a_held_out_labeler_has_ranked_nothing_for_training(tmp_path):
    write(tmp_path, "train", ranked())
    write(tmp_path, "test", ranked("valid"))
    with pytest.raises(UserError, match=r"test\.jsonl:1: labeler 'ann' has ranked tr"):
        read_rankings(tmp_path, ANSWERS)
