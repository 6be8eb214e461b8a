"""Whole sets: their files in a folder, their splits, and sets built of them."""

import gzip
import json
from collections import Counter

import pytest

from instructgpt.data.origins.published import (
    SetFile,
    build_public,
    find_files,
    read_set,
)
from instructgpt.data.sources import open_source
from instructgpt.data.splits import Placed, fraction, group_of, split_groups
from instructgpt.errors import UserError
from tests.data.reader_files import write

SHARES = {"valid": 0.2, "test": 0.1}
NONE = frozenset()


def question(number: int) -> dict:
    return {"question": f"Question {number}?", "answer": f"#### {number}"}


def test_a_folder_has_files_under_their_published_names(tmp_path):
    write(tmp_path / "train.jsonl.gz", question(1))
    write(tmp_path / "test.jsonl", question(2))
    write(tmp_path / "other.jsonl", question(3))
    found = find_files("gsm8k", tmp_path)
    assert [(file.path.name, file.split) for file in found] == [
        ("train.jsonl.gz", "train"),
        ("test.jsonl", "test"),
    ]
    folder = tmp_path / "hh"
    (folder / "helpful-base").mkdir(parents=True)
    (folder / "helpful-base/train.jsonl.gz").touch()
    (folder / "harmless-base-test.jsonl.gz").touch()
    (file,) = find_files("hh_rlhf_helpful", folder)
    assert file.split == "train"
    (file,) = find_files("hh_rlhf_harmless", folder)
    assert file.split == "test"


def test_one_file_is_of_no_split(tmp_path):
    path = write(tmp_path / "test.jsonl", question(1))
    assert find_files("gsm8k", path) == [SetFile(path, None, str(path))]


def test_a_folder_of_texts_is_searched(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "notes.md").write_text("x")
    with gzip.open(tmp_path / "deep/a.txt.gz", "wt") as file:
        file.write("a")
    found = find_files("plain_text", tmp_path)
    assert [file.path.name for file in found] == ["b.txt", "a.txt.gz"]
    records = read_set("plain_text", found, kind="documents").records
    assert [record["text"] for record in records] == ["b", "a"]


def test_folders_without_the_sets_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none of gsm8k's files \(grade_.*/train\.js"):
        find_files("gsm8k", tmp_path)
    with pytest.raises(UserError, match=r"none of plain_text's files \(\*\.txt, "):
        find_files("plain_text", tmp_path)
    with pytest.raises(UserError, match=r"none of jsonl's files"):
        find_files("jsonl", tmp_path)


def test_a_limit_takes_rows_from_everywhere_and_the_same_each_time(tmp_path):
    path = write(tmp_path / "a.jsonl", *map(question, range(1000)))
    files = find_files("gsm8k", path)
    found = read_set("gsm8k", files, kind="demonstrations", max_rows=100)
    assert found == read_set("gsm8k", files, kind="demonstrations", max_rows=100)
    other = read_set("gsm8k", files, kind="demonstrations", max_rows=100, seed=1)
    assert found.records != other.records
    numbers = [int(record["id"].split(":")[1]) for record in found.records]
    assert len(found.placed) == len(numbers) == 100
    assert numbers == sorted(numbers)
    assert sum(number > 500 for number in numbers) > 30
    assert found.report.skipped == {"over the limit of rows": 900}


def test_files_that_give_nothing_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": ""})
    with pytest.raises(UserError, match=r"a\.jsonl give no prompts \(1 x empty resp"):
        read_set("gsm8k", find_files("gsm8k", path), kind="prompts")


def test_records_that_begin_alike_are_one_group():
    tree = {"history": ["Hello  there", "Hi"], "prompt": "How?"}
    assert group_of(tree) == group_of({"history": [], "prompt": "hello there\n"})
    assert group_of({"text": "A b"}) == "a b"
    assert group_of({"text": "A b"}) != group_of({"text": "Ab"})


def test_shares_of_groups():
    placed = [Placed(f"group {number}", None, NONE) for number in range(5000)]
    splits = split_groups(placed, shares=SHARES, seed=0)
    counts = Counter(splits.values())
    assert counts["valid"] == pytest.approx(1000, abs=120)
    assert counts["test"] == pytest.approx(500, abs=90)
    assert splits == split_groups(reversed(placed), shares=SHARES, seed=0)
    assert splits != split_groups(placed, shares=SHARES, seed=1)
    assert set(split_groups(placed, shares={}, seed=0).values()) == {"train"}


def test_a_share_that_grows_keeps_what_it_had():
    placed = [Placed(f"group {number}", None, NONE) for number in range(500)]
    small = split_groups(placed, shares={"test": 0.1}, seed=0)
    large = split_groups(placed, shares={"test": 0.2}, seed=0)
    assert all(large[group] == "test" for group in small if small[group] == "test")


def test_a_sets_own_splits_hold_and_the_others_are_cut_from_train():
    own = frozenset({"train", "test"})
    placed = [Placed(f"train {n}", "train", own) for n in range(1000)]
    placed += [Placed(f"test {n}", "test", own) for n in range(100)]
    splits = split_groups(placed, shares=SHARES, seed=0)
    by_origin = Counter((group.split()[0], split) for group, split in splits.items())
    assert by_origin.keys() == {
        ("train", "train"),
        ("train", "valid"),
        ("test", "test"),
    }
    assert by_origin["train", "valid"] == pytest.approx(200, abs=50)


@pytest.mark.parametrize("order", [1, -1])
def test_a_group_goes_to_the_most_held_out_split_asked_for(order):
    own = frozenset({"train", "valid", "test"})
    placed = [Placed("x", split, own) for split in ("train", "test", "valid")]
    assert split_groups(placed[::order], shares={}, seed=0) == {"x": "test"}
    assert split_groups(placed[::2][::order], shares={}, seed=0) == {"x": "valid"}


def test_fractions_are_spread():
    fractions = [fraction(str(number), 0) for number in range(1000)]
    assert min(fractions) < 0.01
    assert max(fractions) > 0.99
    assert sum(fractions) == pytest.approx(500, abs=40)


def test_a_public_set_is_built_once_by_contents_and_choices(tmp_path):
    path = write(tmp_path / "a.jsonl", *map(question, range(200)), question(7))
    lines: list[str] = []

    def build(**choices) -> str:
        return build_public(
            "gsm8k",
            tmp_path / "sets",
            path=path,
            log=lines.append,
            **{"kind": "demonstrations", "shares": SHARES, **choices},
        )

    name = build()
    assert name.startswith("gsm8k-")
    assert build() == name
    assert lines == [f"{name}/demonstrations: 201 records; left out nothing"]
    prompts: dict[str, set[str]] = {}
    for split in ("train", "valid", "test"):
        source = open_source("demonstrations", name, tmp_path / "sets", split)
        prompts[split] = {record["prompt"] for record in source}
    assert sum(map(len, prompts.values())) == 200  # so no prompt is in two splits
    assert len({name, build(seed=1), build(max_rows=50), build(shares={})}) == 4
    assert build(kind="prompts") == name
    assert lines[-1].endswith("200 records; left out repeated prompt: 1")
    write(path, question(1))
    assert build() != name


def test_a_set_with_files_for_splits_keeps_them(tmp_path):
    trees = {"train": question(1), "test": question(2)}
    for split, row in trees.items():
        write(tmp_path / f"{split}.jsonl", row)
    name = build_public(
        "gsm8k", tmp_path / "sets", kind="demonstrations", path=tmp_path, shares={}
    )
    source = open_source("demonstrations", name, tmp_path / "sets", "test")
    assert [record["prompt"] for record in source] == ["Question 2?"]


def test_a_split_that_a_row_names_goes_before_its_files(tmp_path):
    row = {
        "info": {"post": "Long."},
        "summaries": [{"text": "a"}, {"text": "b"}],
        "choice": 0,
        "worker": "w",
    }
    rows = [{**row, "split": split} for split in ("train", "valid1", "valid2")]
    write(tmp_path / "batch3.json", *rows)
    (file,) = find_files("summarize_feedback", tmp_path)
    found = read_set("summarize_feedback", [file], kind="comparisons")
    assert file.split == "train"
    assert [placed.split for placed in found.placed] == ["train", "valid", "test"]


def test_options_reach_the_reader_and_the_name(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\n")
    names = {
        per: build_public(
            "plain_text",
            tmp_path / "sets",
            kind="documents",
            path=path,
            options={"per": per},
            shares={},
        )
        for per in ("file", "block")
    }
    sources = {
        per: open_source("documents", name, tmp_path / "sets", "train")
        for per, name in names.items()
    }
    assert {per: len(source) for per, source in sources.items()} == {
        "file": 1,
        "block": 2,
    }


def test_an_interrupted_build_leaves_nothing_and_is_made_again(tmp_path):
    path = write(tmp_path / "a.jsonl", question(1))
    path.write_text(path.read_text() + '{"question": "cut o')

    def build() -> str:
        return build_public(
            "gsm8k", tmp_path / "sets", kind="demonstrations", path=path, shares={}
        )

    with pytest.raises(UserError, match=r"a\.jsonl:2: not valid JSON"):
        build()
    assert not list(tmp_path.glob("sets/*"))
    path.write_text(json.dumps(question(1)) + "\n")
    assert len(open_source("demonstrations", build(), tmp_path / "sets", "train")) == 1
