"""Screening by the paper's four criteria, by hand, and its errors."""

import json

import pytest

from instructgpt.errors import UserError
from instructgpt.evals.agreement.screening import CHOICE, screen

REFERENCE = [
    {"kind": "flagging", "id": "f1", "sensitive": True, "prompt": "..."},
    {"kind": "flagging", "id": "f2", "sensitive": True},
    {"kind": "flagging", "id": "f3", "sensitive": False},
    {"kind": "flagging", "id": 4, "sensitive": False},
    {"kind": "ranking", "id": "r1", "ranks": [1, 2, 2, 3], "responses": list("abcd")},
    {"kind": "ranking", "id": "r2", "ranks": [2, 1]},
    {"kind": "demonstration", "id": "d1", "prompt": "..."},
    {"kind": "demonstration", "id": "d2"},
    {"kind": "speech", "group": "religion"},
    {"kind": "speech", "group": "football"},
]
CANDIDATE = [
    {"kind": "flagging", "id": "f1", "sensitive": True},
    {"kind": "flagging", "id": "f2", "sensitive": False},
    {"kind": "flagging", "id": "f3", "sensitive": False},
    {"kind": "flagging", "id": "4", "sensitive": False},
    {"kind": "ranking", "id": "r1", "ranks": [2, 1, 3, 3]},
    {"kind": "ranking", "id": "r2", "ranks": [2, 1]},
    {"kind": "demonstration", "id": "d1", "response": "...", "score": 6},
    {"kind": "demonstration", "id": "d2", "score": 6.5},
    {"kind": "speech", "group": "religion", "able": True},
    {"kind": "speech", "group": "football", "able": False},
]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def screened(tmp_path):
    def run(candidate=CANDIDATE, reference=REFERENCE):
        return screen(
            lines(tmp_path / "c07.jsonl", candidate),
            lines(tmp_path / "reference.jsonl", reference),
        )

    return run


def test_the_four_criteria_by_hand(screened):
    found = screened()
    assert found.candidate == "c07"
    criteria = found.as_json()["criteria"]
    assert list(criteria) == ["flagging", "ranking", "demonstration", "speech"]
    flagging = criteria["flagging"]
    assert flagging["value"][0] == 3 / 4 and flagging["reached"] is True
    assert flagging["sensitive_found"][0] == 1 / 2
    assert flagging["others_let_pass"][0] == 1
    # r1: of the pairs 01 02 03 12 13 23 the researchers tie 12 and the candidate 23;
    # of the other four they differ on 01. r2: the only pair alike.
    ranking = criteria["ranking"]
    assert ranking["value"][0] == pytest.approx(4 / 5) and ranking["reached"] is True
    assert ranking["with_ties"][0] == pytest.approx(4 / 7)
    assert ranking["tau"][0] == pytest.approx(((3 - 1) / 5 + 1) / 2)
    assert criteria["demonstration"]["value"][0] == 6.25
    assert criteria["demonstration"]["reached"] is True
    speech = criteria["speech"]
    assert (speech["able"], speech["not_able"]) == (["religion"], ["football"])
    assert speech["value"] is speech["cutoff"] is speech["reached"] is None
    assert found.as_json()["choice"] == CHOICE


def test_the_table_says_what_was_reached_and_who_chooses(screened):
    rows = {line.split("  ")[0]: line for line in screened().table().splitlines()}
    flagging = rows["Agreement on flagging sensitive speech"]
    assert "4 of 4" in flagging and "0.75 [" in flagging
    assert flagging.endswith("yes, too close to be sure")
    assert rows["Able to identify sensitive speech"].endswith("no cut-off")
    assert "Able to identify sensitive speech: able religion" in rows
    assert CHOICE in rows


def test_below_the_cut_offs(screened):
    other = [dict(row) for row in CANDIDATE]
    for row in other[:4]:
        row["sensitive"] = row["id"] in ("f3", "4")
    other[6]["score"] = 5
    criteria = screened(other).as_json()["criteria"]
    assert criteria["flagging"]["value"][0] == 0
    assert criteria["flagging"]["reached"] is False
    assert criteria["demonstration"]["value"][0] == 5.75
    assert criteria["demonstration"]["reached"] is False
    assert "  no" in screened(other).table()


def test_what_is_not_answered_or_scored_leaves_it_open(screened):
    del (some := [dict(row) for row in CANDIDATE])[1]
    some[6].pop("score")
    found = screened(some)
    criteria = found.as_json()["criteria"]
    assert (criteria["flagging"]["answered"], criteria["flagging"]["asked"]) == (3, 4)
    assert criteria["flagging"]["value"][0] == 1
    assert criteria["flagging"]["reached"] is None
    assert criteria["demonstration"]["answered"] == 1
    assert criteria["demonstration"]["reached"] is None
    assert found.table().count("not all answered or scored") == 2


def test_only_what_the_reference_asks_is_a_criterion(screened):
    found = screened(CANDIDATE[:4], REFERENCE[:4])
    assert [one.kind for one in found.criteria] == ["flagging"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("text", r"c07.jsonl:1: kind is None; give an object with one of flagging"),
        ({"kind": "flags"}, "c07.jsonl:1: kind is 'flags'"),
        ({"kind": "flagging", "sensitive": True}, "c07.jsonl:1: id is None; give a"),
        ({"kind": "flagging", "id": "f1"}, "c07.jsonl:1: sensitive is None; give true"),
        (
            {"kind": "flagging", "id": "f1", "sensitive": "yes"},
            "is 'yes'; give true or",
        ),
        (
            {"kind": "flagging", "id": "f9", "sensitive": True},
            "asks no flagging 'f9'; ",
        ),
        (
            {"kind": "ranking", "id": "r2", "ranks": [1, 3]},
            r"ranks are \[1, 3\]; number",
        ),
        ({"kind": "ranking", "id": "r2", "ranks": "12"}, "ranks are '12'; number two"),
        (
            {"kind": "ranking", "id": "r2", "ranks": [1, 2, 3]},
            "c07.jsonl:1: 3 ranks, and the reference has 2; give one to each answer",
        ),
        ({"kind": "demonstration", "id": "d1", "score": 8}, "score is 8; give 1 to 7"),
        ({"kind": "demonstration", "id": "d1", "score": True}, "score is True; give 1"),
        ({"kind": "speech", "able": True}, "c07.jsonl:1: group is None; give a text"),
        ({"kind": "speech", "group": "religion"}, "able is None; give true or false"),
    ],
)
def test_a_wrong_row_is_named(screened, row, says):
    with pytest.raises(UserError, match=says) as error:
        screened([row])
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_named(screened, tmp_path):
    with pytest.raises(
        UserError, match=r"c07.jsonl:5: a second flagging of 'f1'; keep"
    ):
        screened([*CANDIDATE[:4], CANDIDATE[0]])
    with pytest.raises(
        UserError, match=r"reference.jsonl:1: able|reference.jsonl:1: k"
    ):
        screened(CANDIDATE, [{"kind": "other"}])
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        screen(tmp_path / "c07.jsonl", tmp_path / "nowhere.jsonl")
    (tmp_path / "torn.jsonl").write_text('{"kind": "flagging", "id": "f1", "sens')
    with pytest.raises(UserError, match=r"torn\.jsonl:1"):
        screen(tmp_path / "torn.jsonl", lines(tmp_path / "r.jsonl", REFERENCE))
