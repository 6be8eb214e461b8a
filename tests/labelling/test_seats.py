"""Seats: kept from others' eyes, checked when they are read."""

import json
import stat

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling.seats import Seat, read_seats, write_seats

ANN = Seat("ann", "training", "http://127.0.0.1:1", "ann@localhost", "p4ss", "t0k")


def test_only_the_owner_reads_what_is_written(tmp_path):
    write_seats(tmp_path, [ANN])
    write_seats(tmp_path, [ANN, ANN._replace(labeler="ben")])
    assert stat.S_IMODE((tmp_path / "seats.json").stat().st_mode) == 0o600
    assert read_seats(tmp_path) == [ANN, ANN._replace(labeler="ben")]


def test_a_seat_is_shown_without_its_secrets():
    assert repr(ANN) == "Seat('ann', 'training', 'http://127.0.0.1:1')"
    assert "t0k" not in f"{ANN} {[ANN]}"
    assert "p4ss" not in f"{ANN} {[ANN]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"seats.json: cannot be read; delete it"),
        ('{"a": 1}', r"seats.json: is no list of seats"),
        ('[{"labeler": "ann"}]', r"seat 0: group is not given as a text"),
        (json.dumps([{**ANN._asdict(), "x": 1}]), r"unknown field 'x'"),
        (json.dumps([{**ANN._asdict(), "group": "both"}]), r"of 'ann' is 'both'; give"),
        (json.dumps([{**ANN._asdict(), "labeler": " "}]), r"labeler's name is ' '"),
        (json.dumps([ANN._asdict()] * 2), r"'ann' is named twice"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, message):
    (tmp_path / "seats.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_seats(tmp_path)
    assert "t0k" not in str(error.value)


def test_without_a_file_it_says_how_seats_are_made(tmp_path):
    with pytest.raises(UserError, match=r"no labelers yet; run `python -m instructgpt"):
        read_seats(tmp_path)
