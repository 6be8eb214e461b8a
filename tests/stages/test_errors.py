"""A user's mistake is one clear error before any training starts."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.stages import find, opening, recipe, sft
from tests.stages.recipe_run import Finished, finished, get_config


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def change(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    """The config with `{dotted key: value}` set, whether the key exists or not."""
    with config.unlocked():
        for key, value in changes.items():
            *path, last = key.split(".")
            block = config
            for name in path:
                block = block[name]
            block[last] = value
    return config


@pytest.fixture
def refuse(run: Finished, tmp_path: Path) -> Callable[..., str]:
    """Runs a stage that must refuse, beside finished ones; gives its message."""

    def go(stage: str, changes: dict[str, Any], workdir: Path | None = None) -> str:
        if workdir is None:
            workdir = Path(tempfile.mkdtemp(dir=tmp_path)) / stage
        config = change(get_config().stages[stage], changes)
        # The other stages are where they always are, relative to the workdir.
        workdir.parent.mkdir(exist_ok=True)
        for finished_stage in run.workdir.iterdir():
            beside = workdir.parent / finished_stage.name
            if beside != workdir and not beside.exists():
                beside.symlink_to(finished_stage)
        with pytest.raises(UserError) as error:
            find(config.stage).exports.run(config, workdir)
        assert not (workdir / "checkpoints").exists()
        assert not (workdir / "metrics.jsonl").exists()
        assert not (workdir / "samples").exists()
        assert not list(workdir.glob("answers.*"))
        return str(error.value)

    return go


MISTAKES = {
    "key that does not exist": (
        "sft",
        {"optimizer.learning_rat": 1.0},
        ["config.optimizer.learning_rat ", "does not exist", "learning_rate"],
    ),
    "model key that does not exist": (
        "ppo",
        {"model.dropout": 0.1},
        ["config.model.dropout ", "does not exist", "residual_dropout"],
    ),
    "mesh that does not divide the batch": (
        "pretrain",
        {"mesh.data": 4, "mesh.tensor": 1, "train.batch_size": 12},
        ["config.train.batch_size=12", "8 ways", "multiple of 8"],
    ),
    "mesh of other than all devices": (
        "pretrain",
        {"mesh.data": 3},
        ["config.mesh", "3 x 2 x 2", "8 devices"],
    ),
    "model that the mesh does not divide": (
        "pretrain",
        {"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 8},
        ["config.mesh", "heads'", "size 4", "8 devices"],
    ),
    "microbatches that do not divide": (
        "sft",
        {"train.microbatches": 3},
        ["config.train.microbatches=3", "config.train.batch_size=8"],
    ),
    "minibatch that does not divide": (
        "ppo",
        {"rollout.minibatch_size": 6},
        ["config.rollout.minibatch_size=6", "config.train.batch_size=16"],
    ),
    "minibatch that the mesh does not divide": (
        "ppo",
        {"rollout.minibatch_size": 2},
        ["config.rollout.minibatch_size=2", "multiple of 4"],
    ),
    "PPO microbatches that do not divide": (
        "ppo",
        {"ppo.microbatches": 3},
        ["config.ppo.microbatches=3", "config.rollout.minibatch_size=8"],
    ),
    "parts of the episodes that are no parts": (
        "ppo",
        {"rollout.score_microbatches": 8},
        ["config.rollout.score_microbatches=8", "4 ways", "config.train.batch_size=16"],
    ),
    "ptx rows that microbatches do not divide": (
        "ppo_ptx",
        {"ppo.microbatches": 8},
        ["config.rollout.ptx_per_episode=0.5", "4", "config.ppo.microbatches=8"],
    ),
    "ptx rows that microbatches of their own do not divide": (
        "ppo_ptx",
        {"ppo.ptx_microbatches": 3},
        ["config.rollout.ptx_per_episode=0.5", "4", "config.ppo.ptx_microbatches=3"],
    ),
    "ptx too rare for a single row": (
        "ppo_ptx",
        {"rollout.ptx_per_episode": 0.01},
        ["config.rollout.ptx_per_episode=0.01", "no row"],
    ),
    "gamma without rows": (
        "ppo",
        {"ppo.ptx_coef": 1.0},
        ["config.ppo.ptx_coef", "config.rollout.ptx_per_episode", "both"],
    ),
    "rows without gamma": (
        "ppo",
        {"rollout.ptx_per_episode": 1.0},
        ["config.ppo.ptx_coef", "config.rollout.ptx_per_episode", "both"],
    ),
    "greedy rollouts": (
        "ppo",
        {"rollout.temperature": 0.0},
        ["config.rollout.temperature=0", "use 1"],
    ),
    "packed rows shorter than a demonstration": (
        "sft",
        {"sft.pack_length": 60},
        ["config.sft.pack_length=60", "64", "give as many or more"],
    ),
    "packed rows mixed with text": (
        "sft",
        {"sft.pretrain_fraction": 0.1},
        ["config.sft.pack_length=96", "pretrain_fraction=0"],
    ),
    "vocabulary larger than the model's": (
        "pretrain",
        {"model.vocab_size": 512},
        ["1280 pieces", "512", "vocab_size"],
    ),
    "row longer than the context": (
        "pretrain",
        {"model.context_length": 60},
        ["max_prompt=40", "max_response=24", "64", "context_length=60"],
    ),
    "window longer than the context": (
        "pretrain",
        {"pretrain.window": 4096},
        ["config.pretrain.window=4096", "context_length=192"],
    ),
    "ptx rows longer than the context": (
        "ppo_ptx",
        {"rollout.ptx_length": 4096},
        ["config.rollout.ptx_length=4096", "context_length=192"],
    ),
    "evaluation rows longer than the context": (
        "evaluate",
        {"evaluate.window": 4096},
        ["config.evaluate.window=4096", "context_length=192"],
    ),
    "prompt longer than the checkpoint's context": (
        "sft",
        {"data.max_prompt": 512},
        ["max_prompt=512", "536", "context_length"],
    ),
    "prefix longer than the context": (
        "evaluate",
        {"data.max_response": 100},
        ["max_response=100", "prefix of", "context_length"],
    ),
    "checkpoint that is not there": (
        "sft",
        {"init.path": "../nowhere"},
        ["no checkpoint", "nowhere", "config.init"],
    ),
    "checkpoint step that is not there": (
        "sft",
        {"init.step": 3},
        ["no checkpoint 3", "it has [6]"],
    ),
    "reward model as the policy": (
        "ppo",
        {"init.path": "../reward"},
        ["reward", "scalar", "needs a language", "init"],
    ),
    "policy as the reward model": (
        "ppo",
        {"reward_init.path": "../sft"},
        ["sft", "language", "needs a scalar", "init"],
    ),
    "EMA of a model that has none": (
        "sft",
        {"init.part": "ema"},
        ["pretrain", "'ema'", "params"],
    ),
    "rankings that are not there": (
        "reward",
        {"reward.comparisons": "../sft"},
        ["sft", "labels.json", "label stage"],
    ),
    "steps and epochs": (
        "sft",
        {"train.num_steps": 3},
        ["config.train", "num_steps", "num_epochs"],
    ),
    "neither steps nor epochs": (
        "reward",
        {"train.num_epochs": 0},
        ["config.train", "num_steps=0", "num_epochs=0", "1 or more"],
    ),
    "epochs that are fewer than none": (
        "reward",
        {"train.num_epochs": -2},
        ["config.train.num_epochs=-2", "0 or more"],
    ),
    "no part of a batch": (
        "pretrain",
        {"train.microbatches": 0},
        ["config.train.microbatches=0", "1 or more"],
    ),
    "no pass over the episodes": (
        "ppo_ptx",
        {"rollout.epochs": 0},
        ["config.rollout.epochs=0", "1 or more"],
    ),
    "logs before the first step": (
        "ppo",
        {"train.log_every": -3},
        ["config.train.log_every=-3", "0 (at the end)", "-1 (after every epoch)"],
    ),
    "each checkpoint but none": (
        "select",
        {"select.every": 0},
        ["config.select.every=0", "1 or more"],
    ),
    "a seed below 0": ("sft", {"seed": -1}, ["config.seed=-1", "0 or more"]),
    "two splits of three": (
        "pretrain",
        {"data.documents": (4, 4)},
        ["config.data.documents=(4, 4)", "three", "train", "valid", "test"],
    ),
    "rows of one token": (
        "pretrain",
        {"pretrain.window": 1},
        ["config.pretrain.window=1", "0, or 2 or more"],
    ),
    "answers by nobody": (
        "label",
        {"label.policies": ()},
        ["config.label.policies=()", "one or more"],
    ),
    "at most fewer answers than at least": (
        "label",
        {"label.max_responses": 3},
        ["config.label.max_responses=3", "config.label.min_responses=4"],
    ),
    "prompts that are all too long": (
        "ppo",
        {"data.max_prompt": 1},
        ["none of 128 train prompts fits config.data.max_prompt=1", "raise"],
    ),
    "rankings by nobody": (
        "label",
        {"label.train_labelers": 0},
        ["config.label.train_labelers=0", "1 or more"],
    ),
    "hardly an answer of its own": (
        "label",
        {"label.misplaced": 3},
        ["config.label.misplaced=3", "config.label.min_responses=4", "2 or more"],
    ),
    "baseline that is not compared": (
        "evaluate",
        {"evaluate.baseline": "flan"},
        ["config.evaluate.baseline='flan'", "not among the models"],
    ),
    "what the evaluation ends with: the loss of RL's start": (
        "evaluate",
        {"rl_init.path": "../nowhere"},
        ["no checkpoint", "nowhere"],
    ),
    "what the evaluation ends with: rankings": (
        "evaluate",
        {"evaluate.comparisons": "../sft"},
        ["sft", "labels.json", "label stage"],
    ),
    "what the evaluation ends with: the epochs": (
        "evaluate",
        {"evaluate.select": "../sft"},
        ["selected.json", "select stage"],
    ),
    "what the last answers come from": (
        "label",
        {"label.policies": ("../sft", "../reward")},
        ["reward", "scalar", "language"],
    ),
    "choice that was not made": (
        "sft",
        {"init.selected_by": "../label"},
        ["selected.json", "select stage"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_refuses(refuse, mistake):
    stage, changes, words = MISTAKES[mistake]
    message = refuse(stage, changes)
    assert "\n" not in message
    assert not [word for word in words if word not in message], message


def test_a_corrected_config_is_taken_in_the_same_workdir(refuse, tmp_path):
    workdir = tmp_path / "recipe" / "sft"
    refuse("sft", {"init.path": "../nowhere"}, workdir)
    message = refuse("sft", {"init.path": "../elsewhere"}, workdir)
    assert "elsewhere" in message
    assert "another config" not in message


def test_another_config_in_the_workdir_of_a_run(run, tmp_path):
    workdir = tmp_path / "sft"
    shutil.copytree(run.workdir / "sft", workdir)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    config = change(
        get_config(data_dir=str(run.workdir / "data")).stages.sft,
        {"optimizer.learning_rate": 0.5, "seed": 1, "train.log_every": 1},
    )
    with pytest.raises(UserError) as error:
        sft.run(config, workdir)
    message = str(error.value)
    assert "optimizer.learning_rate: 0.001 -> 0.5" in message
    assert "seed: 0 -> 1" in message
    assert "--workdir" in message
    assert "log_every" not in message  # may change
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_padding_with_eos(refuse, monkeypatch):
    open_datasets = opening.open_datasets

    def pad_is_eos(*args: Any, **kwargs: Any):
        opened = open_datasets(*args, **kwargs)
        opened.tokenizer.pad_id = opened.tokenizer.eos_id
        return opened

    monkeypatch.setattr(opening, "open_datasets", pad_is_eos)
    for stage in ("pretrain", "sft", "ppo"):
        assert "pads with EOS" in refuse(stage, {})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("evaluate.evaluate.batch_size", 0, "evaluate.evaluate.batch_size=0: give"),
        ("ppo_ptx.rollout.epoch", 2, "ppo_ptx.rollout.epoch does not exist; known: "),
        ("sft.model.logit_chunk", -1, "sft.model.logit_chunk=-1: give"),
    ],
)
def test_the_recipe_looks_at_every_stage_before_the_first(tmp_path, key, value, words):
    config = change(get_config(), {f"stages.{key}": value})
    with pytest.raises(UserError, match=rf"^config\.stages\.{words}"):
        recipe.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def own_data(folder: Path, run: Finished) -> Path:
    """A folder of JSONL files with this session's tokenizer."""
    folder.mkdir()
    (tokenizer,) = (run.workdir / "data").glob("*/tokenizer-*.model")
    shutil.copy(tokenizer, folder / "tokenizer.model")
    line = json.dumps({"text": "Dela lives in Osterby. " * 40}) + "\n"
    (folder / "documents.train.jsonl").write_text(line * 60)
    (folder / "documents.valid.jsonl").write_text(line * 20)
    return folder


def test_a_truncated_line_of_own_data(refuse, run, tmp_path):
    folder = own_data(tmp_path / "mine", run)
    path = folder / "documents.train.jsonl"
    path.write_text(path.read_text()[:-30])
    changes = {"data.jsonl": str(folder), "data.dir": str(tmp_path / "sets")}
    message = refuse("pretrain", changes)
    assert f"{path}:60: " in message
    assert "ends in the middle of this line" in message


def test_own_data_without_its_parts(refuse, run, tmp_path):
    folder = own_data(tmp_path / "mine", run)
    changes = {"data.jsonl": str(folder), "data.dir": str(tmp_path / "sets")}
    assert "no demonstrations" in refuse("sft", changes)
    assert "miniature world has a gold judge" in refuse("evaluate", changes)
    line = json.dumps({"prompt": "Where is Dela?"}) + "\n"
    (folder / "prompts.train.jsonl").write_text(line * 40)
    # Before the first answer to a train prompt.
    assert "only the miniature world has simulated" in refuse("label", changes)
    changes["label.ranked_by"] = "people"
    assert "no valid prompts; add prompts.valid.jsonl" in refuse("label", changes)
    del changes["label.ranked_by"]
    (folder / "tokenizer.model").unlink()
    assert "tokenizer.model" in refuse("pretrain", changes)
    assert "no such folder" in refuse("pretrain", {**changes, "data.jsonl": "/no/way"})
