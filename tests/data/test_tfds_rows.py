"""Sets of TensorFlow Datasets, of which a tiny one is built, by random access."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from instructgpt.data.origins.given import resolve
from instructgpt.data.records import read_jsonl
from instructgpt.errors import UserError
from instructgpt.prepare import main


class TinyChats(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ratings of answers, and dialogues."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    name = "tiny_chats"

    def _info(self):
        turn = {"role": tfds.features.Text(), "content": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "messages": tfds.features.Sequence(turn),
                    "prompt": tfds.features.Text(),
                    "responses": tfds.features.Sequence(tfds.features.Text()),
                    "scores": tfds.features.Sequence(np.float32),
                }
            ),
            homepage="https://example.org/tiny",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, 4),
            "test": self._generate_examples(4, 5),
        }

    def _generate_examples(self, start, end):
        for number in range(start, end):
            prompt = f"Où {number}?"
            yield (
                number,
                {
                    "messages": [
                        {"role": "system", "content": "Be brief."},
                        {"role": "user", "content": prompt},
                        {"role": "assistant", "content": f"Là {number}."},
                    ],
                    "prompt": prompt,
                    "responses": ["a", "b", "c"],
                    "scores": [1.0, 2.5, 1.0],
                },
            )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    folder = tmp_path / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    tfds.disable_progress_bar()
    TinyChats(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_a_set_becomes_records_with_its_version(tiny, tmp_path):
    out = tmp_path / "out"
    command = [
        str(out),
        "--comparisons=tfds:tiny_chats:1.0.0:train",
        "--demonstrations=tfds:tiny_chats",
        "--valid=0",
        "--test=0",
    ]
    main(command)
    ranked = list(read_jsonl(out / "comparisons.train.jsonl", "comparisons"))
    assert [r["prompt"] for r in ranked] == [f"Où {n}?" for n in range(4)]
    assert ranked[0]["responses"] == ["a", "b", "c"]
    assert ranked[0]["ranks"] == [2, 1, 2]
    assert ranked[0]["id"] == "tiny_chats/train:0"
    (shown,) = read_jsonl(out / "demonstrations.test.jsonl", "demonstrations")
    assert (shown["prompt"], shown["response"]) == ("Be brief.\n\nOù 4?", "Là 4.")
    entry = json.loads((out / "sources.json").read_text())["sets"][0]
    assert entry["revision"] == "1.0.0"
    assert entry["homepage"] == "https://example.org/tiny"
    assert len(entry["files"][0]["sha256"]) == 64
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    out.rename(tmp_path / "first")
    main(command)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == first


def test_what_is_not_there_is_one_line(tiny):
    for address, problem in (
        ("nothing_of_that_name", "tfds:nothing_of_that_name: .*TFDS_DATA_DIR"),
        ("tiny_chats:dev", "no split 'dev', but test, train; choose one, as in tfds:"),
        ("a b", "give tfds:NAME"),
    ):
        with pytest.raises(UserError, match=problem) as error:
            resolve("tfds", address)
        assert "\n" not in str(error.value)
