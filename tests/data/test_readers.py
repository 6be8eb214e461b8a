"""What all readers share: packed files, errors that name the place, options."""

import gzip
import json
import lzma

import pytest

from instructgpt.data.readers import SETS, Report, get_set, read_file
from instructgpt.errors import UserError
from tests.data.reader_files import read, write

ROW = {"instruction": "Add.", "input": "1 2", "output": "3"}
DEMONSTRATION = {
    "id": "a:1",
    "history": [],
    "prompt": "Add.\n\n1 2",
    "response": "3",
    "customer": "",
    "source": "",
    "category": "",
    "style": "",
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.xz"])
def test_files_are_unpacked_by_their_names(name, tmp_path):
    path = write(tmp_path / name, ROW)
    assert read("alpaca", path, "demonstrations").records == [DEMONSTRATION]


def test_one_own_files_are_unpacked_too(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", {"prompt": "p"})
    (record,) = read("jsonl", path, "prompts").records
    assert (record["id"], record["prompt"]) == ("a.jsonl:1", "p")


def test_a_list_reads_as_lines_do(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f"\ufeff [\n{json.dumps(ROW)},\n{json.dumps(ROW)}]\n")
    records = read("alpaca", path, "demonstrations").records
    assert records == [{**DEMONSTRATION, "id": f"a:{index}"} for index in (0, 1)]


BAD_LINES = {
    "not JSON": (
        b'{"instruction": }\n',
        r"a\.jsonl:2: not valid JSON \(.*, column 17\); corr",
    ),
    "cut off": (b'{"instruction": "x', r"a\.jsonl:2: .*ends in the middle.*copy the"),
    "not UTF-8": (b'{"instruction": "\xff"}\n', r"a\.jsonl:2: not UTF-8"),
    "no object": (b"[1]\n", r"a\.jsonl:2: expected an object, found list; give the"),
    "no field": (
        b'{"instruction": "x"}\n',
        r"a\.jsonl:2: field 'output' is missing; give the file as it was published",
    ),
    "null": (
        b'{"instruction": null, "output": "x"}\n',
        r"a\.jsonl:2: field 'instruction' is missing",
    ),
    "type": (
        b'{"instruction": ["x"], "output": "x"}\n',
        r"a\.jsonl:2: field 'instruction' must be text, found \['x'\]; give",
    ),
    "surrogate": (
        b'{"instruction": "\\ud800", "output": "x"}\n',
        r"a\.jsonl, a:2: field 'prompt' must be text",
    ),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_lines_are_named(case, tmp_path):
    line, problem = BAD_LINES[case]
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + line)
    found = read_file("alpaca", path, kind="demonstrations", report=Report())
    assert next(found).record == DEMONSTRATION
    with pytest.raises(UserError, match=problem):
        next(found)


BAD_LISTS = {
    "not JSON": (b'[\n{"a": 1},\n{"a" 1}]', r"a\.json:3: not valid JSON .*copy the"),
    "cut off": (b'[{"a": 1},\n', r"a\.json:2: not valid JSON"),
    "not UTF-8": (b'[{"a":\n"\xff"}]', r"a\.json:2: not UTF-8"),
    "no object": (b"[{}, 3]", r"a\.json\[0\]: field 'instruction' is missing"),
    "number": (b"[3]", r"a\.json\[0\]: expected an object, found int"),
    "empty": (b"[]", r"a\.json: no records"),
    "blank": (b"\n\n", r"a\.json: no records"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists_are_named(case, tmp_path):
    text, problem = BAD_LISTS[case]
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=problem):
        read("alpaca", path, "demonstrations")


@pytest.mark.parametrize("packer", [gzip, lzma])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_damaged_archives_are_named(packer, kept, tmp_path):
    rows = [{**ROW, "input": str(number**9)} for number in range(500)]
    packed = packer.compress("".join(json.dumps(r) + "\n" for r in rows).encode())
    path = tmp_path / ("a.jsonl.gz" if packer is gzip else "a.jsonl.xz")
    path.write_bytes(packed[: int(len(packed) * kept)] if kept else b"\1\2 no archive")
    with pytest.raises(UserError, match=r"a\.jsonl\..z:\d+: damaged or cut.*copy"):
        read("alpaca", path, "demonstrations")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jsonl: cannot read the file \(No such"):
        read("alpaca", tmp_path / "gone.jsonl", "demonstrations")


def test_prompts_follow_from_demonstrations_and_come_once(tmp_path):
    rows = [ROW, {**ROW, "output": "three"}, {**ROW, "input": "3 4"}]
    outcome = read("alpaca", write(tmp_path / "a.jsonl", *rows), "prompts")
    assert [record["prompt"] for record in outcome.records] == [
        "Add.\n\n1 2",
        "Add.\n\n3 4",
    ]
    assert "response" not in outcome.records[0]
    assert outcome.skipped == {"repeated prompt": 1}


def test_wrong_sets_kinds_and_options_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", ROW)
    with pytest.raises(UserError, match="no data set 'alpacca'; known: jsonl, plain"):
        read("alpacca", path, "demonstrations")
    with pytest.raises(UserError, match="no kind of record 'demos'"):
        read("alpaca", path, "demos")
    with pytest.raises(UserError, match="alpaca: gives no comparisons, only demonst"):
        read("alpaca", path, "comparisons")
    with pytest.raises(UserError, match="alpaca: no option 'lang'; it has none"):
        read("alpaca", path, "demonstrations", lang="en")
    with pytest.raises(UserError, match="no option 'language'; it has lang, replies"):
        read("openassistant", path, "comparisons", language="en")


def test_each_set_says_what_it_gives_and_where_it_is_from():
    assert SETS["openassistant"].kinds == ("demonstrations", "prompts", "comparisons")
    assert SETS["summarize_feedback"].kinds == ("prompts", "comparisons")
    assert SETS["wikitext"].kinds == ("documents",)
    for name in SETS:
        entry = get_set(name)
        assert entry.licence
        assert entry.homepage or not entry.files
        for split, files in entry.files.items():
            assert split in ("train", "valid", "test")
            assert all(file.url.startswith("https://") for file in files)
            assert all(len(file.sha256) in (0, 64) for file in files)
