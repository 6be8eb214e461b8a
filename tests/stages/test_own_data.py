"""Stages on a folder of one's own JSONL: the world's records give the world's model."""

import json
import shutil
from pathlib import Path

import jax
import pytest

from instructgpt.checkpoints import open_checkpoint
from instructgpt.models.transformer import ScalarModel
from instructgpt.stages import common, reward
from instructgpt.state import params_layout
from tests import tiny
from tests.stages.recipe_run import MESH, Finished, finished, get_config


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def write_lines(path: Path, records) -> None:
    path.write_text("".join(json.dumps(dict(record)) + "\n" for record in records))


@pytest.fixture
def folder(run: Finished, tmp_path: Path) -> Path:
    """What people would bring: demonstrations, rankings and a tokenizer."""
    folder = tmp_path / "mine"
    folder.mkdir()
    config = get_config(data_dir=str(run.workdir / "data")).stages.reward
    context = common.start(config, tmp_path / "scratch")
    for split in ("train", "valid"):
        records = context.data.source("demonstrations", split)
        write_lines(folder / f"demonstrations.{split}.jsonl", records)
    for split, name in (("train", "train"), ("valid", "valid"), ("heldout", "test")):
        ranked = run.workdir / "label" / f"comparisons.{split}.jsonl"
        shutil.copy(ranked, folder / f"comparisons.{name}.jsonl")
    (tokenizer,) = (run.workdir / "data").glob("*/tokenizer-*.model")
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def last_params(workdir: Path):
    checkpoints, step = open_checkpoint(workdir)
    config = common.ModelConfig(**checkpoints.meta(step)["model"])
    layout = params_layout(ScalarModel(config), tiny.mesh_of(**MESH))
    params = checkpoints.restore(step, {"params": layout})[0]["params"]
    checkpoints.close()
    return jax.device_get(params)


def test_a_reward_model_of_ones_own_rankings(run, folder, tmp_path, capsys):
    config = get_config(data_dir=str(tmp_path / "sets")).stages.reward
    config.data.jsonl = str(folder)
    config.reward.comparisons = ""
    config.init.path = str(run.workdir / "sft")
    reward.run(config, tmp_path / "reward")
    tiny.assert_equal(
        last_params(tmp_path / "reward"), last_params(run.workdir / "reward")
    )
    out = capsys.readouterr().out
    for split in ("valid", "heldout", "all held-out"):
        assert f"reward: accuracy on {split} pairs 0." in out


def test_held_out_rankings_may_be_missing_and_long_prompts_are_told(
    run, folder, tmp_path, capsys
):
    (folder / "comparisons.test.jsonl").unlink()
    path = folder / "comparisons.train.jsonl"
    first, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [{**first, "prompt": "word " * 200}, *rest])
    config = get_config(data_dir=str(tmp_path / "sets")).stages.reward
    config.data.jsonl = str(folder)
    config.reward.comparisons = ""
    config.init.path = str(run.workdir / "sft")
    reward.run(config, tmp_path / "reward")
    out = capsys.readouterr().out
    assert f"1 of {len(rest) + 1} train rankings have prompts of more than 40" in out
    assert "accuracy on valid pairs" in out and "heldout" not in out
