"""Rows for agreement: answers numbered as in their records, whatever was shown."""

import json

import pytest

from instructgpt import label
from instructgpt.evals.agreement.pairs import agreement_interval
from instructgpt.evals.agreement.report import measure
from instructgpt.evals.agreement.rows import check_rows
from instructgpt.labelling import items as asking
from instructgpt.labelling.fetching import fetch
from instructgpt.labelling.ledger import Ledger
from instructgpt.labelling.measuring import ranked_rows
from tests.labelling import rooms
from tests.labelling.rooms import send


@pytest.fixture
def room(tmp_path):
    rooms.write_answers(tmp_path, train=6, valid=8)
    rooms.write_compared(tmp_path)
    return rooms.make_room(tmp_path)


def test_rows_are_what_labelers_think_of_the_texts(room, tmp_path):
    gold = {"prompt": "Gold?", "responses": ["x", "y", "z"], "ranks": [2, 1, 2]}
    path = rooms.write_lines(tmp_path / "gold.jsonl", [gold])
    items = asking.ranking_items(tmp_path, room, labelers_per_prompt=2)
    items += asking.gold_items(path, room)
    items += asking.final_items(tmp_path, room, labelers_per_prompt=2)
    desks = rooms.memory_desks(room)
    send(room, desks, items, repeats=0.3)
    for desk in desks.values():
        desk.do_all(skip=["Prompt 3 of valid?"])
    fetch(room, Ledger(room.ledger), desks)
    ledger, work = Ledger(room.ledger), fetch(room, Ledger(room.ledger), desks).work
    rows = check_rows(ranked_rows(ledger, work))
    mine = [x for x in ledger.entries.values() if x.page == "ranking"]
    assert len(rows) == len(mine) == 6 + 32 + 5 + sum(bool(x.repeat_of) for x in mine)
    for row, entry in zip(rows, mine, strict=True):
        skipped = entry.item == "valid-3"
        texts = entry.record["responses"]
        assert row.skipped == skipped
        assert skipped or list(row.ranks) == rooms.ranks_of(row.labeler, texts)
        assert row.gold == ((2, 1, 2) if entry.split == "gold" else ())
        assert row.repeat == bool(entry.repeat_of)
        assert row.group == room.groups[row.labeler] and row.shown == entry.order
        assert row.words == len(
            " ".join(
                [*(entry.record["history"]), entry.record["prompt"], *texts]
            ).split()
        )
    numbers = measure(rows)["groups"]
    for group, split in (("training", "valid"), ("heldout", "test")):
        lines = rooms.read_lines(room.records / f"comparisons.{split}.jsonl")
        ranks = {}
        for line in lines:
            ranks.setdefault(line["id"], []).append(line["ranks"])
        wanted = agreement_interval(list(ranks.values()))
        assert list(numbers[group]["without_ties"]) == pytest.approx(list(wanted))
    final = check_rows(ranked_rows(ledger, work, page="final"))
    for row in final:
        assert len(row.likert) == 3 and min(row.likert) >= 2


def test_the_command_writes_the_report(room, tmp_path, capsys):
    desks = rooms.memory_desks(room)
    items = asking.ranking_items(tmp_path, room, labelers_per_prompt=2)
    send(room, desks, items)
    with pytest.raises(SystemExit, match=r"work\.jsonl: no ranking task has come back"):
        label.main(["agreement", str(tmp_path)])
    for desk in desks.values():
        desk.do_all()
    fetch(room, Ledger(room.ledger), desks)
    label.main(["agreement", str(tmp_path)])
    out = capsys.readouterr().out
    page = room.folder / "agreement" / "ranking" / "agreement.html"
    assert f"report: {page}" in out and "Without ties" in out
    assert "ann" in page.read_text()


def test_the_command_screens_a_candidate(tmp_path, capsys):
    truth = {"kind": "ranking", "id": "r", "ranks": [1, 2, 3]}
    reference = rooms.write_lines(tmp_path / "truth.jsonl", [truth])
    given = rooms.write_lines(tmp_path / "zoe.jsonl", [{**truth, "ranks": [1, 3, 2]}])
    flags = [f"--reference={reference}", f"--candidate={given}"]
    label.main(["screen", str(tmp_path), *flags])
    assert "1 of 1" in capsys.readouterr().out
    path = tmp_path / "labelling" / "screening" / "zoe.json"
    found = json.loads(path.read_text())["criteria"]["ranking"]
    assert found["value"][0] == pytest.approx(2 / 3)
    assert not (tmp_path / "labelling" / "work.jsonl").exists()
