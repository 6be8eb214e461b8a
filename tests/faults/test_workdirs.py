"""A sample of damages to a finished workdir; `workdirs.py` makes as many as wanted."""

import random

import pytest

from tests.faults import workdirs
from tests.faults.workdirs import Command, Damage, Harness
from tests.stages.recipe_run import Finished, finished, get_config

COMMANDS = (
    *(Command("again"), Command("anew", "select")),
    *(Command("on", "label"), Command("on", "sft")),
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(scope="module")
def harness(run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    root = tmp_path_factory.mktemp("damages")
    harness = Harness(root, get_config(), finished=run.workdir)
    harness.watch(COMMANDS)
    return harness


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_no_damage_is_taken_for_whole(harness):
    found = [harness.damage(number, seed=0) for number in range(40)]
    assert [d for d in found if d.outcome == "fault"] == []
    assert sum(d.outcome == "refused" for d in found) > 25


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_what_is_not_noticed_is_a_fault(harness, monkeypatch):
    """Were checksums not compared."""
    monkeypatch.setattr("instructgpt.identity.check_left", lambda *_, **__: None)
    where = "instructgpt.stages.label_answers.check_left"
    monkeypatch.setattr(where, lambda *_, **__: None)
    monkeypatch.setattr(workdirs, "WAYS", (workdirs.digit,))
    monkeypatch.setattr(
        harness, "readers", {"label/answers.valid.jsonl": [Command("on", "label")]}
    )
    monkeypatch.setattr(harness, "files", ["label/answers.valid.jsonl"])
    found = [harness.damage(number, seed=0).outcome for number in range(4)]
    assert "fault" in found


def test_the_words_of_a_refusal_are_looked_at(tmp_path):
    def wrong(said, file="sft/checkpoints/8/params/d/x"):
        return workdirs._wrong_message(said, tmp_path, file)

    assert wrong(f"{tmp_path}/sft/checkpoints/8 is damaged") == ""
    assert wrong(f"{tmp_path}/sft/checkpoints/80 is damaged") != ""
    assert wrong(f"{tmp_path} is damaged") != ""
    assert wrong("sft is damaged") != ""
    assert wrong(f"{tmp_path}/sft/checkpoints/8 is\ndamaged") == "several lines"
    assert wrong(f"{tmp_path}/minutes.json is damaged", "minutes.json") == ""


@pytest.mark.parametrize("way", workdirs.WAYS)
def test_every_way_changes_a_file(way, tmp_path):
    path, other = tmp_path / "file.json", tmp_path / "other.json"
    content = b'{"a": 1,\n"b": 25}\n' * 40
    other.write_bytes(b"[3]\n")
    changed = 0
    for seed in range(20):
        path.write_bytes(content)
        way(path, [other], random.Random(seed))
        changed += not path.is_file() or path.read_bytes() != content
        if path.is_dir():
            path.rmdir()
    assert changed >= 19


def test_the_table_counts_by_group():
    again = Command("again")
    found = [
        Damage(0, "cut", "sft/checkpoints/8/_METADATA", again, "refused", ""),
        Damage(1, "cut", "world-0/prompts/1/files.json", again, "fault", ""),
        Damage(2, "cut", "minutes.json", again, "harmless", ""),
    ]
    rows = [row.split() for row in workdirs.table(found).splitlines()]
    assert ["checkpoints", "1", "1", "0", "0", "0"] in rows
    assert rows[-1] == ["all", "3", "1", "0", "1", "1"]
