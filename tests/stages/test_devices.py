"""Eight devices (data x fsdp x tensor) and one give the same run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instructgpt.metrics import read_metrics
from tests.stages.recipe_run import Finished, finished

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def run_on_one_device(config: str, workdir: Path, *overrides: str) -> str:
    """The command of the README in a process with one device; gives what it printed."""
    flags = [f"--config=configs/{config}.py:smoke", f"--workdir={workdir}", *overrides]
    done = subprocess.run(
        [sys.executable, "-m", "instructgpt.main", *flags],
        cwd=REPO,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr  # what a newcomer would take for a problem
    return done.stdout


def assert_same_curves(actual: Path, expected: Path, names: dict[str, float]) -> None:
    rows, others = (read_metrics(w / "metrics.jsonl") for w in (actual, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() & names.keys():
            assert row[name] == pytest.approx(other[name], abs=names[name]), (name, row)


@pytest.mark.slow
def test_pretraining(run, tmp_path):
    data = f"--config.data.dir={run.workdir}/data"
    out = run_on_one_device("pretrain", tmp_path, data)
    assert "pretrain" in out
    assert "tokens/s" in out
    names = dict(loss=2e-5, valid_loss=2e-5, grad_norm=1e-4)
    assert_same_curves(tmp_path, run.workdir / "pretrain", names)


@pytest.mark.slow
def test_ppo_ptx_from_checkpoints_of_eight_devices(run, tmp_path):
    paths = dict(init="rl_init", reward_init="reward")
    run_on_one_device(
        "ppo_ptx",
        tmp_path,
        f"--config.data.dir={run.workdir}/data",
        *(f"--config.{k}.path={run.workdir}/{v}" for k, v in paths.items()),
    )
    names = dict.fromkeys(("policy_loss", "value_loss", "ptx_loss"), 1e-4)
    names |= dict(score=1e-4, kl=1e-4, valid_pretrain_loss=1e-4, response_length=0)
    assert_same_curves(tmp_path, run.workdir / "ppo_ptx", names)
