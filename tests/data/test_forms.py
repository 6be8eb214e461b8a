"""Rows of each common form, made by hand and with pyarrow, give the right records."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from instructgpt.data.origins.published import SetFile, read_set
from instructgpt.data.records import parse_lines, read_jsonl
from instructgpt.errors import UserError
from tests.data.reader_files import write

SYSTEM = {"role": "system", "content": "Be brief."}


def turns(*texts: str) -> list[dict]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def save(path: Path, *rows: dict) -> Path:
    """As the ending of the path says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path
    return write(path, *rows)


def read(path: Path, kind: str, **columns: str):
    file = SetFile(path, None, str(path), lambda: parse_lines(path))
    return read_set("file", [file], kind=kind, columns=columns)


def short(record: dict) -> tuple:
    answers = record.get("responses") or record.get("response")
    return (*record["history"], record["prompt"]), answers, record.get("ranks")


A = "A?"
FORMS = {
    "messages": ({"messages": [SYSTEM, *turns(A, "b", "c", "d")]}, "demonstrations"),
    "prompt and completion": ({"prompt": A, "completion": "b"}, "demonstrations"),
    "messages beside a prompt and an empty column": (
        {"prompt": A, "completion": None, "messages": turns(A, "b")},
        "demonstrations",
    ),
    "prompt and completion as turns": (
        {"prompt": [SYSTEM, *turns(A)], "completion": turns("", "b")[1:]},
        "demonstrations",
    ),
    "alpaca": ({"instruction": A, "input": "x", "output": "b"}, "demonstrations"),
    "alpaca without input": (
        {"instruction": A, "input": None, "output": "b"},
        "demonstrations",
    ),
    "dolly": (
        {"instruction": A, "context": "x", "response": "b", "category": "qa"},
        "demonstrations",
    ),
    "preference of texts": (
        {"prompt": A, "chosen": "b", "rejected": "c"},
        "comparisons",
    ),
    "preference of texts with a system text": (
        {"system": "Be brief.", "prompt": A, "chosen": "b", "rejected": "c"},
        "comparisons",
    ),
    "preference of turns": (
        {
            "prompt": [SYSTEM, *turns(A)],
            "chosen": turns("", "b")[1:],
            "rejected": turns("", "c")[1:],
        },
        "comparisons",
    ),
    "dialogues alone": (
        {"chosen": turns(A, "x", "y", "b"), "rejected": turns(A, "x", "y", "c")},
        "comparisons",
    ),
    "binarized": (
        {
            "prompt": A,
            "prompt_id": "1",
            "chosen": turns(A, "b"),
            "rejected": turns(A, "c"),
            "messages": turns(A, "b"),
            "score_chosen": 8.5,
            "score_rejected": 2.0,
        },
        "comparisons",
    ),
    "binarized tie": (
        {
            "prompt": A,
            "chosen": turns(A, "b"),
            "rejected": turns(A, "c"),
            "score_chosen": 8.5,
            "score_rejected": 8.5,
        },
        "comparisons",
    ),
    "completions with scores": (
        {
            "instruction": A,
            "completions": [
                {"model": "m", "response": text, "overall_score": score}
                for text, score in (("b", 5.0), ("c", 7.5), ("d", 5.0), ("e", None))
            ],
        },
        "comparisons",
    ),
    "answers with ranks": (
        {
            "prompt": "\n\nHuman: A?\n\nAssistant: ",
            "answers": [{"answer": "b", "rank": 2.0}, {"answer": "c", "rank": 1.0}],
        },
        "comparisons",
    ),
    "two responses, the first better": (
        {
            "context": turns("x", "y", A),
            "response1": "b",
            "response2": "c",
            "overall_preference": -2,
        },
        "comparisons",
    ),
    "two responses, the second better": (
        {
            "prompt": A,
            "response_1": "b",
            "response_2": "c",
            "preference_strength": 1,
        },
        "comparisons",
    ),
    "two responses, a tie": (
        {
            "context": turns(A),
            "response1": "b",
            "response2": "c",
            "overall_preference": 0,
        },
        "comparisons",
    ),
    "lists of responses and scores": (
        {"prompt": A, "responses": ["b", "c", "d"], "scores": [0.5, 0.25, 0.5]},
        "comparisons",
    ),
    "our ranking": (
        {"prompt": A, "responses": ["b", "c"], "ranks": [2, 1], "score": 3},
        "comparisons",
    ),
    "prompt of a preference": (
        {"chosen": turns(A, "b"), "rejected": turns(A, "c")},
        "prompts",
    ),
    "prompt of two responses": (
        {"context": turns("x", "y", A), "response1": "b", "response2": "c"},
        "prompts",
    ),
}
BRIEF = "Be brief.\n\nA?"
MADE = {
    "messages": ((BRIEF, "b", "c"), "d", None),
    "prompt and completion": ((A,), "b", None),
    "messages beside a prompt and an empty column": ((A,), "b", None),
    "prompt and completion as turns": ((BRIEF,), "b", None),
    "alpaca": (("A?\n\nx",), "b", None),
    "alpaca without input": ((A,), "b", None),
    "dolly": (("A?\n\nx",), "b", None),
    "preference of texts": ((A,), ["b", "c"], [1, 2]),
    "preference of texts with a system text": ((BRIEF,), ["b", "c"], [1, 2]),
    "preference of turns": ((BRIEF,), ["b", "c"], [1, 2]),
    "dialogues alone": ((A, "x", "y"), ["b", "c"], [1, 2]),
    "binarized": ((A,), ["b", "c"], [1, 2]),
    "binarized tie": ((A,), ["b", "c"], [1, 1]),
    "completions with scores": ((A,), ["b", "c", "d"], [2, 1, 2]),
    "answers with ranks": ((A,), ["b", "c"], [2, 1]),
    "two responses, the first better": (("x", "y", A), ["b", "c"], [1, 2]),
    "two responses, the second better": ((A,), ["b", "c"], [2, 1]),
    "two responses, a tie": ((A,), ["b", "c"], [1, 1]),
    "lists of responses and scores": ((A,), ["b", "c", "d"], [1, 2, 1]),
    "our ranking": ((A,), ["b", "c"], [2, 1]),
    "prompt of a preference": ((A,), None, None),
    "prompt of two responses": (("x", "y", A), None, None),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_each_form_gives_its_record(form, suffix, tmp_path):
    """From a source of any form, and from the folder that a stage reads."""
    row, kind = FORMS[form]
    path = save(tmp_path / f"rows{suffix}", row)
    (record,) = read(path, kind).records
    assert short(record) == MADE[form]
    (record,) = read_jsonl(path, kind)
    assert short(record) == MADE[form]


def test_text_is_a_document(tmp_path):
    path = save(tmp_path / "a.parquet", {"text": "Once.", "messages": None})
    (record,) = read(path, "documents").records
    assert record["text"] == "Once."


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_that_rate_one_answer_each_become_a_ranking(suffix, tmp_path):
    rows = [
        {"prompt": prompt, "response": response, "helpfulness": score, "verbosity": v}
        for prompt, response, score, v in (
            ("p", "a", 4, 1),
            ("p", "b", 2, 3),
            ("q", "c", 3, 1),
            ("q", "d", 3, 2),
            ("alone", "e", 3, 2),
            ("p", "f", 4, 2),  # not beside the others
        )
    ]
    path = save(tmp_path / f"rows{suffix}", *rows)
    found = read(path, "comparisons")
    assert [short(record) for record in found.records] == [
        (("p",), ["a", "b", "f"], [1, 2, 1]),
        (("q",), ["c", "d"], [1, 1]),
    ]
    assert found.report.skipped == {"fewer than two rated answers": 1}
    found = read(path, "comparisons", score="verbosity")
    assert [record["ranks"] for record in found.records] == [[3, 1, 2], [2, 1]]
    prompts = read(path, "prompts")
    assert [record["prompt"] for record in prompts.records] == ["p", "q", "alone"]


TOOL = {"role": "tool", "content": "42"}
GOOD = {"messages": turns("p", "r")}
LEFT_OUT = {
    "turn of a tool": (
        {"messages": [*turns("a"), TOOL, *turns("", "b")[1:]]},
        "demonstrations",
    ),
    "turn without text": (
        {"messages": [*turns("a"), {"role": "assistant", "content": None}]},
        "demonstrations",
    ),
    "turn with other parts than text": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, *turns("a")]},
        "demonstrations",
    ),
    "dialogue that ends before the answer": (
        {"messages": turns("a", "b", "c")},
        "demonstrations",
    ),
    "turns that are not the user's and the assistant's in turn": (
        {"messages": [*turns("a"), SYSTEM, *turns("a", "b")[1:]]},
        "demonstrations",
    ),
    "no turn of the user before the answer": (
        {"messages": turns("", "b")[1:]},
        "demonstrations",
    ),
    "empty dialogue": ({"messages": []}, "demonstrations"),
    "no dialogue": ({"messages": None}, "demonstrations"),
    "empty response": ({"prompt": "a", "completion": " "}, "demonstrations"),
    "no response": ({"prompt": "a", "completion": None}, "demonstrations"),
    "empty prompt": ({"messages": turns("", "b")}, "demonstrations"),
    "no rejected answer": (
        {"prompt": "a", "chosen": "b", "rejected": None},
        "comparisons",
    ),
    "no chosen answer": (
        {"prompt": "a", "chosen": None, "rejected": None},
        "comparisons",
    ),
    "chosen and rejected part before the last turn": (
        {"chosen": turns("a", "b"), "rejected": turns("x", "c")},
        "comparisons",
    ),
    "no preference": (
        {
            "prompt": "a",
            "response1": "b",
            "response2": "c",
            "overall_preference": None,
        },
        "comparisons",
    ),
    "no second answer": (
        {
            "prompt": "a",
            "response1": "b",
            "response2": None,
            "overall_preference": 1,
        },
        "comparisons",
    ),
    "no text": ({"text": None}, "documents"),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_rows_that_make_no_record_are_counted_or_refused(reason, tmp_path):
    """A large set counts such rows; in a folder of one's own they are errors."""
    row, kind = LEFT_OUT[reason]
    good = {
        "demonstrations": GOOD,
        "comparisons": {"prompt": "p", "chosen": "r", "rejected": "s"},
        "documents": {"text": "r"},
    }[kind]
    path = write(tmp_path / "rows.jsonl", good, row, good)
    found = read(path, kind)
    assert len(found.records) == 2
    assert found.report.skipped == {reason: 1}
    with pytest.raises(UserError, match=r"rows\.jsonl:2: ") as error:
        list(read_jsonl(path, kind))
    assert "\n" not in str(error.value)


def test_decisions_are_noted(tmp_path):
    rows = [
        {
            "prompt": "p",
            "chosen": "a",
            "rejected": "b",
            "score_chosen": 1,
            "score_rejected": score,
        }
        for score in (2, 0)
    ]
    found = read(write(tmp_path / "a.jsonl", *rows), "comparisons")
    assert [record["ranks"] for record in found.records] == [[1, 2], [1, 2]]
    assert found.report.noted == {"chosen answer with the lower score": 1}
    answers = [{"response": text, "score": "N/A"} for text in "ab"]
    answers += [{"response": text, "score": score} for text, score in ("c1", "d2")]
    row = {"prompt": "p", "completions": answers}
    found = read(write(tmp_path / "a.jsonl", row), "comparisons")
    assert [record["responses"] for record in found.records] == [["c", "d"]]
    assert found.report.noted == {"answer without text or rating, not ranked": 2}


def test_columns_of_other_names_are_mapped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question,good,bad,prompt\nq,g,b,unused\n")
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    (record,) = read(path, "comparisons", **columns).records
    assert short(record) == (("q",), ["g", "b"], [1, 2])
    (record,) = read(path, "demonstrations", prompt="question", response="good").records
    assert short(record) == (("q",), "g", None)


def test_csv_holds_turns_and_numbers_as_text(tmp_path):
    cells = [json.dumps(turns(A, text)).replace('"', '""') for text in "bc"]
    path = tmp_path / "a.csv"
    path.write_text(
        "chosen,rejected,score_chosen,score_rejected\n"
        f'"{cells[0]}","{cells[1]}",4.0,4\n'
    )
    (record,) = read(path, "comparisons").records
    assert short(record) == ((A,), ["b", "c"], [1, 1])


UNKNOWN = {
    "question and answer": (
        {"question": "q", "answer": "a"},
        "demonstrations",
        r"--columns=prompt=question,response=answer \(columns found: question, answer",
    ),
    "winner and loser": (
        {"query": "q", "preferred": "a", "worse": "b"},
        "comparisons",
        r"--columns=prompt=query,chosen=preferred,rejected=worse \(columns found: qu",
    ),
    "content": ({"content": "q"}, "documents", "--columns=text=content"),
    "nothing alike": ({"a": 1, "b": 2}, "prompts", "--columns=prompt=COLUMN .*: a, b"),
    "one answer": ({"prompt": "q", "answer": "a"}, "demonstrations", "response=answer"),
    "dialogue": (GOOD, "comparisons", "with 'messages' makes no comparisons"),
    "preference": (
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        "demonstrations",
        "--columns=response=chosen",
    ),
    "odd role": (
        {"messages": [{"role": "narrator", "content": "a"}]},
        "demonstrations",
        "of the role 'narrator'",
    ),
    "text for a score": (
        {"prompt": "p", "responses": ["a", "b"], "scores": ["high", "low"]},
        "comparisons",
        r"'scores\[0\]' must be a number, found 'high'",
    ),
    "too few scores": (
        {"prompt": "p", "responses": ["a", "b"], "scores": [1]},
        "comparisons",
        "'scores' must be a list of 2 numbers",
    ),
    "answers without scores": (
        {"prompt": "p", "completions": [{"response": "a", "model": "m"}]},
        "comparisons",
        r"answer 0 has no text or no score .* but response, model",
    ),
}


@pytest.mark.parametrize("form", UNKNOWN)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_unknown_forms_are_one_line_with_the_columns_and_a_mapping(
    form, suffix, tmp_path
):
    row, kind, problem = UNKNOWN[form]
    path = save(tmp_path / f"rows{suffix}", row)
    with pytest.raises(UserError, match=problem) as error:
        read(path, kind)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))


def test_a_mapping_that_does_not_fit_is_one_line(tmp_path):
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": "a"})
    with pytest.raises(UserError, match=r"no column 'q', which --columns=prompt=q nam"):
        read(path, "demonstrations", prompt="q")
    with pytest.raises(UserError, match="'promt' is not known here; give NAME=COLUMN"):
        read(path, "demonstrations", promt="question")
