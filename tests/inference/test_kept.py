"""Rows that a killed computation goes on from."""

import json

import pytest

from instructgpt.inference.kept import KeptRows


@pytest.fixture
def folder(tmp_path):
    kept = KeptRows(tmp_path / "rows", {"key": 1})
    kept.add([["a"], ["b"]])
    kept.add([["c"]])
    return tmp_path / "rows"


def test_rows_are_found_again_in_order_and_go_on(folder):
    kept = KeptRows(folder, {"key": 1})
    assert kept.rows == [["a"], ["b"], ["c"]]
    kept.add([["d"]])
    assert KeptRows(folder, {"key": 1}).rows == [["a"], ["b"], ["c"], ["d"]]
    assert KeptRows(folder / "none", {"key": 1}).rows == []


def test_what_was_made_from_something_else_is_made_again(folder):
    other = KeptRows(folder, {"key": 2})
    assert other.rows == []
    other.add([["x"]])
    assert KeptRows(folder, {"key": 2}).rows == [["x"]]
    assert KeptRows(folder, {"key": 1}).rows == []


@pytest.mark.parametrize("damage", ["cut", "digit", "list", "gone"])
def test_rows_from_a_damaged_file_on_are_made_again(folder, damage):
    path = folder / "00000002.json"
    text = path.read_text()
    if damage == "cut":
        path.write_text(text[:-9])
    elif damage == "digit":
        path.write_text(text.replace('"c"', '"e"'))
    elif damage == "list":
        path.write_text(json.dumps([1]))
    else:
        path.unlink()
    assert KeptRows(folder, {"key": 1}).rows == [["a"], ["b"]]
