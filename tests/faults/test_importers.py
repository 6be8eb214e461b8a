"""A sample of damaged public models; `python tests/faults/importers.py` runs more."""

import collections

import pytest

from tests.faults import importers
from tests.faults.damages import DAMAGES

NUMBER = 5 * len(DAMAGES)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """The command holds five seconds; here other tests have the cores as well."""
    monkeypatch.setattr(importers, "LONGEST", 60.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return importers.write_models(tmp_path_factory.mktemp("models"))


def test_valid_models_are_imported(models, tmp_path):
    for name, folder in models.items():
        files = sorted(folder.glob("*.gguf"))
        tokenizer = tmp_path / folder.name
        source = files[0] if files else folder
        assert importers._import(source, tokenizer, folder) == ("imported", ""), name


def test_damaged_models_are_imported_or_refused_in_one_line(models, tmp_path):
    outcomes = [
        importers.run(number, 7, models, tmp_path / str(number))
        for number in range(NUMBER)
    ]
    faults = [outcome for outcome in outcomes if outcome.kind == "fault"]
    assert not faults, faults[0].said
    counts = collections.Counter(outcome.kind for outcome in outcomes)
    assert counts["refused"] > NUMBER / 3 and counts["imported"] > NUMBER / 12


def test_what_is_no_line_that_names_a_file_is_a_fault(models, tmp_path, monkeypatch):
    folder = next(iter(models.values()))

    def outcome(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(importers, "read_public", fail)
        return importers._import(folder, tmp_path, folder)[0]

    assert outcome(importers.UserError(f"{folder}: damaged")) == "refused"
    assert outcome(importers.UserError("damaged")) == "fault"
    assert outcome(KeyError("factor")) == "fault"
    assert outcome(UserWarning("divided by 0")) == "fault"
    rows = importers.table([importers.Outcome(0, "cut", "a", "fault", 0.1, "")])
    assert rows.splitlines()[-1].split() == ["all", "1", "0", "0", "1", "0.10"]
