"""The whole recipe at `smoke`: what every stage leaves, and a second run."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import recipe as recipe_config
from instructgpt.checkpoints import open_checkpoint
from instructgpt.errors import UserError
from instructgpt.metrics import read_metrics
from instructgpt.models.positions import rotary_angles
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import common, evaluate, loading, recipe, reward
from tests.hf_models import CONFIGS
from tests.stages.read_spy import reads_of_config_fields
from tests.stages.recipe_run import MESH, Finished, finished, get_config

CLOCKS = {"tokens_per_second", "input_share", "pfs_days"}
STEP = {"loss", "grad_norm", "learning_rate"} | CLOCKS
PPO = {
    *("score", "kl", "reward", "response_length", "ratio", "approx_kl", "decode_gap"),
    *("clip_fraction", "entropy", "policy_loss", "policy_grad_norm", "value_loss"),
    *("value_grad_norm", "value_clip_fraction", "value", "return"),
    *("learning_rate", *CLOCKS, "valid_pretrain_loss"),
}
METRICS = {
    "pretrain": STEP | {"valid_loss"},
    "sft": STEP | {"valid_loss"},
    "reward": STEP
    | {"accuracy", "margin", "valid_loss", "valid_accuracy"}
    | {"heldout_loss", "heldout_accuracy"},
    "select": {"rm_score"},
    "rl_init": STEP | {"valid_loss"},
    "ppo": PPO,
    "ppo_ptx": PPO | {"ptx_loss", "ptx_grad_norm"},
}
# Checkpoints that are left: SFT keeps one an epoch, the others the last.
CHECKPOINTS = dict(pretrain=1, sft=2, reward=1, rl_init=1, ppo=1, ppo_ptx=1)
MODELS = ("gpt", "gpt_prompted", "sft", "ppo", "ppo_ptx")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def load_json(*parts: str | Path):
    return json.loads(Path(*parts).read_text())


def load_lines(*parts: str | Path):
    return [json.loads(line) for line in Path(*parts).read_text().splitlines()]


def steps_of(workdir: Path) -> list[int]:
    checkpoints, _ = open_checkpoint(workdir)
    try:
        return checkpoints.steps
    finally:
        checkpoints.close()


def test_every_stage_keeps_its_config(run):
    config = get_config()
    assert set(config.order) == set(config.stages)
    for name in config.order:
        saved = load_json(run.workdir, name, "config.json")
        assert saved["stage"] == config.stages[name].stage
        assert saved["mesh"].items() >= MESH.items()
        assert saved["seed"] == config.seed


@pytest.mark.parametrize("stage", METRICS)
def test_metrics_have_the_promised_names_and_are_finite(run, stage):
    rows = read_metrics(run.workdir / stage / "metrics.jsonl")
    assert set().union(*rows) - {"step", "time"} == METRICS[stage]
    assert all(np.isfinite(v) for row in rows for v in row.values())
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert list((run.workdir / stage).glob("events.out.tfevents.*"))


@pytest.mark.parametrize("stage", ["sft", "ppo_ptx", "evaluate"])
def test_tensorboard_shows_samples_and_hyperparameters(run, stage):
    events = "tensorboard.backend.event_processing.event_accumulator"
    hparams = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    folder = run.workdir / stage
    found = pytest.importorskip(events).EventAccumulator(str(folder)).Reload()
    tag = "_hparams_/session_start_info"
    content = found.SummaryMetadata(tag).plugin_data.content
    start = hparams.parse_session_start_info_plugin_data(content)
    assert start.hparams["data.template"].string_value == "plain"
    shown = found.Tensors("samples/text_summary")[-1]
    width = shown.tensor_proto.tensor_shape.dim[1].size
    cells = [cell.decode() for cell in shown.tensor_proto.string_val]
    prompts = [text.replace("    ", "") for text in cells[width::width]]
    if stage == "evaluate":
        results = load_json(folder, "results.json")
        wanted = [row["prompt"] for row in results["samples"]]
        assert found.Scalars("win_rate/sft")[0].value == 0.5
        assert {"win_rates", "likert", "loss_curves"} <= set(found.Tags()["images"])
    else:
        rows = load_json(folder, "samples", f"{shown.step:07d}.json")
        wanted = [row["prompt"] for row in rows]
    assert prompts == wanted


@pytest.mark.parametrize("stage", CHECKPOINTS)
def test_checkpoints_say_what_model_they_hold(run, stage):
    checkpoints, step = open_checkpoint(run.workdir / stage)
    meta = checkpoints.meta(step)
    checkpoints.close()
    assert meta["kind"] == ("scalar" if stage == "reward" else "language")
    assert meta["model"]["width"] == get_config().stages.pretrain.model.width


def test_the_checkpoints_that_are_left(run):
    steps = {stage: steps_of(run.workdir / stage) for stage in CHECKPOINTS}
    assert {stage: len(left) for stage, left in steps.items()} == CHECKPOINTS
    first, second = steps["sft"]
    assert second == 2 * first  # one an epoch
    rows = read_metrics(run.workdir / "reward" / "metrics.jsonl")
    assert steps["reward"] == [rows[-1]["step"]]  # the shifted model, and no other


def test_pretraining_learns(run):
    rows = read_metrics(run.workdir / "pretrain" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.1
    assert losses[0] == pytest.approx(np.log(1280), abs=0.5)


@pytest.mark.parametrize("stage", CHECKPOINTS)
def test_nothing_is_compiled_after_the_first_update(run, stage):
    """Rows differ in length, and all epochs and minibatches are one program each."""
    name = get_config().stages[stage].name
    first, *later = run.compiled[name]
    assert first > 0 and later
    assert not any(later), later


def test_ppo_starts_at_its_reference(run):
    for stage in ("ppo", "ppo_ptx"):
        first, *later = read_metrics(run.workdir / stage / "metrics.jsonl")
        assert first["decode_gap"] < 1e-4
        assert first["kl"] == pytest.approx(0.0, abs=1e-4)
        assert any(abs(row["kl"]) > 1e-4 for row in later if "kl" in row)
        assert first["reward"] == pytest.approx(
            first["score"] - 0.02 * first["kl"], abs=1e-5
        )


@pytest.mark.parametrize("stage", ["sft", "rl_init", "ppo", "ppo_ptx"])
def test_sample_tables_at_every_evaluation(run, stage):
    evaluated = [
        row["step"]
        for row in read_metrics(run.workdir / stage / "metrics.jsonl")
        if "valid_loss" in row or "valid_pretrain_loss" in row
    ]
    files = sorted((run.workdir / stage / "samples").glob("*.json"))
    assert [int(file.stem) for file in files] == evaluated
    rows = load_json(files[-1])
    assert len(rows) == 8
    assert all(row["prompt"] and isinstance(row["response"], str) for row in rows)


def test_rankings(run):
    labels = load_json(run.workdir, "label", "labels.json")
    assert labels["prompts"] == {"train": 32, "valid": 16}
    rows = load_lines(run.workdir, "label", "comparisons.train.jsonl")
    assert {len(row["responses"]) for row in rows} <= set(range(4, 10))
    assert any(len(set(row["ranks"])) < len(row["ranks"]) for row in rows)
    held_out = load_lines(run.workdir, "label", "comparisons.heldout.jsonl")
    assert {r["labeler"] for r in held_out}.isdisjoint(r["labeler"] for r in rows)
    for group in ("valid", "heldout"):
        mean, low, high = labels[f"agreement_{group}"]
        assert 0 <= low <= mean <= high <= 1


def test_demonstrations_average_zero_after_the_shift(run, tmp_path):
    stage = get_config(data_dir=str(run.workdir / "data")).stages.reward
    context = common.start(stage, tmp_path)
    with jax.set_mesh(context.mesh):
        init = loading.InitConfig(str(run.workdir / "reward"))
        model = loading.load(init, context, scalar=True)
        demonstrations = reward._demonstrations(context)
        mean = reward._demonstration_mean(
            context, demonstrations, model.model, model.params, rows=16
        )
    assert mean == pytest.approx(0.0, abs=1e-5)


def test_the_chosen_epoch_has_the_best_score(run):
    selected = load_json(run.workdir, "select", "selected.json")
    assert [row["step"] for row in selected["epochs"]] == steps_of(run.workdir / "sft")
    assert all(np.isfinite(row["valid_loss"]) for row in selected["epochs"])
    best = max(selected["epochs"], key=lambda row: row["rm_score"])
    assert best["step"] == selected["step"]
    assert [row["epoch"] for row in selected["epochs"] if row["chosen"]] == [
        best["epoch"]
    ]


def test_results_compare_the_five_models(run):
    results = load_json(run.workdir, "evaluate", "results.json")
    assert set(results["models"]) == set(MODELS)
    assert results["num_prompts"] == 32
    for model in results["models"].values():
        for key in ("win_rate", "likert"):
            mean, low, high = model[key]
            assert low <= mean <= high
        assert len(model["flags"]) >= 3
    assert results["baseline"] == "sft"
    assert results["models"]["sft"]["win_rate"] == [0.5, 0.5, 0.5]
    assert results["models"]["ppo"]["win_rate"][1] < 0.5
    assert set(results["pretrain_loss"]) == {*MODELS, "rl_init"}
    measured = results["evaluators"]
    assert set(measured) == {"world_truthful", "world_toxicity", "world_tasks"}
    for key, found in measured.items():
        assert set(found) == {*MODELS, "rl_init"}
        assert found["gpt"] == found["gpt_prompted"]
        rows = load_json(run.workdir, "evaluate", "samples", f"{key}.rl_init.json")
        assert rows
    rates = results["reward_model"]
    assert set(rates) == {
        f"{kind}_{group}"
        for kind in ("all_pairs", "shared_pairs", "agreement")
        for group in ("train", "heldout")
    }
    labels = load_json(run.workdir, "label", "labels.json")
    for group, split in (("train", "valid"), ("heldout", "heldout")):
        # The pairs that the label stage took the agreement over.
        assert rates[f"agreement_{group}"] == pytest.approx(
            labels[f"agreement_{split}"]
        )
        assert rates[f"shared_pairs_{group}"] != rates[f"all_pairs_{group}"]
        for kind in ("all_pairs", "shared_pairs", "agreement"):
            value, low, high = rates[f"{kind}_{group}"]
            assert 0 <= low < value < high <= 1
    assert set(results["curves"]) == set(METRICS) - {"select"}
    assert all(set(row["responses"]) == set(MODELS) for row in results["samples"])
    for name in MODELS:
        assert len(load_json(run.workdir, "evaluate", "samples", f"{name}.json")) == 48


def test_report_is_one_file_that_opens_offline(run):
    page = (run.workdir / "evaluate" / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") >= 5
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page
    assert "url(http" not in page
    for label in ("GPT (prompted)", "PPO-ptx"):
        assert label in page
    assert (run.workdir / "evaluate" / "figure1.png").stat().st_size > 10_000


def test_no_config_field_is_a_flag_that_nothing_reads(run):
    # The recipe's models have learned positions.
    llama = CONFIGS["llama 3.1"]
    rates = (1.0,) * (llama.rotary_dim // 2)
    table = dict(rotary_scaling="table", rotary_table=rates)
    with reads_of_config_fields() as unread:
        for config in (llama, dataclasses.replace(llama, **table)):
            rotary_angles(jnp.zeros((1, 1, 1), jnp.int32), config)
    left = {cls: fields & unread[cls] for cls, fields in run.unread.items()}
    left["EvaluateConfig"] -= {
        "limit",
        "sets",
        "toxicity",
        "judges",
    }  # see test_benchmarks.py
    left["LabelConfig"] -= {"rankings"}  # see test_judges.py
    assert not {cls: fields for cls, fields in left.items() if fields}


def test_a_second_run_changes_nothing(run, capsys):
    def snapshot():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for path in run.workdir.rglob("*")
        }

    before = snapshot()
    recipe.run(get_config(), run.workdir)
    assert snapshot() == before
    out = capsys.readouterr().out
    assert out.count(": done (") == len(get_config().order)
    models = f"{run.workdir}/sft {run.workdir}/ppo_ptx"
    assert f"python -m instructgpt.chat {models}\n" in out
    assert "Win rate" in out
    assert "report.html" in out


def test_a_reward_model_that_is_there_serves_the_recipe(run, tmp_path, capsys):
    """It takes the place of label and reward, in every stage that reads one.

    The stage that is run says how long it took where that was measured.
    """
    config = get_config(data_dir=str(run.workdir / "data"))
    path = str(run.workdir / "reward")
    config.reward_model = path
    order = recipe.stage_order(config)
    assert set(config.order) - set(order) == {"label", "reward"}
    stages = {name: recipe.stage_config(config, name) for name in order}
    assert stages["ppo"].reward_init.path == stages["ppo_ptx"].reward_init.path == path
    assert stages["select"].select.reward == stages["evaluate"].evaluate.reward == path
    assert stages["evaluate"].evaluate.comparisons == ""
    (tmp_path / "sft").symlink_to(run.workdir / "sft")
    config.order = ("label", "reward", "select")
    config.update(minutes={"select": 1.5}, minutes_on="a tester's desk")
    recipe.run(config, tmp_path)
    assert (
        load_json(tmp_path, "select", "selected.json")["step"]
        == (load_json(run.workdir, "select", "selected.json")["step"])
    )
    out = capsys.readouterr().out
    assert "label" not in out
    assert "minutes were measured on a tester's desk" in out
    assert "=== select, about 1.5 min ===" in out


def test_a_reward_model_of_another_world_is_refused_at_once(run, tmp_path):
    config = get_config()
    config.reward_model, config.world_seed = str(run.workdir / "reward"), 1
    says = r"^config\.reward_model=.*reward: .*another tokenizer than .*select\.data\."
    with pytest.raises(UserError, match=says):
        recipe.run(config, tmp_path / "recipe")
    assert not (tmp_path / "recipe" / "pretrain").exists()


@pytest.mark.parametrize("size", ["1.3b", "175b"])
def test_sizes_that_share_the_paper_s_reward_model_ask_for_it(size, tmp_path):
    config = recipe_config.get_config(size)
    with pytest.raises(
        UserError, match=r"config\.reward_model is not set.*6B"
    ) as error:
        recipe.run(config, tmp_path / "new")
    assert "\n" not in str(error.value)
    config.reward_model = str(tmp_path)
    with pytest.raises(UserError, match="holds no checkpoints"):
        recipe.run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "reward" in recipe_config.get_config("6b").order


@pytest.mark.parametrize("size", ["1.3b", "6b", "175b"])
def test_recipes_for_data_of_ones_own_end_with_the_judge_that_they_have(size):
    config = recipe_config.get_config(size)
    assert recipe.stage_order(config)[-1] == "evaluate"
    assert config.stages.evaluate.judges.to_dict() == {
        "reward": {"name": "reward", "own_policies": True}
    }
    assert config.stages.label.label.ranked_by == "people"


def test_the_seeds_of_world_and_training_are_two(run):
    config = get_config()
    config.seed, config.world_seed = 3, 5
    for name in config.order:
        stage = recipe.stage_config(config, name)
        assert (stage.seed, stage.data.world_seed) == (3, 5)
    meta = load_json(run.workdir, "evaluate", "results.json")["meta"]
    assert (meta["seed"], meta["world_seed"]) == (0, 0)


def test_the_comparison_can_be_made_on_validation_prompts(run, tmp_path):
    config = get_config(data_dir=str(run.workdir / "data")).stages.evaluate
    for name in ("pretrain", "sft", "reward", "label", "select", "rl_init"):
        (tmp_path / name).symlink_to(run.workdir / name)
    config.evaluate.split, config.evaluate.comparisons = "valid", ""
    config.models = {name: config.models[name] for name in ("gpt", "sft")}
    results = evaluate.run(config, tmp_path / "evaluate")
    tested = load_json(run.workdir, "evaluate", "results.json")
    assert (results["split"], tested["split"]) == ("valid", "test")
    assert results["reward_model"] == {}
    assert results["pretrain_loss"]["gpt"] != tested["pretrain_loss"]["gpt"]
    asked = {
        split: {
            row["prompt"]
            for row in load_json(folder, "evaluate", "samples", "sft.json")
        }
        for split, folder in (("valid", tmp_path), ("test", run.workdir))
    }
    assert not asked["valid"] & asked["test"]
    assert "validation" in (tmp_path / "evaluate" / "report.html").read_text()


def test_a_mesh_of_the_tests_uses_all_devices():
    assert make_mesh(MeshConfig(**MESH)).size == jax.device_count() == 8
