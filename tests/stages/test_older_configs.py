"""A workdir made before its stage had a key resumes with the key's default."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from instructgpt.errors import UserError
from instructgpt.identity import (
    FINISHED,
    IDENTITY,
    Identity,
    write_finished,
    write_json,
)
from instructgpt.stages import opening, recipe
from instructgpt.stages.blocks import defaults
from tests.stages.recipe_run import Finished, finished, get_config

STAGES = tuple(get_config().order)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture
def older(run: Finished, tmp_path: Path) -> Path:
    """The finished recipe as if no config had named what it left at its default."""
    root, renamed = tmp_path / "older", {}
    shutil.copytree(run.workdir, root)
    for name in STAGES:
        path = root / name / IDENTITY
        now, known = Identity.read(path), defaults(get_config().stages[name])
        config = {k: v for k, v in now.config.items() if known.get(k, ...) != v}
        assert len(config) < len(now.config) - 2
        parents = {
            key: " ".join(renamed[digest] for digest in value.split())
            for key, value in now.parents.items()
        }
        then = dataclasses.replace(now, config=config, parents=parents)
        renamed[now.digest] = then.digest
        assert then.digest != now.digest
        write_json(path, dataclasses.asdict(then))
        write_finished(root / name, then)
    return root


def test_a_finished_recipe_of_then_is_finished_now(older, capsys):
    before = {p: p.read_bytes() for p in older.glob("*/*.json")}
    recipe.run(get_config(), older)
    assert capsys.readouterr().out.count(": done") == len(STAGES)
    assert {p: p.read_bytes() for p in older.glob("*/*.json")} == before


def test_a_key_of_now_with_another_value_is_a_difference(older):
    config = get_config()
    config.stages.sft.optimizer.weight_decay = 0.5
    says = r"config\.stages\.sft\.optimizer\.weight_decay: 0\.0 -> 0\.5"
    with pytest.raises(UserError, match=f"holds a run of something else.*{says}"):
        recipe.run(config, older)


def test_a_run_that_goes_on_keeps_its_name(older):
    """So that the stages that have read it still know it."""
    workdir = older / "sft"
    (workdir / FINISHED).unlink()
    made = (workdir / IDENTITY).read_bytes()
    stage = recipe.stage_config(get_config(), "sft")
    context = opening.start(stage, workdir)
    opening.finish(context)
    assert (workdir / IDENTITY).read_bytes() == made
    left = json.loads((workdir / FINISHED).read_text())["identity"]
    assert Identity(**left).digest == Identity.read(workdir / IDENTITY).digest
    recipe.run(get_config(), older)


def test_a_config_that_names_less_is_the_same_run(run, tmp_path):
    """As one that somebody wrote out by hand."""
    stage = recipe.stage_config(get_config(data_dir=str(run.workdir / "data")), "sft")
    for name in STAGES:
        (tmp_path / name).symlink_to(run.workdir / name)
    workdir = tmp_path / "again"
    opening.start(stage, workdir)
    (workdir / "metrics.jsonl").touch()
    stage.optimizer = dict(learning_rate=1e-3, schedule="cosine")
    stage.init = dict(path="../pretrain")
    opening.start(stage, workdir)
    stage.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: 0\.001 -> 0\.5"):
        opening.start(stage, workdir)
