"""Files of one's own as sources, and what the folder gets besides records."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from instructgpt.data.origins.given import resolve
from instructgpt.data.readers import SETS
from instructgpt.data.records import read_jsonl
from instructgpt.data.templates import PromptFormat
from instructgpt.prepare import main
from instructgpt.prepare.tokenizers import default_vocab_size
from instructgpt.tokenizer import load_tokenizer
from tests.data.reader_files import write


def qa(tmp_path: Path, count: int = 30) -> Path:
    path = tmp_path / "qa.csv"
    lines = [
        f'"What is {n}?","It is {n}, one more than {n - 1}."' for n in range(count)
    ]
    path.write_text("question,answer\n" + "\n".join(lines) + "\n")
    return path


def test_a_path_is_a_source_and_columns_go_to_the_name_before_them(tmp_path, capsys):
    path = qa(tmp_path)
    (tmp_path / "book.txt").write_text("Block 0\n\nBlock 1\n")
    pairs = write(
        tmp_path / "pairs.json", {"prompt": "p", "chosen": "a", "rejected": "b"}
    )
    main(
        [
            str(tmp_path / "out"),
            f"--comparisons={pairs}",
            f"--demonstrations={path}",
            "--columns=prompt=question,response=answer",
            f"--prompts={path}",
            "--columns=prompt=question",
            f"--documents={tmp_path / 'book.txt'}",
            "--valid=0",
            "--test=0",
        ]
    )
    shown = [record for _, record in read_all(tmp_path / "out", "demonstrations")]
    assert shown[3]["prompt"] == "What is 3?"
    assert shown[3]["response"] == "It is 3, one more than 2."
    assert shown[3]["id"] == "qa.csv/qa:5"
    assert len(read_all(tmp_path / "out", "prompts")) == 30
    ((_, ranked),) = read_all(tmp_path / "out", "comparisons")
    assert ranked["responses"] == ["a", "b"]
    ((_, text),) = read_all(tmp_path / "out", "documents")
    assert text["text"].startswith("Block 0")
    sources = json.loads((tmp_path / "out/sources.json").read_text())["sets"]
    by_kind = {entry["kind"]: entry for entry in sources}
    assert by_kind["demonstrations"]["columns"] == {
        "prompt": "question",
        "response": "answer",
    }
    assert by_kind["demonstrations"]["licence"] == "your own"
    assert "qa.csv demonstrations (licence: your own)" in capsys.readouterr().out


def read_all(folder: Path, kind: str) -> list[tuple[str, dict]]:
    return [
        (path.name.split(".")[1], record)
        for path in sorted(folder.glob(f"{kind}.*"))
        for record in read_jsonl(path, kind)
    ]


def test_files_of_one_name_have_ids_of_their_own(tmp_path):
    flags = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder / "r.jsonl", {"prompt": folder})
        flags.append(f"--prompts={path}")
    main([str(tmp_path / "out"), *flags, "--valid=0", "--test=0"])
    found = [record["id"] for _, record in read_all(tmp_path / "out", "prompts")]
    assert found == [f"{tmp_path}/{folder}/r.jsonl/r:1" for folder in "ab"]


def test_a_folder_of_tables_keeps_its_splits(tmp_path):
    folder = tmp_path / "downloaded"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 40), ("test", 3)):
        rows = [{"prompt": f"{split} {n}", "completion": "c"} for n in range(count)]
        write(folder / f"data/{split}-00000-of-00001.jsonl", *rows)
    main([str(tmp_path / "out"), f"--demonstrations={folder}", "--test=0.5"])
    found = Counter(
        (record["prompt"].split()[0], split)
        for split, record in read_all(tmp_path / "out", "demonstrations")
    )
    assert found["test", "test"] == 3
    assert not found["train", "test"]


def test_a_published_file_keeps_its_licence(tmp_path, monkeypatch):
    """By its checksum, packed or not; another file in the same form does not."""
    row = {"question": "q", "answer": "#### 1"}
    path = write(tmp_path / "train.jsonl", row)
    packed = write(tmp_path / "packed.jsonl.gz", row)
    entry = SETS["gsm8k"]
    (remote,) = entry.files["train"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = entry._replace(files={"train": (remote._replace(sha256=digest),)})
    monkeypatch.setitem(SETS, "gsm8k", known)
    for file in (path, packed):
        assert resolve("gsm8k", str(file)).licence == "MIT"
    other = write(tmp_path / "other.jsonl", {**row, "answer": "other"})
    given = resolve("gsm8k", str(other))
    assert given.licence == "your own file in the form of gsm8k"
    assert given.homepage == ""


def demonstrations_of(tmp_path: Path, *more: str, count: int = 30) -> Path:
    columns = "--columns=prompt=question,response=answer"
    out = tmp_path / "out"
    main([str(out), f"--demonstrations={qa(tmp_path, count)}", columns, *more])
    return out


def test_a_tokenizer_is_made_and_told(tmp_path, capsys):
    out = demonstrations_of(tmp_path)
    tokenizer = load_tokenizer(out)
    assert tokenizer.decode(tokenizer.encode("What is 7?")) == "What is 7?"
    told = capsys.readouterr().out
    assert f"made tokenizer.model of the training texts: {tokenizer.vocab_size}" in told


def test_a_tokenizer_can_be_given_or_left_out(tmp_path, capsys):
    first = demonstrations_of(tmp_path, "--vocab-size=300")
    first.rename(tmp_path / "first")
    own = tmp_path / "first/tokenizer.model"
    out = demonstrations_of(tmp_path, f"--tokenizer={own}")
    assert (out / "tokenizer.model").read_bytes() == own.read_bytes()
    assert f"copied the tokenizer of {own}" in capsys.readouterr().out
    shutil.rmtree(out)
    out = demonstrations_of(tmp_path, "--tokenizer=none")
    assert not list(out.glob("tokenizer*"))
    told = capsys.readouterr().out
    assert "no tokenizer (--tokenizer=none)" in told
    assert "lengths in words" in told


@pytest.mark.parametrize(
    ("text", "size"),
    [("a b " * 1000, 512), ("a b " * 250_000, 4096), ("a b " * 10_000_000, 32768)],
)
def test_the_vocabulary_grows_with_the_text(text, size):
    assert default_vocab_size([text]) == size


def test_the_vocabulary_has_room_for_every_character():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))
    assert default_vocab_size([text]) >= 261 + 2000


def test_lengths_and_what_limits_would_leave_out_are_printed(tmp_path, capsys):
    rows = [{"prompt": "p " * (n + 1), "completion": "c " * 40} for n in range(100)]
    path = write(tmp_path / "rows.jsonl", *rows)
    main([str(tmp_path / "out"), f"--demonstrations={path}", "--tokenizer=none"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "lengths in words" in lines
    assert "demonstrations prompt 51 91 100 100 5,050" in lines
    assert "demonstrations response 40 40 40 40 4,000" in lines
    assert "16 84.0% 100.0%" in lines
    assert "64 36.0% 0.0%" in lines
    assert "128 0.0% 0.0%" in lines
    assert "256 0.0% 0.0%" not in lines


def test_tokens_are_counted_as_a_stage_counts_them(tmp_path, capsys):
    out = demonstrations_of(tmp_path, count=40)
    prompt_format = PromptFormat(load_tokenizer(out))
    records = [record for _, record in read_all(out, "demonstrations")]
    longest = max(len(prompt_format.prompt_ids(record)) for record in records)
    most = max(len(prompt_format.response_ids(r["response"])) for r in records)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    (prompts,) = (line for line in lines if line.startswith("demonstrations prompt"))
    (answers,) = (line for line in lines if line.startswith("demonstrations response"))
    assert prompts.split()[5] == str(longest)
    assert answers.split()[5] == str(most)
