"""Meshes that divide the batches of training, but not those of evaluation."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from instructgpt.evals.language import make_loss_evaluator
from instructgpt.metrics import read_metrics
from instructgpt.stages import common, loading, ppo
from tests.stages.processes import REPO, environment
from tests.stages.recipe_run import Finished, finished, get_config, link_stages

STILL = 1e-30  # a learning rate that changes no number


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory) -> float:
    """Held-out pretraining loss of the RL-init model on one device."""
    stage = get_config(data_dir=str(run.workdir / "data")).stages.ppo_ptx
    stage.mesh = dict(data=1, fsdp=1, tensor=1, cpu_devices=1)
    context = common.start(stage, tmp_path_factory.mktemp("one"))
    with jax.set_mesh(context.mesh):
        init = loading.InitConfig(str(run.workdir / "rl_init"))
        model, params, *_ = loading.load(init, context)
        length = stage.rollout.ptx_length
        windows = common.text_windows(context, "valid", model.config, length, key="")
        evaluate = make_loss_evaluator(model, windows, batch_size=16, mesh=context.mesh)
        return evaluate(params)


def assert_evaluated(workdir: Path, expected: float) -> None:
    (row,) = (
        row
        for row in read_metrics(workdir / "metrics.jsonl")
        if "valid_pretrain_loss" in row
    )
    assert row["valid_pretrain_loss"] == pytest.approx(expected, rel=1e-5)
    assert (workdir / "samples" / "0000001.json").exists()


def test_ppo_ptx_on_six_devices(run, tmp_path, expected):
    link_stages(run, tmp_path / "recipe")
    stage = get_config().stages.ppo_ptx
    stage.mesh = dict(data=3, fsdp=2, tensor=1, cpu_devices=6)
    stage.train.update(num_steps=1, batch_size=12)
    stage.rollout.update(minibatch_size=6, ptx_per_episode=1.0)
    stage.policy_optimizer.learning_rate = STILL
    ppo.run(stage, tmp_path / "recipe" / "six")
    assert_evaluated(tmp_path / "recipe" / "six", expected)


@pytest.mark.slow
def test_ppo_ptx_on_thirty_two_devices(run, tmp_path, expected):
    link_stages(run, tmp_path / "recipe")
    flags = {
        "train.num_steps": 1,
        "train.batch_size": 32,
        "rollout.minibatch_size": 32,
        "rollout.ptx_per_episode": 1.0,
        "rollout.score_microbatches": 1,
        "policy_optimizer.learning_rate": STILL,
    }
    workdir = tmp_path / "recipe" / "thirty_two"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "instructgpt.main"),
            *("--config=configs/ppo_ptx.py:smoke", f"--workdir={workdir}"),
            *(f"--config.{key}={value}" for key, value in flags.items()),
        ],
        cwd=REPO,
        env=environment(32),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_evaluated(workdir, expected)
