"""Sets of the hub: their files by split, at one commit, with a stand-in on loopback."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from instructgpt.data.origins.given import resolve
from instructgpt.data.origins.layout import choose
from instructgpt.data.records import read_jsonl
from instructgpt.errors import UserError
from instructgpt.prepare import main
from tests.data import hub_server
from tests.data.hub_server import COMMIT, Repository


def parquet(*rows: dict) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def lines(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def preference(number: int) -> dict:
    said = {"role": "user", "content": f"Question {number}?"}
    return {
        "prompt": f"Question {number}?",
        "chosen": [said, {"role": "assistant", "content": "good"}],
        "rejected": [said, {"role": "assistant", "content": "bad"}],
        "score_chosen": 8.0,
        "score_rejected": 8.0 if number == 3 else 2.0,
    }


def answer(number: int) -> dict:
    return {"prompt": f"Question {number}?", "completion": f"Answer {number}."}


SETS = {
    "some/preferences": Repository(
        {
            "README.md": b"---\nlicense: mit\n---\n",
            "data/train_prefs-00000-of-00002.parquet": parquet(
                preference(0), preference(1)
            ),
            "data/train_prefs-00001-of-00002.parquet": parquet(preference(2)),
            "data/test_prefs-00000-of-00001.parquet": parquet(preference(3)),
            "data/train_sft-00000-of-00001.parquet": parquet(preference(9)),
        },
        {"license": "mit"},
    ),
    "some/answers": Repository(
        {
            "dataset_infos.json": b"{}",
            "train.jsonl": lines(*map(answer, range(20))),
            "test.jsonl": lines(answer(20)),
        }
    ),
    "some/declared": Repository(
        {
            "a/part-1.csv": b"prompt,completion\nq,r\n",
            "a/held.csv": b"prompt,completion\nq2,r2\n",
            "b/all.csv": b"prompt,completion\nq3,r3\n",
        },
        {
            "license": ["apache-2.0", "cc-by-4.0"],
            "configs": [
                {"config_name": "b", "data_files": "b/*.csv"},
                {
                    "config_name": "a",
                    "default": True,
                    "data_files": [
                        {"split": "train", "path": "a/part-*"},
                        {"split": "validation", "path": ["a/held.csv"]},
                    ],
                },
            ],
        },
    ),
    "some/pictures": Repository({"README.md": b"", "images.zip": b"PK"}),
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server.serving(SETS) as running:
        hub_server.use(running, monkeypatch, tmp_path / "hub_cache")
        yield running


def test_a_set_becomes_records_with_its_commit_and_licence(hub, tmp_path, capsys):
    out = tmp_path / "out"
    main(
        [
            str(out),
            "--comparisons=hub:some/preferences:train_prefs",
            "--comparisons=hub:some/preferences@v1:test_prefs",
            "--demonstrations=hub:some/answers",
            "--valid=0",
            "--test=0",
        ]
    )
    train = list(read_jsonl(out / "comparisons.train.jsonl", "comparisons"))
    assert [record["prompt"] for record in train] == [
        f"Question {number}?" for number in range(3)
    ]
    assert train[0]["responses"] == ["good", "bad"]
    assert train[0]["id"] == ("some/preferences/train_prefs-00000-of-00002:0")
    (held,) = read_jsonl(out / "comparisons.test.jsonl", "comparisons")
    assert held["ranks"] == [1, 1]
    # Question 3 is held out of the demonstrations, too; 20 is the set's own test split.
    tests = list(read_jsonl(out / "demonstrations.test.jsonl", "demonstrations"))
    assert {record["response"] for record in tests} == {"Answer 20.", "Answer 3."}
    sources = json.loads((out / "sources.json").read_text())["sets"]
    by_kind = {entry["kind"]: entry for entry in sources}
    entry = by_kind["comparisons"]
    assert entry["set"] == "some/preferences"
    assert entry["licence"] == "mit"
    assert entry["revision"] == COMMIT
    assert entry["homepage"] == "https://huggingface.co/datasets/some/preferences"
    assert COMMIT in entry["files"][0]["origin"]
    assert by_kind["demonstrations"]["licence"] == "not named on its page"
    assert "some/preferences comparisons (licence: mit)" in capsys.readouterr().out


def test_the_pages_metadata_go_before_names(hub):
    given = resolve("hub", "some/declared")
    assert [(file.path.name, file.split) for file in given.files] == [
        ("part-1.csv", "train"),
        ("held.csv", "valid"),
    ]
    assert given.licence == "apache-2.0, cc-by-4.0"
    (file,) = resolve("hub", "some/declared:b").files
    assert (file.path.name, file.split) == ("all.csv", "train")
    (file,) = resolve("hub", "some/declared:a/validation").files
    assert file.path.name == "held.csv"


def test_files_are_downloaded_once(hub):
    resolve("hub", "some/answers:test")
    before = len([r for r in hub.requests if r.startswith("GET") and "resolve" in r])
    resolve("hub", "some/answers:test")
    after = len([r for r in hub.requests if r.startswith("GET") and "resolve" in r])
    assert before == after == 1


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("some/nothing", "hub:some/nothing: .*correct the name or the revision"),
        ("some/answers@gone", "hub:some/answers: .*correct the name or the revision"),
        (
            "some/preferences",
            "has the splits test_prefs, train_prefs, train_sft; choose one, as in"
            " hub:some/preferences:test_prefs",
        ),
        ("some/answers:dev", "no split 'dev', but test, train; choose one"),
        ("some/pictures", r"holds no file that ends in \.parquet, .*images\.zip"),
        ("some answers", r"give hub:OWNER/NAME\[@REVISION\]\[:SPLIT\]"),
        ("", "say what to read, as hub:NAME"),
    ],
)
def test_what_is_not_there_is_one_line(hub, address, problem):
    with pytest.raises(UserError, match=problem) as error:
        resolve("hub", address)
    assert "\n" not in str(error.value)


def test_without_a_connection_it_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"hub:a/b: .*or download its files and give"):
        resolve("hub", "a/b")


LAYOUTS = {
    "shards": (
        ["data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"],
        {"train": 1, "test": 1},
    ),
    "shards of two configurations": (
        ["main/train-00000-of-00001.parquet", "default/train-00000-of-00001.parquet"],
        {"train": 1},
    ),
    "converted by the hub": (
        ["default/train/0000.parquet", "default/validation/0000.parquet"],
        {"train": 1, "valid": 1},
    ),
    "words in names": (["my_train_2.csv", "my-dev.csv"], {"train": 1, "valid": 1}),
    "one file": (["rows.jsonl.gz"], {"train": 1}),
    "copies of another kind": (["train.jsonl", "train.parquet"], {"train": 1}),
    "an odd split": (["data/all-00000-of-00001.parquet"], {None: 1}),
}


@pytest.mark.parametrize("form", LAYOUTS)
def test_splits_are_told_by_names(form):
    names, expected = LAYOUTS[form]
    chosen = choose(names, "", what="x")
    counts = {s: sum(c.split == s for c in chosen) for s in {c.split for c in chosen}}
    assert counts == expected


def test_configurations_must_be_chosen_where_none_is_the_default():
    names = ["a/train.jsonl.gz", "b/train.jsonl.gz"]
    with pytest.raises(UserError, match=r"the configurations a, b; .*as in x:a"):
        choose(names, "", what="x")
    assert choose(names, "b", what="x") == [("b/train.jsonl.gz", "train")]
    assert choose(names, "b/train", what="x") == [("b/train.jsonl.gz", "train")]
