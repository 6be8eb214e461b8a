"""The command: files in, a whole folder out or none, and every planted fault found."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from instructgpt.curate import main
from instructgpt.data.curation import Rules, curate_files, files
from instructgpt.data.sources import build_jsonl, open_source
from instructgpt.errors import UserError
from instructgpt.tokenizer import train_tokenizer
from tests.data.planted import BLOCK, FILES, check_planted, write_planted

PROMPTS = [
    {"id": "1", "prompt": "Tell me a story.", "customer": "x", "category": "chat"},
    {"id": "2", "prompt": "Tell me  a story. ", "customer": "x"},
    {"id": "3", "prompt": "Tell me another.", "customer": "x", "history": ["a", "b"]},
    {"id": "4", "prompt": "Und auf Deutsch? é", "customer": "y", "unknown": 1},
    {"prompt": "Mail jo@example.com.", "customer": "z"},
    {"id": "6", "prompt": "x" * 50},
]


@pytest.fixture
def prompts(tmp_path):
    return write(tmp_path / "raw.jsonl", PROMPTS)


def write(path: Path, records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_set_is_curated_and_ready_to_be_built(prompts, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    main([prompts, str(out), "--kind=prompts", "--split=1,0,0", "--max-chars=40"])
    assert names(out) == [
        "card.json",
        "card.md",
        "prompts.train.jsonl",
        "removed.jsonl",
    ]
    assert names(out.parent) == ["out"]
    kept = read(out / "prompts.train.jsonl")
    assert [record["id"] for record in kept] == ["1", "3", "4"]
    assert kept[2] == {
        "id": "4",
        "history": [],
        "prompt": "Und auf Deutsch? é",
        "customer": "y",
        "source": "",
        "category": "",
        "style": "",
        "task": "",
        "reference": "",
        "distribution": "",
    }
    line = {"split": "train", "reason": "duplicate", "detail": "of 1"}
    assert read(out / "removed.jsonl") == [
        {"id": "2", "line": f"{prompts}:2", **line},
        {
            "id": "raw:5",
            "line": f"{prompts}:5",
            "split": "train",
            "reason": "pii",
            "detail": "email",
        },
        {
            "id": "6",
            "line": f"{prompts}:6",
            "split": "train",
            "reason": "length",
            "detail": "50 characters, at most 40",
        },
    ]
    card = json.loads((out / "card.json").read_text())
    assert card["sizes"] == {"customer": {"train": 3}}
    assert card["customers"]["train"] == {"customers": 2, "mean": 1.5, "max": 2}
    assert card["prompts"]["train"]["max"] == len("a\nb\nTell me another.")
    assert card["removed"]["duplicate"] == 1
    assert card["rules"]["max_chars"] == 40
    markdown = (out / "card.md").read_text()
    assert markdown.startswith("# out: prompts\n")
    assert markdown.endswith("\nRemoved: length 1, pii 1, duplicate 1.\n")
    assert build_jsonl("prompts", "mine", tmp_path, {"train": out / kept_name(out)})

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["kept,", "train", "3", "50.0%"]
    assert re.match(
        r"removed, duplicate +1 +16\.7%  first 200 characters as", printed[3]
    )
    assert re.match(r"6 lines in \d+\.\d s \([\d,]+ a second\)$", printed[-1])


def kept_name(out: Path) -> str:
    (name,) = [name for name in names(out) if name.startswith("prompts.")]
    return name


def test_what_was_written_reads_back_through_the_sources(prompts, tmp_path):
    out = tmp_path / "out"
    curate_files([prompts], out, kind="prompts", rules=Rules(fractions=(0, 0, 1.0)))
    name = build_jsonl(
        "prompts", "mine", tmp_path, {"test": out / "prompts.test.jsonl"}
    )
    rows = open_source("prompts", name, tmp_path, "test")
    assert list(rows) == read(out / "prompts.test.jsonl")
    assert len(rows) == 5  # personal data may stay in a test split


def test_the_same_input_gives_the_same_files(prompts, tmp_path):
    rules = Rules(fractions=(0.4, 0.3, 0.3))
    for name in ("a", "b"):
        curate_files([prompts, prompts], tmp_path / name, kind="prompts", rules=rules)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        first, second = ((tmp_path / d / name).read_text() for d in "ab")
        assert first.replace("# a:", "# b:") == second
    assert len(read(tmp_path / "a" / "removed.jsonl")) >= len(PROMPTS)


def test_demonstrations_with_instructions_and_lengths_in_tokens(tmp_path):
    raw = [
        {"prompt": "Say one.", "response": "one"},
        {"instruction": "Say the next.", "pairs": [["one", "two"], ["two", "three"]]},
    ]
    path = write(tmp_path / "raw.jsonl", raw)
    tokenizer = train_tokenizer(
        ["Say one two three next."], tmp_path / "t", vocab_size=300
    )
    result = curate_files(
        [path],
        tmp_path / "out",
        kind="demonstrations",
        rules=Rules(fractions=(1.0, 0, 0)),
        tokenizer=tokenizer,
    )
    kept = read(tmp_path / "out" / "demonstrations.train.jsonl")
    assert [record["id"] for record in kept] == ["raw:1", "raw:2/0", "raw:2/1"]
    assert (result.lines, result.kept["train"]) == (2, 3)
    assert result.card.measure == "tokens"
    lengths = [len(tokenizer.encode(record["prompt"])) for record in kept]
    assert result.card.prompts["train"].max == max(lengths)
    assert result.card.prompts["train"].mean == pytest.approx(sum(lengths) / 3)
    responses = [len(tokenizer.encode(record["response"])) for record in kept]
    assert result.card.responses["train"].mean == pytest.approx(sum(responses) / 3)
    limits = ["--kind=demonstrations", f"--tokenizer={tmp_path / 't'}"]
    main([path, str(tmp_path / "b"), *limits, f"--max-tokens={min(lengths)}"])
    assert len(read(tmp_path / "b" / "removed.jsonl")) == 2


def test_every_planted_fault_is_found_and_nothing_else(tmp_path):
    inputs = write_planted(tmp_path, BLOCK)
    run(*inputs, tmp_path / "a")
    counts = check_planted(tmp_path / "a", BLOCK, given_splits=False)
    assert counts.keys() == {"duplicate", "cap", "pii"}
    assert (counts["duplicate"], counts["cap"]) == (399, 200)
    assert 200 < counts["pii"] < 400  # of 400, those in train
    splits = f"--given-splits={','.join(FILES)}"
    printed = run(*inputs, tmp_path / "b", splits, "--cross-split=drop")
    counts = check_planted(tmp_path / "b", BLOCK, given_splits=True)
    assert counts == {"duplicate": 399, "cap": 200, "pii": 200, "cross_split": 100}
    assert read(tmp_path / "b" / "moved.jsonl") == []
    assert re.search(r"^removed, cross_split +100 ", printed, re.MULTILINE)


def run(*arguments) -> str:
    """The command in a process of its own, where no type checker slows it down."""
    command = [sys.executable, "-m", "instructgpt.curate", "--kind=prompts"]
    command += map(str, arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_customers_in_two_given_splits_are_moved_and_listed(tmp_path, capsys):
    test = write(tmp_path / "test.jsonl", [{"id": "1", "prompt": "a", "customer": "x"}])
    more = [{"id": "2", "prompt": "b jo@example.com", "customer": "x"}]
    train = write(tmp_path / "train.jsonl", [*more, {"id": "3", "prompt": "c"}])
    out = tmp_path / "out"
    main([test, train, str(out), "--kind=prompts", "--given-splits=test,train"])
    assert [r["id"] for r in read(out / "prompts.test.jsonl")] == ["1", "2"]
    assert [r["id"] for r in read(out / "prompts.train.jsonl")] == ["3"]
    assert read(out / "moved.jsonl") == [
        {"id": "2", "line": f"{train}:1", "from": "train", "to": "test"}
    ]
    assert "moved to the split of their customer: 1\n" in capsys.readouterr().out


def test_an_empty_split_is_told(prompts, tmp_path, capsys):
    main([prompts, str(tmp_path / "a"), "--kind=prompts", "--split=0,0.5,0.5"])
    assert "no " not in capsys.readouterr().out
    path = write(tmp_path / "one.jsonl", [{"prompt": "Say one.", "customer": 3}])
    main([path, str(tmp_path / "b"), "--kind=prompts"])
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("no ")]
    assert len(told) == 2
    assert all("give it a larger share by --split, another --seed" in t for t in told)
    twice = [path, path, str(tmp_path / "c"), "--given-splits=train,valid"]
    main([*twice, "--kind=prompts"])
    out = capsys.readouterr().out
    assert "no valid prompts: nothing of this split's file was kept" in out
    assert "no test" not in out


def test_ids_and_customers_that_are_numbers_are_their_digits(tmp_path):
    rows = [{"id": 7, "prompt": "Say one.", "customer": 17}]
    rows.append({"id": "8", "prompt": "Say two.", "customer": "17"})
    path = write(tmp_path / "raw.jsonl", rows)
    main([path, str(tmp_path / "out"), "--kind=prompts", "--cap=1", "--split=1,0,0"])
    (kept,) = read(tmp_path / "out/prompts.train.jsonl")
    assert (kept["id"], kept["customer"]) == ("7", "17")
    (removed,) = read(tmp_path / "out/removed.jsonl")
    assert (removed["id"], removed["reason"]) == ("8", "cap")
    shots = {"instruction": "Add.", "pairs": [["1 1", "2"], ["1 2", "3"]]}
    path = write(tmp_path / "shots.jsonl", [{**shots, "id": 5, "customer": 0}])
    main([path, str(tmp_path / "shots"), "--kind=demonstrations", "--split=1,0,0"])
    kept = read(tmp_path / "shots/demonstrations.train.jsonl")
    assert [record["id"] for record in kept] == ["5/0", "5/1"]
    assert {(record["customer"], record["source"]) for record in kept} == {
        ("0", "customer")
    }


def test_languages_are_filtered_and_put_on_the_card(prompts, tmp_path):
    pytest.importorskip("py3langid")
    out = tmp_path / "out"
    english = "Please write me a long story about the old shepherd and his dog."
    german = "Schreibe mir bitte eine lange Geschichte über den alten Hirten."
    raw = write(tmp_path / "b.jsonl", [{"prompt": english}, {"prompt": german}])
    main([raw, str(out), "--kind=prompts", "--languages=en", "--language-sample=10"])
    (removed,) = read(out / "removed.jsonl")
    assert (removed["reason"], removed["detail"]) == ("language", "de")
    card = json.loads((out / "card.json").read_text())
    assert (card["languages"], card["language_sample"]) == ({"en": 1.0}, 1)


def test_a_missing_language_package_is_named(prompts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(SystemExit, match="run pip install py3langid"):
        main([prompts, str(tmp_path / "out"), "--kind=prompts", "--languages=en"])


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--cap=0"], "error: cap=0: give a number"),
        (["--split=0.5,0.5"], "error: fractions="),
        (["--max-tokens=5"], "error: a limit in tokens needs a tokenizer"),
        (["--given-splits=train,test"], "error: 2 given splits but 1 input files"),
        (["--given-splits=dev"], "error: given splits dev: choose from train, valid"),
        (["--language-sample=-1"], "error: language_sample=-1: give 0 or more"),
        (["--max-chars=1"], r"raw\.jsonl: nothing was kept of 6 lines \(length 6\)"),
        (["--tokenizer=gone"], "error: gone: cannot read the file"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(flags, problem, prompts, tmp_path):
    before = names(tmp_path)
    with pytest.raises(SystemExit, match=problem) as error:
        main([prompts, str(tmp_path / "out"), "--kind=prompts", *flags])
    assert "\n" not in str(error.value)
    assert names(tmp_path) == before


def test_fractions_that_are_no_numbers_are_named(prompts, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([prompts, str(tmp_path / "out"), "--kind=prompts", "--split=most,rest"])
    assert "--split: 'most,rest': give three numbers" in capsys.readouterr().err


def test_a_bad_line_is_named_and_leaves_nothing(tmp_path):
    raw = write(tmp_path / "raw.jsonl", [*PROMPTS, {"prompt": 3}])
    with pytest.raises(UserError, match=r"raw\.jsonl:7: field 'prompt' must be text"):
        curate_files([raw], tmp_path / "out", kind="prompts", rules=Rules())
    assert names(tmp_path) == ["raw.jsonl"]


def test_a_folder_in_use_is_refused_and_an_empty_one_is_not(prompts, tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    curate_files([prompts], used, kind="prompts", rules=Rules())
    before = {name: (used / name).read_text() for name in names(used)}
    with pytest.raises(UserError, match=r"used: is there already and not empty; del"):
        curate_files([prompts], used, kind="prompts", rules=Rules())
    with pytest.raises(UserError, match=r"raw\.jsonl: is there already"):
        curate_files([prompts], prompts, kind="prompts", rules=Rules())
    assert {name: (used / name).read_text() for name in names(used)} == before


def test_a_missing_file_is_named_before_others_are_read(tmp_path):
    raw = write(tmp_path / "raw.jsonl", [{"prompt": 3}])
    with pytest.raises(UserError, match=r"gone\.jsonl: there is no such file; correct"):
        inputs = [raw, tmp_path / "gone.jsonl"]
        curate_files(inputs, tmp_path / "out", kind="prompts", rules=Rules())


def test_an_unknown_kind_is_named(prompts, tmp_path):
    with pytest.raises(UserError, match="kind='documents': choose from prompts, dem"):
        curate_files([prompts], tmp_path / "out", kind="documents", rules=Rules())


def test_long_inputs_show_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROGRESS_SECONDS", 0.0)
    raw = write(tmp_path / "raw.jsonl", [{"prompt": str(i)} for i in range(2500)])
    lines: list[str] = []
    out = tmp_path / "out"
    curate_files([raw], out, kind="prompts", rules=Rules(), log=lines.append)
    assert len(lines) == 2
    assert re.match(rf"2,000 lines, [\d,]+ a second, at {raw}:2000$", lines[1])


def test_the_module_runs_without_jax(prompts, tmp_path):
    program = (
        "import sys; from instructgpt.curate import main; main(sys.argv[1:]);"
        "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, prompts, str(tmp_path / "out")]
    subprocess.run([*command, "--kind=prompts"], check=True, capture_output=True)
