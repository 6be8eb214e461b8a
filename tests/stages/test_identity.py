"""A run knows what it is made of: started again, finished, or opened by another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from instructgpt import identity
from instructgpt.errors import UserError
from instructgpt.identity import FINISHED, IDENTITY, Identity
from instructgpt.stages import common, loading, recipe
from tests.hf_models import write_chat_tokenizer
from tests.stages.recipe_run import Finished, finished, get_config
from tests.stages.test_public_recipe import write_records

STAGES = tuple(get_config().order)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def stage_config(run: Finished, stage: str) -> ConfigDict:
    """A finished stage's config, for a workdir beside that of the recipe's stages."""
    return recipe.stage_config(get_config(data_dir=str(run.workdir / "data")), stage)


@pytest.fixture
def begun(run: Finished, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a workdir of a stage that was stopped after something was saved."""
    for name in STAGES:
        (tmp_path / name).symlink_to(run.workdir / name)

    def begin(stage: str) -> Path:
        workdir = tmp_path / f"{stage}_again"
        common.start(stage_config(run, stage), workdir)
        (workdir / "metrics.jsonl").touch()
        return workdir

    return begin


def another_world(config: ConfigDict) -> None:
    config.data.world_seed = 1


def another_seed(config: ConfigDict) -> None:
    config.seed = 1


def another_template(config: ConfigDict) -> None:
    config.data.template = "dialogue"


def another_rate(config: ConfigDict) -> None:
    for key in ("optimizer", "policy_optimizer"):
        if key in config:
            config[key].learning_rate = 0.5


CHANGES = {
    r"config\.seed: 0 -> 1": another_seed,
    r"config\.data\.world_seed: 0 -> 1": another_world,
    r"config\.data\.template: plain -> dialogue": another_template,
    r"config\.(policy_)?optimizer\.learning_rate: \S+ -> 0\.5": another_rate,
}
UNTRAINED = ("label", "select", "prefix", "evaluate")  # which have no rate


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_started_again_as_something_else_is_refused(run, begun, stage):
    workdir = begun(stage)
    before = sorted(path.name for path in workdir.iterdir())
    for says, change in CHANGES.items():
        config = stage_config(run, stage)
        change(config)
        if change is another_rate and stage in UNTRAINED:
            continue
        with pytest.raises(UserError, match=f"holds a run of something else.*{says}"):
            common.start(config, workdir)
    assert sorted(path.name for path in workdir.iterdir()) == before


@pytest.mark.parametrize("stage", STAGES)
def test_what_may_change_does(run, begun, stage):
    workdir = begun(stage)
    config = stage_config(run, stage)
    config.mesh = dict(data=4, fsdp=1, tensor=2)
    if "train" in config:
        config.train.log_every, config.train.eval_every = 7, 9
        config.train.keep = 3
    config.trackers = "tests.test_trackers:Printer"
    common.start(config, workdir)


def saved(workdir: Path, step: int) -> None:
    """As if a checkpoint had been written."""
    (workdir / "checkpoints" / str(step)).mkdir(parents=True)


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_run_goes_on_with_another_rate_where_that_is_said(run, begun, stage):
    workdir, config = begun(stage), stage_config(run, stage)
    first = common.start(config, workdir).identity
    saved(workdir, 3)
    another_rate(config)
    with pytest.raises(UserError, match=r"or name the keys in --config\.resume\.cha"):
        common.start(config, workdir)
    key = "policy_optimizer" if stage == "ppo" else "optimizer"
    config.resume.changed = (f"{key}.learning_rate,seed",)
    second = common.start(config, workdir).identity
    assert second.before == [{"identity": first.digest, "step": 3}]
    assert (
        json.loads((workdir / "config.json").read_text())[key]["learning_rate"] == 0.5
    )
    # The same line again, or without what has been said, is the same run.
    saved(workdir, 4)
    assert common.start(config, workdir).identity == second
    config.resume.changed = ()
    assert common.start(config, workdir).identity == second
    fresh = common.start(config, workdir.parent / "fresh").identity
    assert fresh.config == second.config
    assert fresh.digest != second.digest
    config.train.batch_size *= 2
    with pytest.raises(UserError, match=r"changed: config\.train\.batch_size"):
        common.start(config, workdir)


def test_a_key_that_is_none_and_a_run_that_has_ended_do_not_change(run, begun):
    config = stage_config(run, "sft")
    config.resume.changed = ("optimizer.rate",)
    with pytest.raises(UserError, match=r"no key 'optimizer\.rate'; did you mean 'op"):
        common.start(config, begun("sft"))
    another_rate(config)
    config.resume.changed = ("optimizer.learning_rate",)
    with pytest.raises(UserError, match="holds a run of something else"):
        common.start(config, run.workdir / "sft")


PARENTS = {
    "sft": ("init.path", "rl_init"),
    "rl_init": ("init.path", "sft"),
    "label": ("label.policies", ("rl_init",)),
    "reward": ("reward.comparisons", ""),
    "select": ("select.reward", "ppo"),
    "ppo": ("reward_init.path", "sft"),
    "ppo_ptx": ("init.path", "sft"),
    "evaluate": ("evaluate.reward", "ppo"),
}


@pytest.mark.parametrize("stage", PARENTS)
def test_other_parents_are_refused_and_the_same_elsewhere_are_not(run, begun, stage):
    workdir, (key, other) = begun(stage), PARENTS[stage]
    config = stage_config(run, stage)
    block, name = key.split(".")
    here = config[block][name]
    # The same stages under another path.
    absolute = lambda path: str(run.workdir / Path(path).name)  # noqa: E731
    same = absolute(here) if isinstance(here, str) else tuple(map(absolute, here))
    config[block][name] = same
    common.start(config, workdir)
    config[block][name] = f"../{other}" if isinstance(other, str) and other else other
    with pytest.raises(UserError, match=rf"config\.{key}: another run's models or fil"):
        common.start(config, workdir)


def jsonl_config(run: Finished, folder: Path) -> ConfigDict:
    config = stage_config(run, "sft")
    config.data.update(jsonl=str(folder), dir=str(folder / "sets"))
    return config


def test_records_and_tokenizer_are_looked_at_not_their_names(run, begun, tmp_path):
    folder = tmp_path / "records"
    write_records(folder)
    write_chat_tokenizer(folder)
    config = jsonl_config(run, folder)
    workdir = tmp_path / "mine"
    common.start(config, workdir)
    (workdir / "metrics.jsonl").touch()
    # Elsewhere the same files are the same.
    moved = shutil.copytree(folder, tmp_path / "moved")
    common.start(jsonl_config(run, moved), workdir)
    # A letter of one record is another set, with as many records.
    file = moved / "demonstrations.train.jsonl"
    file.write_text(file.read_text().replace("e", "a", 1))
    says = r"config\.data: another demonstrations\.train\.jsonl"
    with pytest.raises(UserError, match=says):
        common.start(jsonl_config(run, moved), workdir)
    shutil.copy(folder / file.name, file)
    (moved / "prompts.valid.jsonl").unlink(missing_ok=True)
    (moved / "comparisons.valid.jsonl").unlink()
    with pytest.raises(UserError, match=r"another comparisons\.valid\.jsonl"):
        common.start(jsonl_config(run, moved), workdir)
    config.data.tokenizer = str(
        run.workdir / "data" / next(iter(world_tokenizers(run)))
    )
    with pytest.raises(UserError, match=r"config\.data\.tokenizer: another tokenizer"):
        common.start(config, workdir)


def world_tokenizers(run: Finished) -> list[Path]:
    data = run.workdir / "data"
    return [path.relative_to(data) for path in data.glob("*/tokenizer-*.model")]


@pytest.fixture
def copied(run: Finished, tmp_path: Path) -> Path:
    """A finished recipe that a test may change."""
    return shutil.copytree(run.workdir, tmp_path / "recipe", symlinks=True)


RECIPES: dict[str, tuple[str, Any]] = {
    r"config\.seed: 0 -> 1": ("seed", 1),
    r"config\.world_seed: 0 -> 3": ("world_seed", 3),
    r"config\.stages\.sft\.optimizer\.learning_rate: \S+ -> 1\.0": (
        "stages.sft.optimizer.learning_rate",
        1.0,
    ),
    r"config\.stages\.evaluate\.evaluate\.split: test -> valid": (
        "stages.evaluate.evaluate.split",
        "valid",
    ),
}


@pytest.mark.parametrize("says", RECIPES)
def test_a_finished_recipe_is_not_what_another_config_asks_for(run, says, capsys):
    key, value = RECIPES[says]
    config = get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"holds a run of something else.*{says}"):
        recipe.run(config, run.workdir)
    assert "done" not in capsys.readouterr().out


def test_another_variant_of_a_finished_recipe_is_refused(run):
    from configs import recipe as recipe_config

    config = recipe_config.get_config("mini")
    for stage in config.stages.values():
        stage.mesh.cpu_devices = 1
    with pytest.raises(UserError, match="holds a run of something else"):
        recipe.run(config, run.workdir)


def test_free_keys_of_a_finished_recipe_are_free(run, capsys):
    config = get_config()
    for stage in config.stages.values():
        if "train" in stage:
            stage.train.log_every = 5
    config.trackers = ""
    recipe.run(config, run.workdir)
    assert capsys.readouterr().out.count(": done") == len(config.order)


def test_a_stage_that_is_gone_is_made_again_and_no_other(copied, capsys):
    shutil.rmtree(copied / "select")
    (copied / "minutes.json").unlink()
    recipe.run(get_config(), copied)
    said = capsys.readouterr().out
    assert said.count("===") == 2 and "=== select ===" in said
    assert said.count(": done") == len(STAGES) - 1


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
@pytest.mark.parametrize(
    ("gone", "then"),
    [("sft/checkpoints/8", "evaluate"), ("select/metrics.jsonl", "evaluate")],
)
def test_what_is_made_again_is_not_called_damaged_after_it(copied, gone, then):
    """It holds other times than what was there before."""
    path = copied / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for missing in (None, then):
        if missing:
            (copied / then / "results.json").unlink()
        recipe.run(get_config(), copied)
        assert all(identity.is_finished(copied / name) for name in STAGES)
    recipe.run(get_config(), copied)


def test_the_worlds_tokenizer_is_compared_with_the_one_that_was_made(copied):
    (path,) = (copied / "data").glob("*/tokenizer-*.model")
    made = path.read_bytes()
    path.write_bytes(made.replace("▁the".encode(), "▁qhe".encode(), 1))
    with pytest.raises(UserError, match=rf"{path.name}: damaged; delete it and .*json"):
        recipe.run(get_config(), copied)
    path.unlink()
    path.with_name("files.json").unlink()
    recipe.run(get_config(), copied)
    assert path.read_bytes() == made


def test_after_an_attempt_that_trained_nothing_the_first_line_goes_on(run, begun):
    workdir = begun("sft")
    (workdir / "checkpoints" / "4").mkdir(parents=True)
    first = (workdir / IDENTITY).read_text()
    config = stage_config(run, "sft")
    another_rate(config)
    config.resume.changed = ("optimizer.learning_rate",)
    common.start(config, workdir)
    assert (workdir / IDENTITY).read_text() != first
    with pytest.raises(UserError, match=r"config\.seed: 0 -> 1"):
        other = stage_config(run, "sft")
        another_seed(other)
        common.start(other, workdir)
    common.start(stage_config(run, "sft"), workdir)
    assert (workdir / IDENTITY).read_text() == first


def test_an_attempt_that_trains_nothing_leaves_no_mark():
    def of(rate, **more):
        return Identity({"rate": rate}, {}, "tokenizer", {}, **more)

    first = of(1.0)
    assert first.after(first, step=3) == first
    second = of(0.5).after(first, step=3)
    assert second.before == [{"identity": first.digest, "step": 3}]
    assert of(0.5).after(second, step=3) == second
    # back, or to a third, while nothing was trained as the second
    assert of(1.0).after(second, step=3) == first
    third = of(0.2).after(second, step=3)
    assert third.before == second.before
    # after two more steps as the second
    third = of(0.2).after(second, step=5)
    assert third.before == [*second.before, {"identity": second.digest, "step": 5}]
    assert of(0.2).after(third, step=0).before == []


@pytest.mark.parametrize("gone", ["checkpoints", "metrics.jsonl"])
def test_what_is_not_all_there_is_not_finished(copied, gone):
    path = copied / "rl_init" / gone
    assert identity.is_finished(copied / "rl_init")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not identity.is_finished(copied / "rl_init")


def test_an_unfinished_stage_is_not_opened_but_for_a_step_that_is_named(copied):
    (copied / "reward" / FINISHED).unlink()
    config = recipe.stage_config(get_config(), "ppo")
    context = common.start(config, copied / "ppo_more")
    (step,) = (int(p.name) for p in (copied / "reward/checkpoints").iterdir())
    with pytest.raises(UserError, match=r"reward is not finished: start that stage ag"):
        loading.find(loading.InitConfig("../reward"), context, scalar=True)
    loading.find(loading.InitConfig("../reward", step=step), context, scalar=True)
    with pytest.raises(UserError, match="reward is not finished"):
        loading.checkpoint_steps("../reward", context)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (another_world, r"reward: .*another tokenizer.*config\.data\.tokenizer"),
        (another_template, r"data\.template='plain', and this stage has 'dialogue'"),
    ],
)
def test_models_of_other_tokenizers_and_templates_are_not_opened(run, change, says):
    config = stage_config(run, "ppo")
    change(config)
    if change is another_world:  # as many pieces, and other ones
        config.data.dir = str(run.workdir.parent / "world_1")
    context = common.start(config, run.workdir.parent / f"{change.__name__}_ppo")
    with (
        jax.set_mesh(context.mesh),
        pytest.raises(UserError, match=says),
    ):
        loading.load(
            loading.InitConfig(str(run.workdir / "reward")), context, scalar=True
        )


def test_held_out_records_are_the_same_of_kinds_that_both_have():
    made = dict(tokenizer="t", template="plain")
    here = {**made, "held_out": {"prompts.test.jsonl": "a", "world": "0"}}
    meta = {"templated": True, "made_with": {**made, "held_out": {}}}
    check = loading.check_made_alike
    check("sft", meta, here)
    check("sft", {"model": {}}, here)  # imported
    meta["made_with"]["held_out"] = {"demonstrations.valid.jsonl": "b", "world": "0"}
    check("sft", meta, here)
    for key, name in (("world", "world_seed"), ("prompts.test.jsonl", "jsonl, pro")):
        meta["made_with"]["held_out"] = {key: "other"}
        with pytest.raises(UserError, match=rf"^sft: .*config\.data\.{name}"):
            check("sft", meta, here)
    # Text is not put into a template.
    meta = {"templated": False, "made_with": {**made, "template": "", "held_out": {}}}
    check("pretrain", meta, here)


def test_a_seed_a_rate_and_a_size_are_free_between_stages(run, tmp_path):
    config = stage_config(run, "ppo")
    config.seed = 5
    another_rate(config)
    context = common.start(config, tmp_path / "ppo")
    loading.find(loading.InitConfig(str(run.workdir / "reward")), context, scalar=True)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("ppo/finished.json", lambda text: text.replace("kl_coef", "kl_coeg", 1)),
        ("label/labels.json", lambda text: text[:-20]),
        ("select/selected.json", lambda text: text.replace("1", "2", 1)),
        ("sft/identity.json", lambda text: text.replace('"data"', '"date"', 1)),
        ("evaluate/results.json", lambda text: text.replace("0.", "1.", 1)),
        ("sft/identity.json", lambda text: text.replace("0.001", "0.002", 1)),
        ("minutes.json", lambda text: text[1:]),
        ("minutes.json", lambda text: text.replace("0.", "1.", 1)),
    ],
)
def test_damage_to_small_files_is_named(copied, file, damage):
    path = copied / file
    path.write_text(damage(path.read_text()))
    if file in ("label/labels.json", "select/selected.json"):
        shutil.rmtree(copied / "evaluate")  # which reads it
    with pytest.raises(UserError, match=rf"{file} is (damaged|missing)"):
        recipe.run(get_config(), copied)


def test_the_identity_says_what_it_stands_for(run):
    made = json.loads((run.workdir / "ppo" / IDENTITY).read_text())
    assert made["parents"].keys() == {"init.path", "reward_init.path"}
    assert made["data"] == {"world": "0"}
    assert not made["config"].keys() & set(identity.FREE_KEYS)
    files = json.loads((run.workdir / "label" / FINISHED).read_text())["files"]
    assert {"labels.json", "answers.train.jsonl"} <= files.keys()
