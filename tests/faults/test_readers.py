"""A sample of damaged files for every reader; `readers.py` makes as many as wanted."""

import random

import pytest

from instructgpt.errors import UserError
from tests.faults import readers
from tests.faults.file_mutations import mutate

ALL = readers.all_readers()


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """The command holds five seconds; here other tests have the cores as well."""
    monkeypatch.setattr(readers, "LONGEST", 60.0)


@pytest.mark.parametrize("name", ALL)
def test_damaged_files_are_read_or_refused_in_one_line(name):
    found = readers.run(name, ALL[name], numbers=range(100), seed=0)
    assert not found.faults
    assert found.counts["read"] > 5
    assert found.counts["refused"] > 25
    assert found.slowest < readers.LONGEST


@pytest.mark.parametrize("name", ALL)
def test_the_files_are_valid_before_they_are_damaged(name, tmp_path):
    for file, kind in ALL[name].files:
        path = tmp_path / kind / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file.data)
        (path.parent / "out").mkdir(exist_ok=True)
        for old in (path.parent / "out").iterdir():
            old.unlink()
        assert len(ALL[name].read(path, kind)) > 0


def broken(error: Exception):
    def read(path, kind):
        raise error

    return readers.Reader(ALL["dolly"].files, read)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (KeyError("prompt"), "KeyError"),
        (RecursionError("deep"), "RecursionError"),
        (UserError("something is wrong"), "does not name the file"),
        (UserError("a bell \x07"), "several lines"),
        (UserWarning("0/0"), "UserWarning"),
    ],
)
def test_faults_are_seen(error, what):
    found = readers.run("dolly", broken(error), numbers=[3], seed=0)
    (fault,) = found.faults
    assert fault.number == 3
    assert what in fault.what


def test_a_reader_that_hangs_is_seen(monkeypatch):
    monkeypatch.setattr(readers, "LONGEST", 0.05)

    def read(path, kind):
        while True:
            pass

    reader = readers.Reader(ALL["dolly"].files, read)
    found = readers.run("dolly", reader, numbers=[0], seed=0)
    assert "more than 0.05 seconds" in found.faults[0].what


def test_an_input_follows_from_its_number_and_the_seed():
    file, _ = ALL["openassistant"].files[0]
    first, again, other = (
        mutate(file, random.Random(f"{seed} openassistant 1"))[0] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_the_command_prints_a_row_for_each_reader(capsys):
    assert readers.main(["--inputs=5", "--readers=dolly,curate"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["reader", "inputs", "read", "refused"]
    assert [row.split()[:2] for row in rows] == [
        ["dolly", "5"],
        ["curate", "5"],
        ["all", "10"],
    ]
