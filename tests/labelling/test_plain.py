"""Tasks and work as files: what is wrong is named by its line, the rest is kept."""

import json
import re

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling.interface import Rating, Refused, Task, Work
from instructgpt.labelling.plain import PlainDesk
from tests.labelling.rooms import write_lines

TASKS = [
    Task("k1", "ranking", ("Hi", "Hello.\u2028"), "Which?", ("a", "b", "c")),
    Task("k2", "ranking", (), "Where?", ("x", "y")),
]
BY_KEY = {task.key: task for task in TASKS}


@pytest.fixture
def desk(tmp_path):
    desk = PlainDesk(tmp_path, "ann")
    desk.put("ranking", TASKS)
    return desk


def test_tasks_go_out_once(desk):
    desk.put("ranking", [*TASKS, TASKS[1]._replace(key="k3")])
    rows = read_lines_of(desk)
    assert [row["key"] for row in rows] == ["k1", "k2", "k3"]
    assert rows[0]["history"] == ["Hi", "Hello.\u2028"]
    assert rows[0]["answers"] == ["a", "b", "c"]


def read_lines_of(desk):
    text = desk.tasks_file("ranking").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_work_is_read_as_it_was_handed_in(desk):
    works = [
        Work("k1", seconds=3.5, when="2026-01-01T00:00:00+00:00", ranks=(2, 1, 2)),
        Work("k2", skipped=True, note="cut\noff\u2028"),
        Work("k2", ratings=(Rating(7, {"hallucination": False}), Rating())),
        Work("k1", response="Yes."),
    ]
    for work in works:
        desk.submit("ranking", work.key, work)
    assert list(desk.finished("ranking", BY_KEY)) == works


def test_nothing_is_there_yet(tmp_path):
    assert list(PlainDesk(tmp_path, "ben").finished("rating", {})) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"key": "k1", "ranks": [1, 2', "not valid JSON"),
        ("[1]", r"no object but \[1\]"),
        ('{"ranks": [1]}', "key is missing"),
        ('{"key": "k1", "rank": [1]}', "unknown field 'rank'"),
        ('{"key": "k1", "ranks": "1"}', "ranks is '1'"),
        ('{"key": "k1", "ranks": [1.5, 1, 2]}', r"ranks are \[1.5"),
        ('{"key": "k1", "seconds": true}', "seconds is True"),
        ('{"key": "k1", "ratings": [7]}', "a rating is 7"),
        ('{"key": "k1", "ratings": [{"likert": "7"}]}', "likert is '7'"),
        ('{"key": "k1", "ratings": [{"flags": {"nice": true}}]}', "flags are"),
        (
            '{"key": "k1", "ranks": [1, 2, 2], "answers": ["b", "a", "c"]}',
            "`answers` differs from",
        ),
        (
            '{"key": "k1", "ranks": [1, 2, 2], "prompt": "When?"}',
            "`prompt` differs",
        ),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_kept(desk, line, reason):
    good = '{"key": "k2", "ranks": [1, 2], "answers": ["x", "y"]}'
    desk.done_file("ranking").write_text(f"{good}\n\n{line}\n")
    first, second = desk.finished("ranking", BY_KEY)
    assert first == Work("k2", ranks=(1, 2))
    assert isinstance(second, Refused)
    assert second.where == f"{desk.done_file('ranking')}:3"
    assert re.search(reason, second.reason), second.reason


def test_work_on_a_task_that_was_edited_in_the_file_is_refused(desk):
    rows = read_lines_of(desk)
    rows[0]["answers"] = ["a", "b", "edited"]
    write_lines(desk.tasks_file("ranking"), rows)
    for key, ranks in (("k1", (1, 2, 3)), ("k2", (1, 2))):
        desk.submit("ranking", key, Work(key, ranks=ranks))
    first, second = desk.finished("ranking", BY_KEY)
    assert isinstance(first, Refused)
    assert "in ann.ranking.jsonl `answers` differs from what was sent" in first.reason
    assert second == Work("k2", ranks=(1, 2))


def test_a_damaged_file_of_tasks_is_not_written_over(desk):
    path = desk.tasks_file("ranking")
    path.write_text(path.read_text() + "half a li")
    with pytest.raises(UserError, match=r"ann\.ranking\.jsonl:3: is no task"):
        desk.put("ranking", TASKS)
    assert path.read_text().endswith("half a li")
