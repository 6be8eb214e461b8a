"""The command that makes a folder of records, read back as a stage reads it."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from instructgpt.data.datasets import DataConfig, open_datasets
from instructgpt.data.records import read_jsonl
from instructgpt.prepare import Wanted, main, prepare
from tests.data.reader_files import write

REPO = Path(__file__).resolve().parents[1]
SIZES = {"documents": 100, "demonstrations": 600, "prompts": 300, "comparisons": 300}


@pytest.fixture
def files(tmp_path):
    """Two sets with the same questions, comparisons on them, and a text."""
    questions = [f"Question {number}?" for number in range(300)]
    write(tmp_path / "train.jsonl", *(gsm8k(q) for q in questions[:200]))
    write(tmp_path / "test.jsonl", *(gsm8k(q) for q in questions[200:]))
    alpaca = [{"instruction": f" {q.upper()}", "output": "yes"} for q in questions]
    write(tmp_path / "alpaca.json", [*alpaca, {"instruction": "x", "output": ""}])
    write(
        tmp_path / "pairs.jsonl",
        *(
            {
                "chosen": f"\n\nHuman: {q}\n\nAssistant: Hm?\n\nHuman: So?"
                "\n\nAssistant: good",
                "rejected": f"\n\nHuman: {q}\n\nAssistant: Hm?\n\nHuman: So?"
                "\n\nAssistant: bad",
            }
            for q in questions
        ),
    )
    (tmp_path / "book.txt").write_text("".join(f"Block {n}\n\n" for n in range(100)))
    return tmp_path


def gsm8k(question: str) -> dict:
    return {"question": question, "answer": "#### 1"}


def command(files: Path, *more: str) -> list[str]:
    made = any("vocab-size" in flag or "tokenizer" in flag for flag in more)
    return [
        str(files / "out"),
        f"--demonstrations=gsm8k:{files}",
        f"--demonstrations=alpaca:{files}/alpaca.json",
        f"--comparisons=hh_rlhf_helpful:{files}/pairs.jsonl",
        f"--prompts=alpaca:{files}/alpaca.json",
        f"--documents=plain_text:{files}/book.txt",
        "--option=plain_text.per=block",
        *([] if made else ["--tokenizer=none"]),
        *more,
    ]


def records(files: Path, kind: str) -> list[tuple[str, dict]]:
    """(split, record) of the folder."""
    return [
        (split, record)
        for split in ("train", "valid", "test")
        for record in read_jsonl(files / f"out/{kind}.{split}.jsonl", kind)
    ]


def test_the_folder_has_all_records(files):
    main(command(files))
    assert {path.name for path in (files / "out").iterdir()} == {
        *(f"{kind}.{s}.jsonl" for kind in SIZES for s in ("train", "valid", "test")),
        "sources.json",
    }
    assert {kind: len(records(files, kind)) for kind in SIZES} == SIZES


def test_a_stage_opens_the_folder(files):
    main(command(files, "--vocab-size=300"))
    config = DataConfig(
        dir=str(files / "sets"), max_prompt=64, max_response=64, jsonl=f"{files}/out"
    )
    sets = open_datasets(config, log=print)
    for kind in ("documents", "demonstrations", "prompts"):
        assert len(sets.source(kind, "train")) > 50
    assert sets.tokenizer.decode(sets.tokenizer.encode("Question 1?")) == "Question 1?"
    assert 261 < sets.tokenizer.vocab_size <= 300


@pytest.mark.parametrize(
    ("folder", "given", "start"),
    [
        ("data", ".", "data-"),
        ("data/sub", "..", "data-"),
        ("my data", ".", "my_data-"),
        ("[データ]", "", "_-"),
        ("-x", "-x", "x-"),
    ],
)
def test_a_stage_opens_a_folder_of_any_name(folder, given, start, files, monkeypatch):
    main(command(files, "--vocab-size=300"))
    data = files / folder.removesuffix("/sub")
    (files / "out").rename(data)
    (files / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(files if given == "-x" else files / folder)
    config = DataConfig(
        dir=str(files / "sets"),
        max_prompt=64,
        max_response=64,
        jsonl=given or str(data),
    )
    sets = open_datasets(config, log=print)
    assert len(sets.source("demonstrations", "train")) > 50
    assert sets.names["demonstrations"].startswith(start)


def test_no_prompt_is_in_two_splits_and_test_files_stay_test(files):
    main(command(files))
    splits: dict[str, set[str]] = {}
    for kind in ("demonstrations", "prompts", "comparisons"):
        for split, record in records(files, kind):
            first = [*record["history"], record["prompt"]][0]
            splits.setdefault(first.upper(), set()).add(split)
    assert len(splits) == 300
    assert all(len(found) == 1 for found in splits.values())
    for number in range(200, 300):
        assert splits[f"QUESTION {number}?"] == {"test"}
    kept = Counter(next(iter(found)) for found in splits.values())
    assert kept["train"] > 150
    assert kept["valid"] > 0


def test_ids_start_with_the_sets_name_and_sets_keep_their_order(files):
    main(command(files))
    ids = [r["id"] for split, r in records(files, "demonstrations") if split == "train"]
    names = [id_.split("/")[0] for id_ in ids]
    assert set(names) == {"gsm8k", "alpaca"}
    assert names == sorted(names, reverse=True)
    assert len(set(ids)) == len(ids)


def test_sources_say_where_everything_is_from(files):
    main(command(files, "--max-rows=250", "--seed=3", "--valid=0.1"))
    sources = json.loads((files / "out/sources.json").read_text())
    assert sources["seed"] == 3
    assert sources["max_rows"] == 250
    assert sources["shares"] == {"valid": 0.1, "test": 0.05}
    by_set = {(entry["set"], entry["kind"]): entry for entry in sources["sets"]}
    assert by_set["plain_text", "documents"]["options"] == {"per": "block"}
    path = files / "alpaca.json"
    assert by_set["alpaca", "demonstrations"] == {
        "set": "alpaca",
        "kind": "demonstrations",
        "from": "set",
        "licence": "your own file in the form of alpaca",
        "homepage": "",
        "revision": "",
        "options": {},
        "columns": {},
        "records": 250,
        "skipped": {"empty response": 1, "over the limit of rows": 50},
        "noted": {},
        "files": [
            {
                "origin": str(path),
                "split": None,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        ],
    }


def test_the_tables_show_rows_rankings_licences_and_what_is_left_out(files, capsys):
    rankings = [
        {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 1, 2]},
        {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]},
    ]
    mine = write(files / "mine.jsonl", *rankings)
    wanted = [
        Wanted("comparisons", "jsonl", str(mine)),
        Wanted("demonstrations", "alpaca", str(files / "alpaca.json")),
    ]
    prepare(files / "out", wanted, shares={"valid": 0.0, "test": 0.0})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "set kind split rows rows by K pairs tied pairs"
    assert "jsonl comparisons train 2 2:1 3:1 4 1" in lines
    assert "alpaca demonstrations train 300 – – –" in lines
    assert (
        "alpaca demonstrations (licence: your own file in the form of alpaca)" in lines
    )
    assert "left out 1 empty response" in lines


def prepared(tmp_path: Path, capsys, *rows: dict, kind="demonstrations", **shares):
    """What the command prints of one file of one's own records."""
    mine = write(tmp_path / "mine.jsonl", *rows)
    shares = {"valid": 0.05, "test": 0.05, **shares}
    prepare(tmp_path / "out", [Wanted(kind, "jsonl", str(mine))], shares=shares)
    return capsys.readouterr().out


@pytest.mark.parametrize("count", [3, 10, 12])
def test_an_empty_split_is_told_with_the_share_that_fills_it(count, tmp_path, capsys):
    rows = [{"prompt": f"Question {n}?", "response": "a"} for n in range(count)]
    out = prepared(tmp_path, capsys, *rows)
    assert not (tmp_path / "out/demonstrations.valid.jsonl").exists()
    told = re.search(
        rf"no valid demonstrations: none of the {count} .*; --valid=([\d.]+) gives", out
    )
    assert told and out.count("no valid") == 1
    shutil.rmtree(tmp_path / "out")
    out = prepared(tmp_path, capsys, *rows, valid=float(told[1]))
    assert (tmp_path / "out/demonstrations.valid.jsonl").exists()
    assert (tmp_path / "out/demonstrations.train.jsonl").exists()
    assert "no valid" not in out


def test_splits_that_were_not_asked_for_are_not_missed(tmp_path, capsys):
    rows = [{"prompt": f"Question {n}?", "response": "a"} for n in range(3)]
    assert "no " not in prepared(tmp_path, capsys, *rows, valid=0.0, test=0.0)


@pytest.mark.parametrize("kind", ["documents", "prompts"])
def test_too_few_records_for_any_share_are_told(kind, tmp_path, capsys):
    out = prepared(tmp_path, capsys, {"prompt": "q", "text": "q"}, kind=kind)
    assert f"no valid {kind}: none of the 1 different ones fell into this" in out
    assert "give more" in out
    rows = [{"prompt": "q", "text": "q"}]
    shutil.rmtree(tmp_path / "out")
    out = prepared(tmp_path, capsys, *rows, kind=kind, valid=0.99, test=0.0)
    # What there is to train on is not held out.
    assert (tmp_path / f"out/{kind}.train.jsonl").exists()
    assert f"no valid {kind}: none of the 1 different ones fell" in out
    assert "no train" not in out


def test_the_same_command_gives_the_same_folder(files):
    main(command(files))
    before = {p.name: p.read_bytes() for p in (files / "out").iterdir()}
    (files / "out").rename(files / "first")
    main(command(files))
    assert {p.name: p.read_bytes() for p in (files / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--prompts=jsonl:a", "--prompts=jsonl:a"], "--prompts=jsonl: is given twice"),
        (["--demonstrations=./qa.csv"], "qa.csv: cannot read the file"),
        (
            ["--prompts=gsm9k"],
            "no data set 'gsm9k'; .*or give a file",
        ),
        (["--prompts=hub"], "no data set 'hub'; known: "),
        (
            ["--prompts=alpaca:x", "--columns=prompt=q"],
            "alpaca is read in its",
        ),
        (["--prompts=x.csv", "--columns=prompt"], "--columns=prompt: give NAME=COLUMN"),
        (["--prompts=x.csv", "--columns=promt=q"], "'promt' is not known here; give"),
        (["--prompts=x.csv", "--option=file.a=b"], "--option=file: has no options"),
        (["--tokenizer=gone.json"], "--tokenizer=gone.json: no such file or folder"),
        (
            ["--tokenizer=none", "--vocab-size=300"],
            "--vocab-size=300 is of a",
        ),
        (["--vocab-size=100"], "vocab_size=100"),
        (["--prompts=nothing"], "no data set 'nothing'; known: jsonl"),
        (["--comparisons=gsm8k:x"], "x: cannot read|gsm8k: gives no comparisons"),
        (["--prompts=alpaca:gone.json"], "gone.json: cannot read the file"),
        (["--prompts=jsonl"], "give its file or folder, as jsonl:FILE"),
        (["--option=plain_text"], "--option=plain_text: give NAME.KEY=VALUE"),
        (["--option=dolly.a=b"], "--option=dolly: this set is not asked for"),
        (["--option=gsm8k.a=b"], "gsm8k: no option 'a'; it has none"),
        (["--valid=0.6", "--test=0.4"], "--valid and --test are"),
        (["--test=-0.1"], "--valid and --test are"),
        (["--max-rows=-1"], "--max-rows=-1; give 1 or more"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(more, problem, files):
    before = set(files.iterdir())
    with pytest.raises(SystemExit, match=problem) as exit_:
        main(command(files, *more))
    assert "\n" not in str(exit_.value)
    assert str(exit_.value).startswith("error: ")
    assert set(files.iterdir()) == before


def test_nothing_asked_for_is_a_mistake(tmp_path):
    with pytest.raises(SystemExit, match="nothing to prepare"):
        main([str(tmp_path / "out")])


def test_a_folder_that_holds_something_is_left_alone(files):
    out = files / "out"
    out.mkdir()
    main(command(files))  # an empty one is filled
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SystemExit, match=r"out: is there already and not empty; del"):
        main(command(files, "--seed=1"))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_error_while_writing_leaves_nothing(files, monkeypatch):
    before = set(files.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(SystemExit, match=r"out: cannot be written \(No space left on"):
        main(command(files))
    assert set(files.iterdir()) == before


def test_the_command_runs(files):
    done = subprocess.run(
        [sys.executable, "-m", "instructgpt.prepare", *command(files)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hh_rlhf_helpful  comparisons" in done.stdout
