"""Who works in a room; groups that never change."""

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling.room import Room, read_labelers


def test_labelers_are_added_and_read_back(tmp_path):
    Room(tmp_path).add({"ann": "training", "dan": "heldout"})
    Room(tmp_path).add({"ben": "training", "ann": "training"})
    room = Room(tmp_path)
    assert room.groups == {"ann": "training", "dan": "heldout", "ben": "training"}
    assert room.of_group("training") == ["ann", "ben"]


def test_a_group_never_changes(tmp_path):
    Room(tmp_path).add({"ann": "training", "dan": "heldout"})
    with pytest.raises(UserError, match=r"'dan' is in the group 'heldout' and cannot"):
        Room(tmp_path).add({"dan": "training", "eva": "heldout"})
    assert "eva" not in Room(tmp_path).groups


@pytest.mark.parametrize(
    ("labelers", "message"),
    [
        ({"../ann": "training"}, "name is '../ann'"),
        ({"": "training"}, "name is ''"),
        ({"ann": "trainer"}, "give training or heldout"),
        ({"ann": "training", "Ann": "training"}, "'Ann' is named twice"),
    ],
)
def test_names_and_groups_that_cannot_be(tmp_path, labelers, message):
    with pytest.raises(UserError, match=message):
        Room(tmp_path).add(labelers)
    assert not Room(tmp_path).groups


def test_a_file_of_labelers_is_csv_or_json_lines(tmp_path):
    path = tmp_path / "team.csv"
    path.write_text("name,group\nann,training\ndan,heldout\n")
    assert read_labelers(path) == {"ann": "training", "dan": "heldout"}
    path = tmp_path / "team.jsonl"
    path.write_text('{"name": "ann", "group": "training"}\n{"name": "dan"}\n')
    with pytest.raises(UserError, match=r"team\.jsonl:2: give a labeler's name and"):
        read_labelers(path)


def test_an_empty_room_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no labelers yet; name them"):
        Room(tmp_path).need_labelers()
