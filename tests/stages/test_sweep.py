"""Sweeps over the finished recipe: their runs, rows, resumes, and refusals."""

import json
import math
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import sweep as sweep_config
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.stages import STAGES, recipe, sweep
from instructgpt.stages.opening import take_typed
from instructgpt.stages.sweep_values import data_block, point_config, read_sweep
from tests.configs.test_flags import parse
from tests.stages.recipe_run import Finished, finished

REPO = Path(__file__).resolve().parents[2]
NUMBERS = {
    *("rm_score", "win_rate", "likert", "utility", "kl"),
    *("response_length", "pretrain_loss"),
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def get_config(name: str, recipe_of: Path, **sweep_keys: str) -> ConfigDict:
    """A smoke sweep over the recipe in another folder."""
    config = sweep_config.get_config(f"{name}_smoke")
    config.sweep.recipe = str(recipe_of)
    config.sweep.update(sweep_keys)
    for stage in config.stages.values():
        if "train" in stage and "ppo" in stage:
            stage.train.num_steps = 2
    return config


def rows_of(workdir: Path) -> dict[tuple[str, str], dict]:
    results = json.loads((workdir / "results.json").read_text())
    return {(row["value"], row["stage"]): row for row in results["rows"]}


def snapshot(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_beta_measures_each_value_and_takes_more(run, tmp_path, capsys):
    workdir = tmp_path / "beta"
    config = get_config("beta", run.workdir, grid="0")
    sweep.run(config, workdir)
    ((key, row),) = rows_of(workdir).items()
    saved = json.loads((workdir / "runs/0/ppo_ptx/config.json").read_text())
    assert key == ("0", "ppo_ptx")
    assert saved["ppo"]["kl_coef"] == 0.0 == row["sets"]["ppo.kl_coef"]
    assert set(row["numbers"]) == NUMBERS and row["pfs_days"] > 0
    for mean, low, high in row["numbers"].values():
        assert low <= mean <= high and math.isfinite(mean)
    beside = json.loads((workdir / "results.json").read_text())["beside"]
    assert beside["sft"]["win_rate"][0] == 0.5
    assert beside["rl_init"]["kl"] == [0, 0, 0]
    assert set(beside["pretrain"]) == {"pretrain_loss"}
    out = capsys.readouterr().out
    assert "KL coefficient β: 0 (1 of 1)" in out and "report.html" in out
    assert (workdir / "sweep.png").stat().st_size > 10_000
    assert "over-optimised" in (workdir / "report.html").read_text()
    # The same line again leaves everything as it is.
    before = snapshot(workdir)
    sweep.run(config, workdir)
    assert snapshot(workdir) == before
    # One value more runs this value alone.
    config.sweep.grid = "0,0.2"
    sweep.run(config, workdir)
    kept = snapshot(workdir / "runs" / "0")
    assert kept == {path: before[path] for path in kept}
    assert list(rows_of(workdir)) == [("0", "ppo_ptx"), ("0.2", "ppo_ptx")]


def test_a_run_that_diverges_has_a_row_and_is_not_run_again(
    run, tmp_path, monkeypatch, capsys
):
    keys = dict(stage="sft", key="optimizer.learning_rate", grid="1e30,1e-3")
    config = get_config("rate", run.workdir, **keys)
    config.measure.num_prompts = 4
    sweep.run(config, tmp_path / "rate")
    diverged, good = rows_of(tmp_path / "rate").values()
    assert (diverged["status"], good["status"]) == ("diverged", "finished")
    assert "not finite" in diverged["message"] and "numbers" not in diverged
    assert "1e30: diverged; " in capsys.readouterr().out
    assert ">diverged<" in (tmp_path / "rate" / "report.html").read_text()
    (tmp_path / "rate" / "finished.json").unlink()
    (tmp_path / "rate" / "results.json").unlink()

    def never(*args):
        if "1e30" in str(args[1]):
            raise AssertionError
        return args[1]

    monkeypatch.setattr(recipe, "run_stage", never)
    sweep.run(config, tmp_path / "rate")
    assert rows_of(tmp_path / "rate")["1e30", "sft"]["status"] == "diverged"


def test_a_size_is_several_keys_and_a_chain_of_stages(run, tmp_path):
    keys = dict(stage="pretrain,rl_init", measured="pretrain,rl_init", grid="1/16/2")
    config = get_config("size", run.workdir, **keys)
    config.stages.pretrain.train.num_steps = 2
    config.stages.rl_init.train.num_epochs = 1
    config.measure.num_prompts = 4
    sweep.run(config, tmp_path / "size")
    rows = rows_of(tmp_path / "size")
    assert list(rows) == [("1/16/2", "pretrain"), ("1/16/2", "rl_init")]
    # The KL is measured against the value's own reference, of the same size.
    assert rows["1/16/2", "rl_init"]["numbers"]["kl"] == [0, 0, 0]
    own = tmp_path / "size" / "runs" / "1_16_2"
    assert {p.name for p in own.iterdir() if p.is_dir()} == {"pretrain", "rl_init"}
    saved = json.loads((own / "rl_init" / "config.json").read_text())
    assert saved["init"]["path"] == "../pretrain"
    of_all = ModelConfig(
        vocab_size=1280, context_length=192, num_layers=1, width=16, num_heads=2
    )
    assert {row["num_params"] for row in rows.values()} == {of_all.num_params}


def test_runs_read_the_recipe_except_for_what_the_sweep_makes(tmp_path):
    config = get_config("size", tmp_path / "recipe")
    config.sweep.recipe = "../.."
    found = read_sweep(config, tmp_path / "recipe" / "sweeps" / "size")
    stages = point_config(config, found, found.points[0]).stages
    assert stages.ppo_ptx.init.path == "../rl_init"
    assert stages.ppo_ptx.reward_init.path == "../../../../../reward"
    assert stages.sft.data.dir == "../../../../../data"
    assert data_block(config, found).dir == "../../data"


def test_demonstrations_are_limited(run, tmp_path):
    config = get_config("p3", run.workdir, grid="32,64")
    config.measure.num_prompts = 4
    sweep.run(config, tmp_path / "p3")
    fewer, more = rows_of(tmp_path / "p3").values()
    assert fewer["pfs_days"] < more["pfs_days"]


def test_a_reward_model_is_measured_by_rankings(run, tmp_path):
    keys = dict(stage="reward", key="optimizer.learning_rate", grid="1e-3")
    config = get_config("own", run.workdir, **keys)
    sweep.run(config, tmp_path / "reward")
    (row,) = rows_of(tmp_path / "reward").values()
    assert set(row["numbers"]) == {"accuracy_valid", "accuracy_heldout"}


WRONG = [
    (dict(stage="dpo"), r"config\.sweep\.stage: 'dpo' is no stage that trains"),
    (dict(stage="label"), "no stage that trains a model; give one of ppo, ppo_ptx"),
    (dict(stage=""), r"config\.sweep\.stage='': name each stage once"),
    (dict(key="ppo.kl_coeff"), r"no key 'ppo\.kl_coeff'; did you mean 'ppo\.kl_coef'"),
    (dict(key=""), r"config\.sweep\.key is empty"),
    (dict(key="data.world_seed"), "the recipe's models know one world"),
    (dict(grid="0.1,high"), "'high' is not a number, which config.stages.ppo_ptx"),
    (dict(key="rollout.epochs", grid="1.5"), r"'1\.5' is not a whole number"),
    (dict(key="ppo.whiten_advantages", grid="yes"), "'yes' is not true or false"),
    (dict(grid="0.1,0.10"), r"'0\.1' and '0\.10' are the same"),
    (dict(grid=""), r"config\.sweep\.grid is empty"),
    (dict(key="ppo.clip,ppo.kl_coef"), "has 1 parts, and .* names 2 keys"),
    (
        dict(grid="0.1,-1"),
        r"at -1: config\.stages\.ppo_ptx\.ppo\.kl_coef=-1\.0:",
    ),
    (dict(key="ppo.ptx_coef", grid="1,0"), "at 0: .*go together"),
    (dict(measured="sft"), r"config\.sweep\.measured: 'sft' is not in"),
]


@pytest.mark.parametrize(("keys", "says"), WRONG)
def test_a_mistake_is_one_line_before_any_run(keys, says, tmp_path):
    config = get_config("beta", tmp_path, **keys)
    with pytest.raises(UserError, match=says) as error:
        sweep.run(config, tmp_path / "beta")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "beta").exists()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_flags_name_a_sweep_of_ones_own(tmp_path):
    given = {
        "sweep.stage": "ppo_ptx",
        "sweep.key": "ppo.kl_coef",
        "sweep.grid": "0,0.02,1e-1",
        "sweep.recipe": "runs/mini",
        "stages.ppo_ptx.init.path": "other/rl_init",
    }
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    config = parse(f"{REPO}/configs/sweep.py:own_smoke", *flags)
    take_typed(config, given, tmp_path / "mine")
    found = read_sweep(config, tmp_path / "mine")
    values = [value for point in found.points for value in point.values.values()]
    assert values == [0.0, 0.02, 0.1] and {type(value) for value in values} == {float}
    assert found.recipe == Path("runs/mini").absolute()
    stage = point_config(config, found, found.points[0]).stages.ppo_ptx
    assert Path(stage.init.path) == Path("other/rl_init").absolute()
    assert Path(stage.reward_init.path) == Path("runs/mini/reward").absolute()


def test_a_recipe_that_is_not_there_is_named_before_any_run(run, tmp_path):
    config = get_config("beta", tmp_path / "nothing")
    config.data.dir = str(run.workdir / "data")
    says = r"there is no folder .*nothing; .*--config\.sweep\.recipe=WORKDIR"
    with pytest.raises(UserError, match=says):
        sweep.run(config, tmp_path / "beta")
    assert not (tmp_path / "beta" / "runs").exists()


def test_a_start_that_is_not_there_is_named_before_any_run(run, tmp_path):
    config = get_config("own", run.workdir, stage="sft", key="init.step", grid="6,99")
    with pytest.raises(UserError, match=r"at 99: config\.stages\.sft\.init: .*99"):
        sweep.run(config, tmp_path / "steps")
    assert not (tmp_path / "steps" / "runs").exists()


@pytest.mark.parametrize("name", [n for n in sweep_config.SWEEPS if n != "own"])
@pytest.mark.parametrize("size", ["smoke", "mini", "1.3b"])
def test_every_sweep_has_values_that_its_stages_take(name, size, tmp_path):
    config = sweep_config.get_config(name if size == "mini" else f"{name}_{size}")
    for stage in ("pretrain", "sft", "rl_init"):
        config.stages[stage].train.batch_size = 40  # divides over the tests' devices
    found = read_sweep(config, tmp_path / "x")
    assert len(found.points) > 1
    assert set(found.chain) <= STAGES.keys() | {"ppo_ptx", "rl_init"}


def test_a_sweep_that_does_not_exist():
    with pytest.raises(ValueError, match=r"'alpha' does not exist; give a sweep"):
        sweep_config.get_config("alpha")
    with pytest.raises(ValueError, match="'nano' does not exist"):
        sweep_config.get_config("beta_nano")
