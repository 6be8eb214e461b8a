"""Stages on a folder of one's own JSONL: the world's records give the world's model."""

import json
import shutil
from pathlib import Path

import jax
import pytest

from instructgpt.checkpoints import open_checkpoint
from instructgpt.errors import UserError
from instructgpt.metrics import read_metrics
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel
from instructgpt.stages import common, label, ppo, pretrain, reward, sft
from instructgpt.state import params_layout
from instructgpt.tokenizer import load_tokenizer
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
    config = ModelConfig(**checkpoints.meta(step)["model"])
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


def own_config(stage: str, folder: Path, tmp_path: Path, **changes):
    """A stage of the smoke recipe on the folder's data, and nothing of the world."""
    config = get_config(data_dir=str(tmp_path / "sets")).stages[stage]
    config.data.jsonl = str(folder)
    for block, values in changes.items():
        config[block].update(values)
    return config


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rankings_alone_pass_label_and_make_a_reward_model(
    run, folder, tmp_path, capsys
):
    """No demonstrations to train on, no accuracy on ties, and answers that are cut."""
    (folder / "demonstrations.train.jsonl").unlink()
    tied = read_lines(folder / "comparisons.test.jsonl")
    ranks = [{**row, "ranks": [1] * len(row["responses"])} for row in tied]
    write_lines(folder / "comparisons.test.jsonl", ranks)
    valid = read_lines(folder / "comparisons.valid.jsonl")
    long = [f"{'much ' * 60}{n}" for n in range(len(valid[0]["responses"]))]
    write_lines(
        folder / "comparisons.valid.jsonl", [{**valid[0], "responses": long}, *valid]
    )
    where = tmp_path / "recipe"
    assert label.run(own_config("label", folder, tmp_path), where / "label") == {}
    assert "rankings of their own" in capsys.readouterr().out
    init = {"path": str(run.workdir / "sft")}
    changes = {"init": init, "train": {"num_epochs": 0, "num_steps": 1}}
    reward.run(own_config("reward", folder, tmp_path, **changes), where / "reward")
    out = capsys.readouterr().out
    assert "no train demonstrations, so scores are not shifted" in out
    assert f"none of {len(tied)} heldout rankings has an untied pair" in out
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    texts = [t for row in [{"responses": long}, *valid] for t in row["responses"]]
    cut = sum(len(tokenizer.encode(text)) + 1 > 24 for text in texts)
    assert f"reward: {cut} of {len(texts)} valid answers have more than 24" in out
    checkpoints, step = open_checkpoint(where / "reward")
    checkpoints.close()
    assert step == 1  # no shift
    rows = read_metrics(where / "reward" / "metrics.jsonl")
    assert {"valid_accuracy", "loss"} <= set().union(*rows)
    assert not any(name.startswith("heldout") for row in rows for name in row)


def test_rankings_that_say_nothing_are_refused(run, folder, tmp_path):
    """Ties in one ranking, and in the other answers that differ beyond the cut."""
    train = read_lines(folder / "comparisons.train.jsonl")[:2]
    long = [f"{'much ' * 60}{n}" for n in range(3)]
    train[0]["ranks"] = [1] * len(train[0]["responses"])
    train[1] |= {"responses": long, "ranks": [2, 1, 3]}
    write_lines(folder / "comparisons.train.jsonl", train)
    config = own_config("reward", folder, tmp_path, init={"path": "nowhere"})
    with pytest.raises(UserError, match=r"in none of 2 rankings is one .*response=24"):
        reward.run(config, tmp_path / "reward")


def test_ppo_on_prompts_alone_looks_up_after_every_pass(run, tmp_path, folder, capsys):
    for path in folder.glob("*.jsonl"):
        path.unlink()
    prompts = [{"prompt": f"Who lives in house {n}?"} for n in range(17)]
    long = [{"prompt": "house " * 90}] * 3
    write_lines(folder / "prompts.train.jsonl", [*long, *prompts])
    write_lines(folder / "prompts.valid.jsonl", prompts[:4])
    changes = {
        "init": {"path": str(run.workdir / "rl_init")},
        "reward_init": {"path": str(run.workdir / "reward")},
        # 17 prompts fit: one batch of 16 is a pass over them.
        "train": {"num_steps": 0, "num_epochs": 2, "keep": 0}
        | {"eval_every": -1, "checkpoint_every": -1},
    }
    workdir = tmp_path / "ppo"
    ppo.run(own_config("ppo", folder, tmp_path, **changes), workdir)
    out = capsys.readouterr().out
    assert "ppo: 3 of 20 train prompts have more than 40 tokens" in out
    assert "no valid documents, so there is no held-out pretraining loss" in out
    assert [path.stem for path in sorted((workdir / "samples").iterdir())] == [
        "0000001",
        "0000002",
    ]
    checkpoints, _ = open_checkpoint(workdir)
    assert checkpoints.steps == [1, 2]
    checkpoints.close()
    rows = read_metrics(workdir / "metrics.jsonl")
    assert "valid_pretrain_loss" not in set().union(*rows)


def test_no_samples_and_no_held_out_demonstrations(run, folder, tmp_path, capsys):
    (folder / "demonstrations.valid.jsonl").unlink()
    changes = {
        "init": {"path": str(run.workdir / "pretrain")},
        "train": {"num_epochs": 0, "num_steps": 2, "log_every": 0},
    }
    sft.run(own_config("sft", folder, tmp_path, **changes), tmp_path / "sft")
    assert "sft: the data have no valid demonstrations" in capsys.readouterr().out
    config = get_config(data_dir=str(run.workdir / "data")).stages.sft
    config.init.path = str(run.workdir / "pretrain")
    config.train.update(num_epochs=0, num_steps=2, log_every=0)
    config.sft.num_samples = 0
    sft.run(config, tmp_path / "none")
    for name, key in (("sft", "loss"), ("none", "valid_loss")):
        assert not (tmp_path / name / "samples").exists()
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        assert [row["step"] for row in rows if key in row] == [2]


@pytest.mark.parametrize("missing", ["test", "valid"])
def test_held_out_rankings_may_be_missing_and_long_prompts_are_told(
    missing, run, folder, tmp_path, capsys
):
    (folder / f"comparisons.{missing}.jsonl").unlink()
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
    absent = (
        "the data have no valid comparisons, so there is no accuracy on valid pairs"
    )
    assert (absent in out) == (missing == "valid")
    assert ("accuracy on valid pairs 0" in out) == (missing != "valid")
    assert ("accuracy on heldout pairs 0" in out) == (missing != "test")


def test_prompts_of_ppo_are_those_of_rankings_and_demonstrations(run, folder, tmp_path):
    """Where there are no others, each once, with the demonstration as reference."""
    ranked = read_lines(folder / "comparisons.train.jsonl")
    shown = read_lines(folder / "demonstrations.train.jsonl")
    both = {**ranked[0], "prompt": shown[0]["prompt"], "history": []}
    write_lines(folder / "comparisons.train.jsonl", [both, *ranked])
    config = own_config("reward", folder, tmp_path)
    context = common.start(config, tmp_path / "scratch")
    found = list(context.data.source("prompts", "train"))
    asked = [(tuple(r["history"]), r["prompt"]) for r in found]
    wanted = [(tuple(r.get("history", ())), r["prompt"]) for r in [*shown, *ranked]]
    assert asked == list(dict.fromkeys(wanted))
    assert found[0]["reference"] == shown[0]["response"]
    assert found[-1]["reference"] == ""
    write_lines(folder / "prompts.train.jsonl", [{"prompt": "Mine?"}])
    config = own_config("reward", folder, tmp_path)
    context = common.start(config, tmp_path / "scratch2")
    assert [r["prompt"] for r in context.data.source("prompts", "train")] == ["Mine?"]


def test_a_vocabulary_follows_the_tokenizer_and_short_text_has_no_loss(
    run, folder, tmp_path, capsys
):
    """Pretraining on text of one's own, of which little is held out."""
    config = get_config(data_dir=str(run.workdir / "data")).stages.pretrain
    source = common.start(config, tmp_path / "scratch").data.source(
        "documents", "train"
    )
    texts = [{"text": source[i]["text"]} for i in range(60)]
    write_lines(folder / "documents.train.jsonl", texts)
    write_lines(folder / "documents.valid.jsonl", [{"text": "Short."}])
    changes = {
        "model": {"vocab_size": 0},
        "train": {"num_steps": 1, "batch_size": 8},
    }
    workdir = tmp_path / "pretrain"
    pretrain.run(own_config("pretrain", folder, tmp_path, **changes), workdir)
    said = capsys.readouterr().out
    assert "fewer than a row of 96 (config.pretrain.window), so there is no" in said
    checkpoints, step = open_checkpoint(workdir)
    found = checkpoints.meta(step)["model"]["vocab_size"]
    checkpoints.close()
    assert found == load_tokenizer(folder / "tokenizer.model").vocab_size > 256
