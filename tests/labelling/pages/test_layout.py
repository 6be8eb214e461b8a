"""What the pages show, and that their fields are those that come back."""

import re
from xml.etree import ElementTree as ET

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling.interface import FLAGS, PAGES, Task
from instructgpt.labelling.pages import instruction, layout, task_data


def fields(page, tag, columns=4):
    return [x.attrib for x in ET.fromstring(layout(page, columns)).iter(tag)]


def test_a_demonstration_is_one_required_text():
    (area,) = fields("demonstration", "TextArea")
    assert (area["name"], area["required"], area["maxSubmissions"]) == (
        *("response", "true", "1"),
    )
    assert not fields("demonstration", "Choices")


@pytest.mark.parametrize(("page", "index"), [("rating", "0"), ("final", "{{idx}}")])
def test_a_rating_asks_for_quality_and_every_flag(page, index):
    choices = fields(page, "Choices")
    assert [x["name"] for x in choices] == [
        f"likert_{index}",
        *(f"{flag}_{index}" for flag in FLAGS),
    ]
    assert {x["required"] for x in choices} == {"true"}
    values = [x["value"] for x in fields(page, "Choice")]
    assert values == [*"1234567", *["Yes", "No"] * len(FLAGS)]
    headers = [x["value"] for x in fields(page, "Header")]
    assert set(FLAGS.values()) < set(headers)


@pytest.mark.parametrize("page", ["ranking", "final"])
@pytest.mark.parametrize("columns", [4, 9])
def test_as_many_ranks_as_wanted_with_the_ends_named(page, columns):
    buckets = fields(page, "Bucket", columns)
    assert [x["name"] for x in buckets] == [f"rank_{i + 1}" for i in range(columns)]
    assert buckets[0]["title"] == "Rank 1 (best)"
    assert buckets[1]["title"] == "Rank 2"
    assert buckets[-1]["title"] == f"Rank {columns} (worst)"


@pytest.mark.parametrize("page", PAGES)
def test_the_style_survives_label_studios_escapes(page):
    style = re.search(r"<Style>(.*?)</Style>", layout(page), re.DOTALL).group(1)
    assert not set("<>&\"'") & set(style)


def test_truth_comes_first_in_final_evaluations_and_helpfulness_in_training():
    for page in ("demonstration", "rating", "ranking"):
        assert "helpfulness to the person counts most" in instruction(page)
    assert "truthfulness and harmlessness count more" in instruction("final")
    assert instruction("final").startswith('<div class="ig-instruction"><h2>')


def test_a_task_shows_who_said_what_and_cards_with_neutral_ids():
    task = Task("k1", "ranking", ("Hi", "Hello."), "Why?", ("because", "no"))
    assert task_data(task) == {
        "key": "k1",
        "page": "ranking",
        "dialog": [
            {"speaker": "User", "text": "Hi"},
            {"speaker": "Assistant", "text": "Hello."},
            {"speaker": "User", "text": "Why?"},
        ],
        "answers": [
            {"id": "a", "title": "Answer A", "body": "because"},
            {"id": "b", "title": "Answer B", "body": "no"},
        ],
    }


def test_the_last_turn_is_the_users():
    shown = task_data(Task("k", "demonstration", ("An answer.",), "Go on."))["dialog"]
    assert [turn["speaker"] for turn in shown] == ["Assistant", "User"]


@pytest.mark.parametrize(
    ("page", "number", "says"),
    [
        ("demonstration", 1, "0"),
        ("rating", 2, "1"),
        ("ranking", 1, "2 to 9"),
        ("final", 10, "2 to 9"),
    ],
)
def test_a_page_refuses_what_it_cannot_show(page, number, says):
    with pytest.raises(UserError, match=rf"'k' has {number} answers.*shows {says}$"):
        task_data(Task("k", page, (), "p", ("x",) * number))
