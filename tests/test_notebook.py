"""What notebooks show: nothing is read as HTML, colours follow values, and commands."""

import re

import pytest
from matplotlib.figure import Figure

from instructgpt import notebook


@pytest.fixture
def shown(monkeypatch) -> list:
    """What cells have displayed."""
    out: list = []
    monkeypatch.setattr("IPython.display.display", out.append)
    return out


def test_a_table_shows_text_as_it_is(shown):
    notebook.table([("<b>", "a\nb"), (1, 2.5)], ["x & y", ""])
    (html,) = (item.data for item in shown)
    assert "&lt;b&gt;" in html and "x &amp; y" in html and "a\nb" in html
    assert html.count("<tr>") == 3


def test_no_picture_is_shown_without_its_data(shown):
    notebook.picture(None)
    assert not shown
    notebook.picture(Figure(figsize=(1, 1)))
    assert shown[0].data.startswith(b"\x89PNG")


def colours(html: str) -> list[tuple[int, ...]]:
    found = re.findall(r"background:rgb\((\d+),(\d+),(\d+)\)", html)
    return [tuple(map(int, channels)) for channels in found]


def test_colours_follow_values(shown):
    tokens = ["up", "<end>", "down", "half", "?"]
    notebook.colored([("line", tokens, [2.0, 0.0, -2.0, 1.0, float("nan")])])
    (html,) = (item.data for item in shown)
    assert "&lt;end&gt;" in html and ">?</span>" in html
    blue, white, red, half = colours(html)  # a value that is not finite has none
    assert blue[2] > blue[0] and red[0] > red[2] and white == (255, 255, 255)
    assert all(b < h < 255 for b, h in zip(blue, half, strict=True))


def test_a_limit_bounds_the_colour(shown):
    notebook.colored([("line", ["a", "b"], [0.2, 5.0])], limit=0.2)
    first, second = colours(shown[0].data)
    assert first == second


def test_a_command_prints_its_line_and_its_output(capsys):
    notebook.command("calendar", "2026", "11")
    out = capsys.readouterr().out
    assert out.startswith("$ python -m calendar 2026 11\n")
    assert "November 2026" in out


def test_a_command_that_fails_ends_the_cell(capsys):
    with pytest.raises(SystemExit, match="calendar ended with exit code"):
        notebook.command("calendar", "not a year")
    assert "invalid int value" in capsys.readouterr().out
    notebook.command("calendar", "not a year", check=False)
