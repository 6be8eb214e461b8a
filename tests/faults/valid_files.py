"""A small valid file for every reader, of which others are made by damage."""

import csv
import io
import json
from typing import Any

import pyarrow
import pyarrow.parquet

from instructgpt.data.records import FIELDS
from tests.faults.file_mutations import File


def _lines(name: str, *rows: Any) -> File:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return File(name, text.encode())


def _message(role: str, number: int, *replies: Any, **fields: Any) -> dict[str, Any]:
    return {
        "message_id": f"m{number}",
        "user_id": f"u{number % 3}",
        "role": role,
        "text": f"Text {number}, naïvely.",
        "lang": "en",
        "review_result": True,
        "deleted": False,
        "synthetic": False,
        "rank": None,
        "replies": list(replies),
        **fields,
    }


def _tree(number: int) -> dict[str, Any]:
    follow_up = _message("prompter", number + 1, _message("assistant", number + 2))
    replies = (
        _message("assistant", number + 3, follow_up, rank=0),
        _message("assistant", number + 4, rank=1),
    )
    return {
        "message_tree_id": f"m{number}",
        "tree_state": "ready_for_export",
        "prompt": _message("prompter", number, *replies),
    }


def _dialogues(number: int) -> dict[str, str]:
    start = f"\n\nHuman: Hi {number}\n\nAssistant: Hm?\n\nHuman: So?\n\nAssistant:"
    return {"chosen": f"{start} Yes.", "rejected": f"{start} Nö."}


_DIALOGUES = _lines("pairs.jsonl", *map(_dialogues, range(3)))
_ALPACA = _lines(
    "alpaca.json",
    {"instruction": "Say hi.", "input": "", "output": "Hi."},
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Übersetze.", "output": "Translate."},
)
PUBLIC: dict[str, File] = {
    "plain_text": File("book.txt", b"Es war einmal\r\neine Katze.\n\nEnde.\n"),
    "wikitext": File(
        "wiki.txt",
        " \n = Title = \n \n Text of it , é . \n = = Section = = \n \n = Next = \n \n"
        " More @-@ text . \n".encode(),
    ),
    "openassistant": _lines("oasst.trees.jsonl", _tree(0), _tree(10)),
    "hh_rlhf_harmless": _DIALOGUES,
    "hh_rlhf_helpful": _DIALOGUES,
    "hh_rlhf_helpful_rejection": _DIALOGUES,
    "hh_rlhf_helpful_online": _DIALOGUES,
    "fine_grained": _lines(
        "feedback.json",
        *(
            {
                "question": f"Who {number}?",
                "passages": [["Title", "Title\n\nOne.", "Two."], ["Other", "É."]],
                "gold": "Ada",
                **{f"prediction {k}": f"Answer {k}" for k in (1, 2, 3, 4)},
                "preference": [0, 1, 2, 1, 1, 0],
            }
            for number in range(2)
        ),
    ),
    "summarize_feedback": _lines(
        "batch.json",
        *(
            {
                "info": {"id": "t3", "post": "Post é", "title": "T", "subreddit": "s"},
                "summaries": [{"text": "One"}, {"text": "Two"}],
                "choice": choice,
                "worker": "w",
                "split": split,
            }
            for choice, split in ((0, "train"), (1, "valid1"))
        ),
        {
            "info": {"id": "cnn", "article": "Article", "title": "T"},
            "summaries": [{"text": "One"}, {"text": "Two"}],
            "choice": 1,
            "worker": 7,
            "split": "valid2",
        },
    ),
    "alpaca": _ALPACA,
    "raschka": _ALPACA,
    "dolly": _lines(
        "dolly.jsonl",
        {"instruction": "Who?", "context": "Ada.", "response": "A", "category": "qa"},
        {"instruction": "Wo?", "context": "", "response": "Köln", "category": "qa"},
    ),
    "self_instruct": _lines(
        "seeds.jsonl",
        {"id": 1, "instruction": "Add.", "instances": [{"input": "1", "output": "2"}]},
        {"id": "b", "instruction": "Name.", "instances": [{"output": "é"}] * 2},
    ),
    "p3": _lines(
        "ag_news.jsonl",
        {"prompt": "Q\n", "completion": " A<|endoftext|>", "template": "imdb"},
        {"prompt": "R", "completion": "é"},
    ),
    "gsm8k": _lines(
        "gsm.jsonl",
        {"question": "How many?", "answer": "48/2 = <<48/2=24>>24.\n#### 24"},
        {"question": "Wie viele?", "answer": "Zwölf\n#### 12"},
    ),
    "scitldr": _lines(
        "tldr.jsonl",
        {"paper_id": "p", "source": ["One.", "Two."], "target": ["Short.", "É."]},
        {"paper_id": 7, "source": ["One."], "target": ["S."]},
    ),
}


def _turns(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


_SYSTEM = {"role": "system", "content": "Be brief."}
_DEMONSTRATION = {
    "id": 7,
    "history": ["Hi", "Hello"],
    "prompt": "Name a colour.",
    "response": "Bläulich.",
    "customer": 17,
    "source": "labeler",
    "category": "chat",
    "style": "plain",
}
_COMPARISON = {
    "id": "c",
    "prompt": "Name a colour.",
    "responses": ["Blue.", "Nö.", "Red."],
    "ranks": [1, 3, 1],
    "labeler": "l",
    "customer": "x",
}
_PROMPT = {"id": "p", "history": ["a", "b"], "prompt": "Say é.", "customer": "y"}
_OWN_DEMONSTRATIONS = _lines(
    "d.jsonl", _DEMONSTRATION, {"prompt": "q", "response": "r"}
)
_CHATS = _lines(
    "chat.jsonl",
    {"messages": [_SYSTEM, *_turns("Hi", "Hello", "Bye", "Tschüß")]},
    {
        "conversations": [
            {"from": "human", "value": "Name a colour."},
            {"from": "gpt", "value": "Blue."},
        ],
        "system": "Be brief.",
    },
)
_COMPARISONS = _lines("c.jsonl", _COMPARISON, {**_COMPARISON, "id": 8})
_PREFERENCES = _lines(
    "pairs.jsonl",
    {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Nö."},
    {
        "prompt": [_SYSTEM, *_turns("Name a colour.")],
        "chosen": [{"role": "assistant", "content": "Blue."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    {"chosen": _turns("a", "b", "c", "d"), "rejected": _turns("a", "b", "c", "é")},
)
_PROMPTS = _lines("p.jsonl", _PROMPT, {"prompt": "q", "customer": 3, "task": "{}"})
OWN: dict[str, list[File]] = {
    "documents": [
        _lines("docs.jsonl", {"id": "d", "text": "One.\né"}, {"text": "Two"})
    ],
    "demonstrations": [_OWN_DEMONSTRATIONS, _CHATS],
    "prompts": [_PROMPTS, _CHATS],
    "rm_prompts": [_PROMPTS],
    "gpt_prompts": [_PROMPTS],
    "comparisons": [_COMPARISONS, _PREFERENCES],
}
assert OWN.keys() == FIELDS.keys()
_RATED = [
    {"prompt": "p", "response": text, "helpfulness": score, "verbosity": 1}
    for text, score in (("Ja", 4), ("Nö", 4), ("Vielleicht", 2))
]
_FORMS: dict[str, list[dict[str, Any]]] = {
    "demonstrations": [
        {"instruction": "Say hi.", "input": "", "output": "Hi."},
        {"prompt": _turns("Hi"), "completion": _turns("?", "Hello")[1:]},
        {"messages": [_SYSTEM, *_turns("Hi", "Hello", "Bye", "Tschüß")]},
    ],
    "comparisons": [
        *_RATED,
        {
            "context": _turns("a", "b", "c"),
            "response1": "d",
            "response2": "é",
            "overall_preference": -2,
        },
        {
            "instruction": "p",
            "completions": [
                {"response": text, "overall_score": score}
                for text, score in (("a", 7.5), ("b", 1.0), ("c", 7.5))
            ],
        },
        {"prompt": "p", "responses": ["a", "b"], "scores": [0.5, 1]},
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Nö",
        },
        {
            "prompt": "p",
            "chosen": _turns("p", "a"),
            "rejected": _turns("p", "b"),
            "score_chosen": 2.0,
            "score_rejected": 2.0,
        },
    ],
    "prompts": [
        {"prompt": "p\n<extra_id_1>Assistant\nq\n<extra_id_1>User\nr"},
        {"context": _turns("a"), "response1": "b", "response2": None},
    ],
    "documents": [{"text": "Es war einmal"}, {"text": "Ende."}],
}


def _csv(name: str, *rows: dict[str, Any]) -> File:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for row in rows:
        lists = {k: json.dumps(v) for k, v in row.items() if isinstance(v, list)}
        writer.writerow({**row, **lists})
    return File(name, text.getvalue().encode())


def _parquet(name: str, *rows: dict[str, Any]) -> File:
    data = io.BytesIO()
    table = pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, data, write_page_checksum=True)
    return File(name, data.getvalue())


# Rows of any form, as JSON Lines, CSV and Parquet.
ANY_FORM: list[tuple[str, File]] = [
    *((kind, _lines("rows.jsonl", *rows)) for kind, rows in _FORMS.items()),
    *((kind, _csv("rows.csv", *rows[:3])) for kind, rows in _FORMS.items()),
    *(
        (kind, _parquet("rows.parquet", *rows[:1]))
        for kind, rows in _FORMS.items()
        if kind != "comparisons"
    ),
    ("comparisons", _parquet("rated.parquet", *_RATED)),
    ("comparisons", _parquet("tie.parquet", _FORMS["comparisons"][-1])),
]
RAW: list[tuple[str, File]] = [
    ("prompts", _PROMPTS),
    ("demonstrations", _OWN_DEMONSTRATIONS),
    (
        "demonstrations",
        _lines(
            "shots.jsonl",
            {
                "instruction": "Give the sentiment.",
                "pairs": [["So happy", "good"], ["Late again", "bad"], ["Ä", "ö"]],
                "customer": 5,
            },
            {"prompt": "Call 555-0132.", "response": "r", "customer": "z"},
        ),
    ),
    ("comparisons", _COMPARISONS),
    ("comparisons", _PREFERENCES),
]
