"""Files that are not text, or not the expected text, are named with a remedy."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from instructgpt.curate import main as curate
from instructgpt.data.curation import Rules, curate_files
from instructgpt.data.records import read_jsonl
from instructgpt.errors import UserError
from tests.data.reader_files import read

ROW = {"prompt": "Say é.", "response": "é"}
LINES = "".join(json.dumps(ROW, ensure_ascii=False) + "\n" for _ in range(3))
TEXT = " = Title = \n\nA book in which é is written, and 日本語.\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), file)
    return file.getvalue()


def arrow(stream: bool) -> bytes:
    table, file = pyarrow.Table.from_pylist([ROW]), io.BytesIO()
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(name, LINES)
    return file.getvalue()


def numpy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


FOREIGN = {
    "LFS pointer": (POINTER.encode(), "a Git LFS pointer.*git lfs pull"),
    "older pointer": (
        b"version https://hawser.github.com/spec/v1\n",
        "a Git LFS pointer",
    ),
    "Arrow": (arrow(stream=False), "an Arrow table; write its rows as JSON Lines"),
    "Arrow stream": (arrow(stream=True), "an Arrow stream; write its rows as JSON"),
    "gzip": (gzip.compress(LINES.encode()), r"gzip data; end its name in \.gz, or"),
    "xz": (lzma.compress(LINES.encode()), r"xz data; end its name in \.xz, or"),
    "bzip2": (bz2.compress(LINES.encode()), "bzip2 data; unpack it with bunzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x58", "zstd data; unpack it"),
    "Excel": (archive("xl/workbook.xml"), "an Excel or Word file; .*read_excel"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "an old Excel or Word file"),
    "Zip": (archive("rows.jsonl"), "a Zip archive; unpack it"),
    "pickle": (pickle.dumps([ROW]), "a Python pickle; load it"),
    "NumPy": (numpy(), "a NumPy array"),
    "SQLite": (b"SQLite format 3\0\x10", "an SQLite database"),
    "records of TensorFlow": (
        b"\x12\0\0\0\0\0\0\0\xa1\xb2\xc3\xd4text",
        "binary data; give a text file",
    ),
    "PDF": (b"%PDF-1.7\n%\xe2", "a PDF document"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_no_text_is_named(kind, suffix, tmp_path):
    """Whatever reads it; packed, too."""
    data, problem = FOREIGN[kind]
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    readers = [
        lambda: list(read_jsonl(path, "demonstrations")),
        lambda: read("jsonl", path, "prompts"),
        lambda: read("dolly", path, "demonstrations"),
        lambda: read("openassistant", path, "comparisons"),
        lambda: read("plain_text", path, "documents"),
        lambda: read("wikitext", path, "documents"),
        lambda: curate_files([path], tmp_path / "out", kind="prompts", rules=Rules()),
    ]
    for reader in readers:
        with pytest.raises(UserError, match=rf"rows\.jsonl{suffix}: is {problem}") as e:
            reader()
        assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [LINES, TEXT, f'{{"text": "{"日本語" * 999}"}}\n'],
    ids=["records", "book", "Japanese"],
)
@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32LE"),
        ("utf-32-be", "UTF-32BE"),
    ],
)
def test_wider_encodings_are_named(text, encoding, name, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    problem = rf"a\.txt: is {name} text; write it as UTF-8: iconv -f {name} -t UTF-8"
    for set_name in ("jsonl", "plain_text", "wikitext"):
        with pytest.raises(UserError, match=problem):
            read(set_name, path, "documents")


def test_text_under_the_name_of_an_archive_is_named(tmp_path):
    for suffix in (".gz", ".xz"):
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_text(LINES)
        with pytest.raises(UserError, match=rf"is plain text; take {suffix} off"):
            read("jsonl", path, "demonstrations")
        path.write_text(POINTER)
        with pytest.raises(UserError, match=r"is a Git LFS pointer"):
            read("jsonl", path, "demonstrations")
    path = tmp_path / "b.jsonl.gz"
    path.write_bytes(lzma.compress(LINES.encode()))
    with pytest.raises(UserError, match=r"is xz data; end its name in \.xz"):
        read("jsonl", path, "demonstrations")


def test_texts_that_only_resemble_another_kind_are_read(tmp_path):
    texts = {
        "marked": "\ufeffA mark of UTF-8.",
        "BZh": "BZh is how a file of bzip2 begins.",
        "GGUF": "GGUF is a format.",
        "ORC": "ORCs live in Mordor.",
        "version": "version 2 of the story",
        "wide": "日本語の本。\n" * 300,
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.txt"
        path.write_text(text, encoding="utf-8")
        (record,) = read("plain_text", path, "documents").records
        assert record["text"] == text.removeprefix("\ufeff").strip()


def test_a_character_across_the_looked_at_bytes_does_no_harm(tmp_path):
    for start in range(4):
        path = tmp_path / f"{start}.txt"
        path.write_text("x" * start + "é" * 2000, encoding="utf-8")
        assert len(read("plain_text", path, "documents").records) == 1


def test_books_lose_the_line_ends_of_windows_and_have_no_nul(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b" = Title = \r\n\r\nOne.\r\nTwo.\r\n")
    for name in ("plain_text", "wikitext"):
        (record,) = read(name, path, "documents").records
        assert record["text"].endswith("= Title = \n\nOne.\nTwo.")
    path.write_bytes(b"One.\nTwo\0.\n")
    with pytest.raises(UserError, match=r"a\.txt:2: a NUL character.*copy the file"):
        read("plain_text", path, "documents")


VALUES = {
    "lines": LINES,
    "list": json.dumps([ROW] * 3),
    "list over lines": json.dumps([ROW] * 3, indent=2),
    "pretty-printed": "".join(json.dumps(ROW, indent=2) + "\n" for _ in range(3)),
    "pretty-printed with a mark": "\ufeff" + f"{json.dumps(ROW, indent=2)}\n\n" * 3,
}


@pytest.mark.parametrize("form", VALUES)
def test_records_are_read_in_any_form_of_json(form, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(VALUES[form], encoding="utf-8")
    first, *rest = read_jsonl(path, "demonstrations")
    assert len(rest) == 2
    for record in (first, *rest):
        assert (record["prompt"], record["response"]) == ("Say é.", "é")
    assert first["id"] == ("rows:0" if "list" in form else "rows:1")
    out = tmp_path / "out"
    curate([str(path), str(out), "--kind=demonstrations", "--split=1,0,0"])
    assert len((out / "demonstrations.train.jsonl").read_text().splitlines()) == 1


NO_JSON = {
    "list cut off": ('[{"prompt": "a"},\n', r"rows\.jsonl:2: not valid JSON"),
    "list of texts": ('["a"]\n', r"rows\.jsonl\[0\]: expected an object .*found str"),
    "lists a line": ("[1]\n[2]\n", r"rows\.jsonl:1: expected an object .*found list"),
    "empty list": ("[]\n", r"rows\.jsonl: no records"),
    "first line cut": (f'{{"prompt": "a",\n{LINES}', r"rows\.jsonl:1: not valid JSON"),
    "pretty-printed and cut": (
        '{\n  "prompt": "a",\n',
        r"rows\.jsonl:3: not valid JSON .*copy the file again",
    ),
    "Python": ("{'prompt': 'a'}\n", r"rows\.jsonl:1: .*how Python writes a dict"),
    "Python's list": ("[{'prompt': 'a'}]\n", r"rows\.jsonl:1: .*how Python writes"),
    "CSV": ("prompt,response\na,b\n", r"jsonl:1: not JSON but a table .*end its name"),
    "TSV": ("prompt\tresponse\na\tb\n", r"rows\.jsonl:1: not JSON but a table"),
    "quoted CSV": ('"prompt","response"\n', r"rows\.jsonl:1: not JSON but a table"),
    "source": ("import json\n", r"rows\.jsonl:1: .*other text, which begins 'import"),
    "prose": ('Once upon a time,\n"x"', r"rows\.jsonl:1: not JSON but "),
    "page": ("<!doctype html>\n<p>", r"rows\.jsonl:1: not JSON but a web page"),
    "long number": (f'[{{"prompt": {"9" * 5000}}}]', r"rows\.jsonl:1: not valid JSON"),
    "deep list": ("[" * 100_000, r"rows\.jsonl:1: not valid JSON"),
    "deep line": ('{"a":' * 100_000 + "\n", r"rows\.jsonl:1: not valid JSON"),
}


@pytest.mark.parametrize("form", NO_JSON)
def test_what_is_no_json_lines_is_named(form, tmp_path):
    text, problem = NO_JSON[form]
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=problem) as error:
        list(read_jsonl(path, "demonstrations"))
    assert "\n" not in str(error.value)


def test_deep_values_are_shown_short(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"prompt": "a", "response": {"[" * 400 + "]" * 400}}}\n')
    with pytest.raises(UserError, match=r"must be text, found \[\[") as error:
        list(read_jsonl(path, "demonstrations"))
    assert len(str(error.value)) < len(str(path)) + 200
