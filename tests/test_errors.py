"""Values in messages are short, in one line, and never an error of their own."""

import pytest

from instructgpt.errors import shown


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        nested(100_000),
        ["x" * 1000] * 1000,
        "two\nlines \ud800" * 1000,
        {str(n): n for n in range(1000)},
        10**4000,
    ],
    ids=["deep", "long list", "text", "object", "number"],
)
def test_any_value_is_shown_in_one_short_line(value):
    text = shown(value)
    assert text.isprintable()
    assert 0 < len(text) <= 80


def test_small_values_are_shown_whole():
    assert shown([1, "a\n"]) == r"[1, 'a\n']"
    assert shown(None) == "None"
