"""Prompts of the paper's two distributions, from a folder and from the world."""

import json

from instructgpt.data.datasets import DataConfig, open_datasets
from instructgpt.tokenizer import train_tokenizer


def test_prompts_of_the_other_distribution_may_lie_in_the_folder(tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    texts = {"prompts": "Name a colour.", "gpt_prompts": "Three colours: red,"}
    for kind, text in texts.items():
        row = {"prompt": text, "distribution": "gpt3" if kind[0] == "g" else ""}
        (folder / f"{kind}.test.jsonl").write_text(json.dumps(row) + "\n")
    train_tokenizer(texts.values(), folder / "tokenizer.model", vocab_size=282)
    config = DataConfig(
        str(tmp_path / "data"), max_prompt=30, max_response=9, jsonl=str(folder)
    )
    data = open_datasets(config, log=print)
    (record,) = data.source("gpt_prompts", "test")
    assert (record["prompt"], record["distribution"]) == (texts["gpt_prompts"], "gpt3")
    (record,) = data.source("prompts", "test")
    assert record["distribution"] == ""


def test_the_world_gives_both_distributions(tmp_path):
    config = DataConfig(
        str(tmp_path),
        max_prompt=40,
        max_response=24,
        vocab_size=400,
        documents=(30, 0, 0),
        prompts=(0, 0, 5),
        gpt_prompts=(0, 0, 6),
    )
    data = open_datasets(config, log=print)
    for kind, number, name in (
        ("prompts", 5, "instructgpt"),
        ("gpt_prompts", 6, "gpt3"),
    ):
        records = list(data.source(kind, "test"))
        assert [r["distribution"] for r in records] == [name] * number
        assert not data.has(kind, "train")
