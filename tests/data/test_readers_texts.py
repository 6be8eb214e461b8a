"""Demonstrations from instructions and tasks, documents from plain text."""

import pytest

from instructgpt.errors import UserError
from tests.data.reader_files import read, some, write


def test_alpaca_rows_are_instructions_with_an_optional_input(tmp_path):
    path = write(
        tmp_path / "a.json",
        [
            {"instruction": "Say hi. ", "input": "", "output": " Hi."},
            {"instruction": "Add.", "input": "1 2", "output": "3"},
            {"instruction": "Say nothing.", "output": " "},
            {"instruction": "", "input": " ", "output": "?"},
        ],
    )
    outcome = read("alpaca", path, "demonstrations")
    assert [some(r, "id", "prompt", "response") for r in outcome.records] == [
        {"id": "a:0", "prompt": "Say hi.", "response": "Hi."},
        {"id": "a:1", "prompt": "Add.\n\n1 2", "response": "3"},
    ]
    assert outcome.skipped == {"empty response": 1, "empty prompt": 1}


def test_dolly_rows_have_a_context_and_a_category(tmp_path):
    row = {
        "instruction": "Who?",
        "context": "Ada wrote.",
        "response": "Ada",
        "category": "closed_qa",
    }
    path = write(tmp_path / "d.jsonl", row, {**row, "response": ""})
    outcome = read("dolly", path, "demonstrations")
    assert [some(r, "prompt", "response", "category") for r in outcome.records] == [
        {"prompt": "Who?\n\nAda wrote.", "response": "Ada", "category": "closed_qa"}
    ]
    assert outcome.skipped == {"empty response": 1}


def test_self_instruct_rows_have_instances(tmp_path):
    instances = [{"input": "1", "output": "2"}, {"input": "3", "output": ""}]
    row = {"id": "seed_task_0", "instruction": "Add 1.", "instances": instances}
    path = write(tmp_path / "s.jsonl", row)
    outcome = read("self_instruct", path, "demonstrations")
    assert [some(r, "id", "prompt", "response") for r in outcome.records] == [
        {"id": "seed_task_0:0", "prompt": "Add 1.\n\n1", "response": "2"}
    ]
    assert outcome.skipped == {"empty response": 1}
    path = write(tmp_path / "bad.jsonl", {**row, "instances": [{"input": "1"}]})
    with pytest.raises(UserError, match=r"1 instances\[0\]: field 'output' is missing"):
        read("self_instruct", path, "demonstrations")


def test_p3_rows_lose_the_end_mark_and_keep_the_template(tmp_path):
    row = {"prompt": "Q\n", "completion": " A<|endoftext|>"}
    path = write(
        tmp_path / "ag_news.jsonl",
        {**row, "template": "imdb"},
        row,
        {**row, "completion": "<|endoftext|>"},
        {**row, "prompt": ""},
    )
    outcome = read("p3", path, "demonstrations")
    assert [some(r, "prompt", "response", "category") for r in outcome.records] == [
        {"prompt": "Q", "response": "A", "category": "imdb"},
        {"prompt": "Q", "response": "A", "category": "ag_news"},
    ]
    assert outcome.skipped == {"empty response": 1, "empty prompt": 1}


def test_gsm8k_answers_lose_the_calculators_notes(tmp_path):
    answer = "He has 48/2 = <<48/2=24>>24.\nSo 1<2.\n#### 24"
    path = write(
        tmp_path / "g.jsonl",
        {"question": "How many? ", "answer": answer},
        {"question": "None?", "answer": ""},
    )
    outcome = read("gsm8k", path, "demonstrations")
    assert [some(r, "prompt", "response") for r in outcome.records] == [
        {"prompt": "How many?", "response": "He has 48/2 = 24.\nSo 1<2.\n#### 24"}
    ]
    assert outcome.skipped == {"empty response": 1}


def test_scitldr_gives_each_summary_of_an_abstract(tmp_path):
    row = {"paper_id": "p", "source": ["One.", "Two. "], "target": ["Short.", "", "S."]}
    path = write(tmp_path / "s.jsonl", row)
    outcome = read("scitldr", path, "demonstrations")
    assert [some(r, "id", "prompt", "response") for r in outcome.records] == [
        {"id": "p:0", "prompt": "One. Two.\n\nTL;DR:", "response": "Short."},
        {"id": "p:2", "prompt": "One. Two.\n\nTL;DR:", "response": "S."},
    ]
    assert outcome.skipped == {"empty response": 1}
    path = write(tmp_path / "bad.jsonl", {**row, "source": "One."})
    with pytest.raises(UserError, match=r"bad\.jsonl:1: field 'source' must be a list"):
        read("scitldr", path, "demonstrations")


WIKITEXT = """ \n = First = \n \n One .\n \n = 0 + x = \n and\n \n = = Part = = \n \n x
 = 1 + y = \n and
 = 2 + z = \n
 = Second ( b = c ) = \n \n Two .
"""


def test_wikitext_is_cut_at_titles_but_not_at_sections_or_formulas(tmp_path):
    path = tmp_path / "w.txt"
    path.write_text(WIKITEXT)
    outcome = read("wikitext", path, "documents")
    first, second = outcome.records
    assert first["text"].startswith("= First = \n \n One .")
    assert first["text"].endswith("= 1 + y = \n and\n = 2 + z =")
    assert second["text"] == "= Second ( b = c ) = \n \n Two ."
    assert [first["id"], second["id"]] == ["w:2", "w:16"]
    assert outcome.skipped == {}
    path.write_text(" before\n" + WIKITEXT)
    assert read("wikitext", path, "documents").skipped == {
        "text before the first title": 1
    }
    path.write_text("= First =\n")
    with pytest.raises(UserError, match=r"w\.txt: no title .* or use plain_text"):
        read("wikitext", path, "documents")


def test_plain_text_is_a_document_a_file_or_a_block(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\ufeffTitle\n\n \n One\n two\n\n")
    whole = read("plain_text", path, "documents").records
    assert [some(r, "id", "text") for r in whole] == [
        {"id": "book:1", "text": "Title\n\n \n One\n two"}
    ]
    blocks = read("plain_text", path, "documents", per="block").records
    assert [some(r, "id", "text") for r in blocks] == [
        {"id": "book:1", "text": "Title"},
        {"id": "book:4", "text": "One\n two"},
    ]
    with pytest.raises(UserError, match="per='line'; choose 'file' or 'block'"):
        read("plain_text", path, "documents", per="line")


@pytest.mark.parametrize("per", ["file", "block"])
def test_empty_and_undecodable_texts(per, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\n \n")
    outcome = read("plain_text", path, "documents", per=per)
    assert (outcome.records, outcome.skipped) == ([], {"empty file": 1})
    path.write_bytes(b"one\ntw\xff\n")
    with pytest.raises(UserError, match=r"book\.txt:2: not UTF-8 .*save the file as"):
        read("plain_text", path, "documents", per=per)


def test_names_that_are_numbers_are_their_digits(tmp_path):
    row = {"paper_id": 12, "source": ["One."], "target": ["Short."]}
    (record,) = read("scitldr", write(tmp_path / "s.jsonl", row), "demonstrations")[0]
    assert record["id"] == "12:0"
    row = {"id": 3, "instruction": "Add 1.", "instances": [{"output": "2"}]}
    (record,) = read("self_instruct", write(tmp_path / "t.jsonl", row), "prompts")[0]
    assert record["id"] == "3:0"
    row = {"instruction": "Who?", "response": "Ada", "category": 5}
    (record,) = read("dolly", write(tmp_path / "d.jsonl", row), "demonstrations")[0]
    assert record["category"] == "5"
    row = {"prompt": "Q", "completion": "A", "template": 0}
    (record,) = read("p3", write(tmp_path / "p.jsonl", row), "demonstrations")[0]
    assert record["category"] == "0"


@pytest.mark.parametrize("id_", ["two\nlines", "\ud800", "x" * 1000])
def test_odd_ids_are_named_in_one_short_line(id_, tmp_path):
    row = {"id": id_, "instruction": "\ud800", "instances": [{"output": "2"}]}
    path = write(tmp_path / "t.jsonl", row)
    with pytest.raises(UserError, match=r"t\.jsonl, .*must be text") as error:
        read("self_instruct", path, "prompts")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < len(str(path)) + 200
