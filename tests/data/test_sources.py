"""Sets of records: checked line by line, written whole or not at all, read back."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from instructgpt.data.records import FIELDS
from instructgpt.data.sources import build, build_jsonl, open_source, read_jsonl
from instructgpt.errors import UserError

COMPLETE = {
    "documents": {"id": "d", "text": "One.\nTwo ▁ \0 é", "kind": "story"},
    "demonstrations": {
        "id": "e",
        "history": ["q", "a"],
        "prompt": "p",
        "response": "r",
        "customer": "c",
        "source": "labeler",
        "category": "chat",
        "style": "plain",
    },
    "prompts": {
        "id": "f",
        "history": ["q", "a"],
        "prompt": "p",
        "customer": "c",
        "source": "customer",
        "category": "chat",
        "style": "plain",
        "distribution": "gpt3",
        "task": "{}",
        "reference": "r",
    },
    "comparisons": {
        "id": "g",
        "history": ["q", "a"],
        "prompt": "p",
        "responses": ["a", "", "c"],
        "ranks": [2, 1, 2],
        "labeler": "l",
        "customer": "c",
        "category": "chat",
    },
}
COMPLETE["rm_prompts"] = {**COMPLETE["prompts"], "id": "h", "source": "labeler"}
COMPLETE["gpt_prompts"] = {**COMPLETE["prompts"], "id": "i"}
PROMPTS = [{**COMPLETE["prompts"], "id": str(i)} for i in range(50)]


def write_lines(path, *records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("kind", FIELDS)
def test_every_kind_comes_back_as_it_was_given(kind, tmp_path):
    record = COMPLETE[kind]
    build(kind, "mine", tmp_path, {"train": lambda: [record], "test": lambda: [record]})
    source = open_source(kind, "mine", tmp_path, "test")
    assert list(source) == [record]
    assert {type(value) for value in source[0].values()} <= {str, list}
    assert "tensorflow" not in sys.modules


def test_random_access_keeps_the_order(tmp_path):
    build("prompts", "mine", tmp_path, {"train": lambda: iter(PROMPTS)})
    source = open_source("prompts", "mine", tmp_path, "train")
    assert len(source) == 50
    assert list(source) == PROMPTS
    assert source[-1] == PROMPTS[-1]
    assert source[3:5] == PROMPTS[3:5]
    assert source.__getitems__([7, 2]) == [PROMPTS[7], PROMPTS[2]]
    with pytest.raises(IndexError):
        source[50]


def test_a_set_is_built_once_and_says_nothing(tmp_path, capfd):
    build("prompts", "mine", tmp_path, {"train": lambda: PROMPTS})

    def never():
        raise AssertionError("built again")

    build("prompts", "mine", tmp_path, {"train": never})
    assert capfd.readouterr().out == ""
    build("prompts", "other", tmp_path, {"train": lambda: PROMPTS[:1]})
    assert len(open_source("prompts", "mine", tmp_path, "train")) == 50
    assert len(open_source("prompts", "other", tmp_path, "train")) == 1
    with pytest.raises(UserError, match=r"holds the splits \['train'\]"):
        build("prompts", "mine", tmp_path, {"train": never, "valid": never})


def test_an_error_while_building_leaves_no_set(tmp_path):
    def breaks_off():
        yield from PROMPTS
        raise ConnectionError("gone")

    splits = {"train": lambda: PROMPTS, "valid": breaks_off}
    with pytest.raises(ConnectionError, match="gone"):
        build("prompts", "mine", tmp_path, splits)
    with pytest.raises(UserError, match="no set mine/prompts"):
        open_source("prompts", "mine", tmp_path, "train")
    build("prompts", "mine", tmp_path, {**splits, "valid": lambda: PROMPTS})
    assert len(open_source("prompts", "mine", tmp_path, "valid")) == 50


def test_a_killed_build_leaves_no_set(tmp_path):
    program = """
import sys, time
from instructgpt.data.sources import build
def records():
    yield {"prompt": "p"}
    open(sys.argv[1] + "/started", "w").close()
    time.sleep(60)
build("prompts", "mine", sys.argv[1], {"train": lambda: [{"prompt": "p"}],
                                       "valid": records})
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="no set mine/prompts"):
        open_source("prompts", "mine", tmp_path, "train")
    build("prompts", "mine", tmp_path, {"train": lambda: PROMPTS})
    assert len(open_source("prompts", "mine", tmp_path, "train")) == 50


def test_bad_generated_records_are_named(tmp_path):
    def split(*records):
        return {"train": lambda: records}

    with pytest.raises(UserError, match="split train, record 1: field 'prompt' is mis"):
        build("prompts", "mine", tmp_path, split({"prompt": "p"}, {"id": "1"}))
    with pytest.raises(UserError, match="split train: no records"):
        build("prompts", "mine", tmp_path, split())
    with pytest.raises(UserError, match="no kind of record 'prompt'"):
        build("prompt", "mine", tmp_path, split())
    with pytest.raises(UserError, match=r"set name '\.\./mine'"):
        build("prompts", "../mine", tmp_path, split())


def test_missing_sets_and_splits_are_named(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: no set mine/prompts; write it"):
        open_source("prompts", "mine", tmp_path, "train")
    build("prompts", "mine", tmp_path, {"train": lambda: PROMPTS})
    with pytest.raises(UserError, match=r"no split 'test', only \['train'\]"):
        open_source("prompts", "mine", tmp_path, "test")


@pytest.mark.parametrize("size", [None, 0, 1 << 15, 1 << 16, (1 << 17) - 1])
def test_damaged_files_are_noticed_when_opened(size, tmp_path):
    build("prompts", "mine", tmp_path, {"train": lambda: PROMPTS})
    (file,) = open_source("prompts", "mine", tmp_path, "train").files
    contents = file.read_bytes()
    assert len(contents) == 1 << 17
    file.unlink()
    if size is not None:
        file.write_bytes(contents[:size])
    with pytest.raises(UserError, match=r"array_record-00000-of-00001: damaged \(.+\)"):
        open_source("prompts", "mine", tmp_path, "train")


def test_jsonl_gets_defaults_and_loses_unknown_fields(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '\ufeff{"prompt": "p", "response": "r", "extra": 1, "style": null}\n'
        "\n"
        '{"prompt": "é\\n", "response": "\\ud83d\\ude00", "id": "x"}'
    )
    first, second = read_jsonl(path, "demonstrations")
    assert first == {
        "id": "mine:1",
        "history": [],
        "prompt": "p",
        "response": "r",
        "customer": "",
        "source": "",
        "category": "",
        "style": "",
    }
    assert (second["prompt"], second["response"]) == ("é\n", "\U0001f600")
    assert second["id"] == "x"


GOOD = '{"prompt": "p", "responses": ["a", "b"], "ranks": [1, 1]}\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "p", "respon', "not valid JSON .*ends in the middle.*copy the f"),
        ('{"prompt": }\n', r"not valid JSON \(Expecting value, column 12\); correct"),
        (b'{"prompt": "\xff"}\n', "not UTF-8"),
        ("[1]\n", "expected an object with the fields id, history, .*found list"),
        ('{"responses": ["a", "b"], "ranks": [1, 2]}\n', "'prompt' is missing; add it"),
        (GOOD.replace('"p"', "3"), "'prompt' must be text, found 3"),
        (GOOD.replace('"p"', '"\\ud800"'), "'prompt' must be text"),
        (GOOD.replace('"p"', '" "'), "empty prompt"),
        (GOOD.replace('"a"', '""'), "empty responses"),
        (GOOD.replace('["a", "b"]', '"ab"'), "'responses' must be a list of texts"),
        (GOOD.replace('"a"', "1"), "'responses' must be a list of texts"),
        (GOOD.replace("[1, 1]", "[1]"), "2 responses but 1 ranks"),
        (GOOD.replace("[1, 1]", "[0, 1]"), r"ranks \[0, 1\] are no ranking; number"),
        (GOOD.replace("[1, 1]", "[1, 3]"), "are no ranking"),
        (GOOD.replace("[1, 1]", "[2, 2]"), "are no ranking"),
        (GOOD.replace("[1, 1]", "[1, 2.0]"), "'ranks' must be a list of whole numbers"),
        (GOOD.replace("[1, 1]", "[true, 1]"), "'ranks' must be a list of whole"),
        (GOOD.replace("[1, 1]", '["1", 1]'), "'ranks' must be a list of whole"),
        (GOOD.replace("[1, 1]", "[1, 99999999999]"), "are no ranking"),
        (GOOD.replace("{", '{"history": ["hi"], '), "1 earlier turns in 'history'"),
        (GOOD.replace("{", '{"history": ["hi", ""], '), "empty history"),
        ('{"prompt": "p", "responses": ["a"], "ranks": [1]}\n', "needs two or more"),
    ],
)
def test_bad_lines_are_named(line, problem, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(GOOD.encode() + (line if type(line) is bytes else line.encode()))
    lines = read_jsonl(path, "comparisons")
    assert next(lines)["ranks"] == [1, 1]
    with pytest.raises(UserError, match=rf"mine\.jsonl:2: .*{problem}"):
        next(lines)


@pytest.mark.parametrize("ranks", [[1, 1, 1], [2, 1, 2], [1, 1, 3], [3, 2, 1]])
def test_rankings_with_ties_pass_dense_or_with_gaps_after_ties(ranks, tmp_path):
    record = {"prompt": "p", "responses": ["a", "b", "c"], "ranks": ranks}
    path = write_lines(tmp_path / "a.jsonl", record)
    assert next(read_jsonl(path, "comparisons"))["ranks"] == ranks


def test_empty_texts_of_every_kind_are_named(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p", "response": "\n "})
    with pytest.raises(UserError, match=r"a\.jsonl:1: empty response"):
        list(read_jsonl(path, "demonstrations"))
    path = write_lines(tmp_path / "b.jsonl", {"text": ""})
    with pytest.raises(UserError, match=r"b\.jsonl:1: empty text"):
        list(read_jsonl(path, "documents"))


def test_files_without_records_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jsonl: cannot read the file"):
        next(read_jsonl(tmp_path / "gone.jsonl", "prompts"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.jsonl: no records"):
        list(read_jsonl(tmp_path / "empty.jsonl", "prompts"))


def test_jsonl_set_follows_its_files(tmp_path):
    files = {"train": tmp_path / "a.jsonl", "valid": tmp_path / "b.jsonl"}
    for path in files.values():
        write_lines(path, {"prompt": "old"})
    old = build_jsonl("prompts", "mine", tmp_path, files)
    assert build_jsonl("prompts", "mine", tmp_path, files) == old
    write_lines(files["train"], {"prompt": "new"}, {"prompt": "newer"})
    new = build_jsonl("prompts", "mine", tmp_path, files)
    texts = [
        record["prompt"] for record in open_source("prompts", new, tmp_path, "train")
    ]
    assert texts == ["new", "newer"]
    assert open_source("prompts", old, tmp_path, "train")[0]["prompt"] == "old"
    with pytest.raises(UserError, match="cannot read the file"):
        build_jsonl("prompts", "mine", tmp_path, {"train": tmp_path / "gone"})


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (0, "0"), (-12, "-12"), (10**30, "1" + "0" * 30)]
)
def test_whole_numbers_name_as_well_as_their_digits(kind, number, text, tmp_path):
    names = {"id", "customer", "labeler", "source", "category", "style", "kind"}
    names &= COMPLETE[kind].keys()
    responses = ["a", "b", "c"] if kind == "comparisons" else None
    record = {**COMPLETE[kind], "responses": responses} | dict.fromkeys(names, number)
    (read,) = read_jsonl(write_lines(tmp_path / "a.jsonl", record), kind)
    assert {name: read[name] for name in names} == dict.fromkeys(names, text)


@pytest.mark.parametrize("value", [7.0, True, [7], {"id": 7}])
def test_other_values_do_not_name(value, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p", "id": value})
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'id' must be text"):
        list(read_jsonl(path, "prompts"))
    path = write_lines(tmp_path / "a.jsonl", {"prompt": 7})
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'prompt' must be text"):
        list(read_jsonl(path, "prompts"))


NAMES = [
    *("my data", "データ", "dünn", "a[1]", "{a,b}", "a+b#c", ".hidden", "-dash", "*?"),
    *("..", "", "x" * 255, "a@b%20", "it's", "\udcff"),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder_makes_a_set(name, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p"})
    found = build_jsonl("prompts", name, tmp_path, {"train": path})
    assert build_jsonl("prompts", name, tmp_path, {"train": path}) == found
    assert open_source("prompts", found, tmp_path, "train")[0]["prompt"] == "p"


def test_names_that_become_alike_stay_two_sets(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p"})
    names = ["my data", "my_data", "my+data", "my  data"]
    found = {build_jsonl("prompts", name, tmp_path, {"train": path}) for name in names}
    assert len(found) == len(names)


@pytest.mark.parametrize("name", ["a b", "[x]", "データ", "*", "a@2"])
def test_sets_lie_in_a_folder_of_any_name(name, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p"})
    data_dir = tmp_path / name
    found = build_jsonl("prompts", "mine", data_dir, {"train": path, "valid": path})
    for split in ("train", "valid"):
        assert len(open_source("prompts", found, data_dir, split)) == 1


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "records"])
@pytest.mark.parametrize("change", ["flip", "cut", "gone"])
def test_a_damaged_set_is_named(tmp_path, name, change):
    build("prompts", "mine", tmp_path, {"train": lambda: PROMPTS})
    # As in a process that opens the set for the first time.
    (directory,) = (tmp_path / "mine").glob("prompts/*")
    moved = tmp_path / "moved" / "mine" / "prompts" / directory.name
    moved.parent.mkdir(parents=True)
    directory.rename(moved)
    file = next(moved.glob("*array_record*")) if name == "records" else moved / name
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(
        whole[:half]
        if change == "cut"
        else whole[:half] + bytes([whole[half] ^ 4]) + whole[half + 1 :]
    )
    if change == "gone":
        file.unlink()
    says = (
        "no set mine/prompts"
        if not (moved / "dataset_info.json").exists()
        else (f"{file.name}: damaged")
    )
    with pytest.raises(UserError, match=says):
        open_source("prompts", "mine", tmp_path / "moved", "train")
