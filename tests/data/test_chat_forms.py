"""Dialogues and preferences in the forms of chat libraries become records of ours."""

import json

import pytest

from instructgpt.data.curation import Rules, curate_files
from instructgpt.data.records import read_jsonl
from instructgpt.errors import UserError
from tests.data.reader_files import some, write


def turns(*texts: str) -> list[dict]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def said(*texts: str) -> list[dict]:
    names = ("human", "gpt")
    return [{"from": names[i % 2], "value": text} for i, text in enumerate(texts)]


SYSTEM = {"role": "system", "content": "Be brief.\n"}


def read(tmp_path, kind: str, row: dict) -> dict:
    (record,) = read_jsonl(write(tmp_path / "rows.jsonl", row), kind)
    return record


DEMONSTRATIONS = {
    "messages": ({"messages": turns("a", "b")}, ([], "a", "b")),
    "several turns": (
        {"messages": turns("a", "b", "c", "d"), "history": []},
        (["a", "b"], "c", "d"),
    ),
    "system turn": (
        {"messages": [SYSTEM, *turns("a", "b", "c", "d")]},
        (["Be brief.\n\na", "b"], "c", "d"),
    ),
    "conversations": ({"conversations": said("a", "b")}, ([], "a", "b")),
    "field system": (
        {"system": "Be brief.", "conversations": said("a", "b")},
        ([], "Be brief.\n\na", "b"),
    ),
    "empty system": ({"system": "", "messages": turns("a", "b")}, ([], "a", "b")),
    "prompt and completion": ({"prompt": "a", "completion": "b"}, ([], "a", "b")),
    "turns and completion": (
        {"prompt": [SYSTEM, *turns("a")], "completion": turns("?", "b")[1:]},
        ([], "Be brief.\n\na", "b"),
    ),
    "messages beside a prompt": (
        {"prompt": "a", "prompt_id": "1", "messages": turns("a", "b")},
        ([], "a", "b"),
    ),
    "our fields": (
        {"prompt": "p", "response": "r", "messages": turns("a", "b")},
        ([], "p", "r"),
    ),
}


@pytest.mark.parametrize("form", DEMONSTRATIONS)
def test_dialogues_are_demonstrations(form, tmp_path):
    row, (history, prompt, response) = DEMONSTRATIONS[form]
    record = read(tmp_path, "demonstrations", {"id": 3, "customer": "c", **row})
    assert some(record, "id", "customer", "history", "prompt", "response") == {
        "id": "3",
        "customer": "c",
        "history": history,
        "prompt": prompt,
        "response": response,
    }


PROMPTS = {
    "answered": ({"messages": turns("a", "b")}, ([], "a")),
    "open": ({"conversations": said("a", "b", "c")}, (["a", "b"], "c")),
    "turns": ({"prompt": [SYSTEM, *turns("a")]}, ([], "Be brief.\n\na")),
    "preference": (
        {"chosen": turns("a", "b"), "rejected": turns("a", "c")},
        ([], "a"),
    ),
}


@pytest.mark.parametrize("kind", ["prompts", "rm_prompts"])
@pytest.mark.parametrize("form", PROMPTS)
def test_dialogues_are_prompts(form, kind, tmp_path):
    row, (history, prompt) = PROMPTS[form]
    record = read(tmp_path, kind, row)
    assert some(record, "history", "prompt") == {"history": history, "prompt": prompt}


TALK = "\n\nHuman: x\n\nAssistant: y\n\nHuman: a\n\nAssistant:"
COMPARISONS = {
    "texts": ({"prompt": "a", "chosen": "b", "rejected": "c"}, ([], "a")),
    "texts with a history": (
        {"history": ["x", "y"], "prompt": "a", "chosen": "b", "rejected": "c"},
        (["x", "y"], "a"),
    ),
    "turns": (
        {
            "prompt": [SYSTEM, *turns("x", "y", "a")],
            "chosen": turns("?", "b")[1:],
            "rejected": turns("?", "c")[1:],
        },
        (["Be brief.\n\nx", "y"], "a"),
    ),
    "whole dialogues": (
        {"chosen": turns("x", "y", "a", "b"), "rejected": turns("x", "y", "a", "c")},
        (["x", "y"], "a"),
    ),
    "whole dialogues and their prompt": (
        {"prompt": "a", "chosen": turns("a", "b"), "rejected": turns("a", "c")},
        ([], "a"),
    ),
    "dialogues in a text": (
        {"chosen": f"{TALK} b", "rejected": f"{TALK} c"},
        (["x", "y"], "a"),
    ),
    "a prompt that is a dialogue in a text": (
        {"prompt": TALK, "chosen": "b", "rejected": "c"},
        (["x", "y"], "a"),
    ),
    "marked dialogue": (
        {
            "prompt": "x\n<extra_id_1>Assistant\ny\n<extra_id_1>User\na",
            "chosen": "b",
            "rejected": "c",
        },
        (["x", "y"], "a"),
    ),
    "conversations and turns": (
        {
            "conversations": said("a"),
            "chosen": said("?", "b")[1],
            "rejected": said("?", "c")[1],
        },
        ([], "a"),
    ),
}


@pytest.mark.parametrize("form", COMPARISONS)
def test_preferences_are_comparisons(form, tmp_path):
    row, (history, prompt) = COMPARISONS[form]
    record = read(tmp_path, "comparisons", row)
    assert some(record, "history", "prompt", "responses", "ranks") == {
        "history": history,
        "prompt": prompt,
        "responses": ["b", "c"],
        "ranks": [1, 2],
    }


BAD = [
    ("demonstrations", {"messages": turns("a")}, "ends before the assistant's answer"),
    ("demonstrations", {"messages": turns("a", "b")[1:]}, "does not speak before"),
    ("demonstrations", {"messages": turns("a", "b") * 2 + turns("c")}, "ends before"),
    (
        "demonstrations",
        {"messages": [*turns("a"), *turns("a", "b")]},
        "the user speaks",
    ),
    ("demonstrations", {"messages": [*turns("a", "b", "c"), SYSTEM]}, "ends before"),
    (
        "demonstrations",
        {"messages": [*turns("a"), SYSTEM, *turns("a", "b")]},
        "m speaks",
    ),
    ("demonstrations", {"messages": []}, r"must be a list of turns, found \[\]"),
    ("demonstrations", {"messages": "a"}, "must be a list of turns, found 'a'"),
    (
        "demonstrations",
        {"messages": ["a", "b"]},
        r"messages\[0\] must be a turn with a",
    ),
    (
        "demonstrations",
        {"messages": [*turns("a"), {"role": "tool", "content": "b"}]},
        r"messages\[1\] is of the role 'tool'",
    ),
    (
        "demonstrations",
        {"messages": [*turns("a"), {"role": "assistant", "content": None}]},
        r"content of messages\[1\] must be text, found None",
    ),
    ("demonstrations", {"system": 3, "messages": turns("a", "b")}, "'system' must be"),
    (
        "demonstrations",
        {"system": "Other.", "messages": [SYSTEM, *turns("a", "b")]},
        "beside a system turn",
    ),
    (
        "demonstrations",
        {"history": ["x", "y"], "messages": turns("a", "b")},
        "a 'history' beside turns",
    ),
    ("demonstrations", {"prompt": turns("a")}, "the chat form with 'prompt'"),
    (
        "demonstrations",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        "the chat form with 'chosen' and 'rejected' makes no demonstrations",
    ),
    (
        "demonstrations",
        {"prompt": "Human: a", "completion": "b"},
        "speaker's name 'Human:'.*give hh_rlhf_helpful:FILE",
    ),
    (
        "comparisons",
        {"messages": turns("a", "b")},
        "form with 'messages' makes no comp",
    ),
    ("comparisons", {"prompt": "a", "chosen": "b"}, "form with 'chosen' makes no comp"),
    ("comparisons", {"chosen": "b", "rejected": "c"}, "the answers have no 'prompt'"),
    (
        "comparisons",
        {"prompt": "a\n\nAssistant:", "chosen": "b", "rejected": "c"},
        "'prompt' has the speaker's name 'Assistant:'",
    ),
    (
        "comparisons",
        {"chosen": turns("a", "b"), "rejected": turns("x", "c")},
        "part before the last turn",
    ),
    (
        "comparisons",
        {"prompt": "x", "chosen": turns("a", "b"), "rejected": turns("a", "c")},
        "the prompt is no turn of the dialogue",
    ),
    (
        "comparisons",
        {"prompt": turns("x"), "chosen": turns("a", "b"), "rejected": turns("a", "c")},
        "not what the dialogue begins with",
    ),
    (
        "comparisons",
        {"prompt": 3, "chosen": "b", "rejected": "c"},
        "'prompt' must be t",
    ),
    ("documents", {"messages": turns("a", "b")}, "makes no documents; write documents"),
]


@pytest.mark.parametrize(("kind", "row", "problem"), BAD)
def test_what_makes_no_record_is_named_with_our_fields(kind, row, problem, tmp_path):
    with pytest.raises(UserError, match=rf"rows\.jsonl:1: .*{problem}") as error:
        read(tmp_path, kind, row)
    message = str(error.value)
    assert "\n" not in message
    assert "'text'" in message or "'prompt'" in message


def test_raw_dialogues_are_curated(tmp_path):
    rows = [{"messages": turns(f"Say {n}.", "Yes."), "customer": n} for n in range(3)]
    path = write(tmp_path / "raw.jsonl", *rows)
    rules = Rules(fractions=(1.0, 0.0, 0.0))
    curate_files([path], tmp_path / "out", kind="demonstrations", rules=rules)
    lines = (tmp_path / "out/demonstrations.train.jsonl").read_text().splitlines()
    kept = [some(json.loads(line), "prompt", "customer") for line in lines]
    assert kept == [{"prompt": f"Say {n}.", "customer": str(n)} for n in range(3)]
