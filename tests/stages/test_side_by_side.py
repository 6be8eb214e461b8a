"""Calls in processes of their own: their cores, their mistakes, their end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from instructgpt.errors import UserError
from instructgpt.stages import recipe, side_by_side
from tests.stages.recipe_run import Finished, finished, get_config

REPO = Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not CORES, reason="the cores of a process are unknown")


def write_cores(path: Path) -> None:
    path.write_text(str(sorted(os.sched_getaffinity(0))))


def mistake() -> None:
    raise UserError("config.ppo.clip=7: too much")


def die() -> None:
    os._exit(3)


def linger(path: Path) -> None:
    """Writes its process id and stays until it is told to go."""
    path.write_text(str(os.getpid()))
    time.sleep(60)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited for half a minute")


def test_cores_are_shared_out():
    shares = side_by_side.shares(len(CORES))
    assert shares == [[core] for core in CORES]
    assert side_by_side.shares(len(CORES) + 1) == []


def test_each_call_has_its_cores(tmp_path):
    calls = {n: (write_cores, (tmp_path / n,)) for n in ("a", "b")}
    side_by_side.run(calls, [CORES[:1], CORES[-1:]])
    assert (tmp_path / "a").read_text() == str(CORES[:1])
    assert (tmp_path / "b").read_text() == str(CORES[-1:])


def test_a_mistake_stops_the_others_and_is_raised(tmp_path):
    calls = {"wrong": (mistake, ()), "long": (linger, (tmp_path / "pid",))}
    began = time.monotonic()
    with pytest.raises(UserError, match=r"config\.ppo\.clip=7: too much"):
        side_by_side.run(calls, [CORES[:1], CORES[:1]])
    assert time.monotonic() - began < 50


def test_a_process_that_dies_is_named():
    with pytest.raises(RuntimeError, match="ppo ended with exit code 3"):
        side_by_side.run({"ppo": (die, ())}, [CORES[:1]])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_outlives_the_parent(tmp_path, number):
    path = tmp_path / "pid"
    code = (
        "from pathlib import Path\n"
        "from instructgpt.stages import side_by_side\n"
        "from tests.stages.test_side_by_side import linger\n"
        "if __name__ == '__main__':\n"
        f"    calls = {{'a': (linger, (Path({str(path)!r}),))}}\n"
        f"    side_by_side.run(calls, [{CORES[:1]}])\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, cwd=REPO)
    wait_for(lambda: path.exists() and path.read_text())
    child = int(path.read_text())
    parent.send_signal(number)
    assert parent.wait(timeout=60) == (143 if number == signal.SIGTERM else -number)
    wait_for(lambda: not is_alive(child))


def test_a_name_that_is_no_stage_is_refused(tmp_path):
    config = get_config()
    config.together = ("ppo", "dpo")
    with pytest.raises(UserError, match=r"config\.together: 'dpo' is not in"):
        recipe.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_stages_side_by_side_leave_the_same_bits(run, tmp_path, monkeypatch, capfd):
    names = ("ppo", "ppo_ptx")
    workdir = tmp_path / "recipe"
    shutil.copytree(run.workdir, workdir, ignore=shutil.ignore_patterns(*names, "data"))
    (workdir / "minutes.json").unlink()  # no more than a note
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    config = get_config(data_dir=str(run.workdir / "data"))
    config.together = names
    recipe.run(config, workdir)
    assert "=== ppo and ppo_ptx, side by side ===" in capfd.readouterr().out
    assert recipe._minutes(workdir).keys() == set(names)
    for name in names:
        one, other = (
            ocp.load_checkpointables(root / name / "checkpoints" / "4")["params"]
            for root in (workdir, run.workdir)
        )
        assert jax.tree.structure(one) == jax.tree.structure(other)
        jax.tree.map(np.testing.assert_array_equal, one, other)
