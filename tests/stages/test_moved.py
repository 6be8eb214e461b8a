"""A tree of stages opens and goes on in another folder, started from any other."""

import shutil
from pathlib import Path

import pytest

from instructgpt.checkpoints import open_checkpoint
from instructgpt.stages import common, loading, recipe
from tests import tiny
from tests.stages.recipe_run import Finished, finished, get_config, load_checkpoint

STAGES = tuple(get_config().order)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(params=["-moved", "a [b] ü\\ {c}*?"])
def moved(
    run: Finished,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The finished recipe in another folder; the current folder is a third."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return shutil.copytree(run.workdir, tmp_path / request.param, symlinks=True)


def test_nothing_in_a_tree_names_the_folder_it_was_made_in(run):
    name = str(run.workdir).encode()
    files = [path for path in run.workdir.rglob("*") if path.is_file()]
    named = {path.name for path in files if name in path.read_bytes()}
    # Orbax says there where it was, and never reads it again.
    assert named <= {"commit_success.txt"}


def test_a_moved_recipe_is_done_and_goes_on(run, moved, capsys):
    recipe.run(get_config(), moved)
    out = capsys.readouterr().out
    first, *lines = out.splitlines()
    assert first == f"recipe:smoke, in {moved}: {', '.join(STAGES)}"
    assert [line.split(":")[0] for line in lines[: len(STAGES)]] == [*STAGES]
    assert out.count(": done") == len(STAGES)
    assert "Win rate vs SFT" in out
    assert f"report: {moved}/evaluate/report.html" in out
    shutil.rmtree(moved / "rl_init")
    recipe.run(get_config(), moved)
    out = capsys.readouterr().out
    assert "=== rl_init ===" in out
    assert out.count(": done") == len(STAGES) - 1
    assert {path.name for path in moved.parent.iterdir()} == {moved.name, "elsewhere"}
    again = shutil.copytree(moved / "rl_init", moved.parent / "again")
    parts = [load_checkpoint(path) for path in (again, run.workdir / "rl_init")]
    tiny.assert_equal(parts[0]["params"], parts[1]["params"])


def test_a_stage_beside_it_opens_one_that_was_moved(run, moved):
    config = get_config().stages.sft
    typed = {
        "init.path": f"../{moved.name}/pretrain",
        "data.dir": f"../{moved.name}/data",
    }
    config.update_from_flattened_dict(typed)
    workdir = moved.parent / "mine" / "sft"
    common.take_typed(config, typed, workdir)
    context = common.start(config, workdir)
    init = common.build(loading.InitConfig, config.init, where="config.init")
    found = loading.find(init, context)
    checkpoints, step = open_checkpoint(moved / "pretrain")
    assert checkpoints.meta(step)["model"]["width"] == found.width
    checkpoints.close()
