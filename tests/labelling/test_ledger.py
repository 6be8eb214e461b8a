"""The ledger: read back as written, resumed after a kill, refused when damaged."""

import json

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling.ledger import Entry, Ledger

ENTRY = Entry(
    key="k1",
    page="ranking",
    labeler="ann",
    group="training",
    split="train",
    round=1,
    item="p1",
    record={"id": "p1", "prompt": "Où?\u2028", "responses": ["a", "b", "c"]},
    order=(2, 0, 1),
    models=("sft", "sft", "ppo"),
)


def test_entries_and_places_are_read_back(tmp_path):
    path = tmp_path / "labelling" / "ledger.jsonl"
    ledger = Ledger(path)
    other = ENTRY._replace(key="k2", gold=(1, 2, 2), repeat_of="k1", models=())
    ledger.add([ENTRY, other])
    ledger.place(["k1"])
    again = Ledger(path)
    assert list(again.entries.values()) == [ENTRY, other]
    assert again.placed == {"k1"}


def test_a_task_shows_answers_in_order_and_nothing_else():
    task = ENTRY.task
    assert task.answers == ("c", "a", "b") and task.prompt == "Où?\u2028"
    assert ENTRY.in_order(task.answers) == ["a", "b", "c"]
    assert "sft" not in str(task) and "p1" not in str(task)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_half_a_line_of_a_killed_program_is_written_again(tmp_path, cut):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.add([ENTRY, ENTRY._replace(key="k2")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = Ledger(path)
    assert list(left.entries) == ["k1"]
    left.add([ENTRY._replace(key="k2")])
    assert path.read_bytes() == whole


def test_a_line_that_was_changed_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.add([ENTRY, ENTRY._replace(key="k2")])
    path.write_text(path.read_text().replace('"ann"', '"ben"', 1))
    with pytest.raises(UserError, match=r"ledger\.jsonl:1: damaged, or changed"):
        Ledger(path)
    lines = path.read_text().splitlines()
    path.write_text(lines[1] + "\n" + json.dumps([1]) + "\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl:2: damaged"):
        Ledger(path)


def test_a_held_out_labeler_gets_no_training_task(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(UserError, match=r"'ann' is a held-out labeler.*'p1'"):
        ledger.add([ENTRY._replace(group="heldout")])
    assert not ledger.entries and not (tmp_path / "ledger.jsonl").exists()
