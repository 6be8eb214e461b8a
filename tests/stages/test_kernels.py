"""Reference kernels give what the fast ones give, stage by stage, and need none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instructgpt.metrics import read_metrics
from instructgpt.models.kernels import reference
from instructgpt.models.kernels.dropout import dropout
from instructgpt.stages import find, ppo, ppo_programs
from tests.stages.recipe_run import Finished, finished, get_config, link_stages

REPO = Path(__file__).resolve().parents[2]
# Metrics that are the same whatever the machine is doing.
NOT_COMPARED = {"step", "time", "tokens_per_second", "input_share"}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def assert_same_metrics(actual: Path, expected: Path) -> None:
    rows, others = (read_metrics(w / "metrics.jsonl") for w in (actual, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - NOT_COMPARED:
            expected_value = pytest.approx(other[name], rel=1e-4, abs=1e-5)
            assert row[name] == expected_value, (name, row["step"])


def with_kernels(stage: str, run: Finished, kernels: str) -> Any:
    config = get_config(data_dir=str(run.workdir / "data")).stages[stage]
    config.model.kernels = kernels
    return config


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "sft", "rl_init", "reward"])
def test_a_stage_learns_the_same(run, tmp_path, stage, monkeypatch):
    """The stage has the same checkpoints and rankings, and drops the same values."""
    monkeypatch.setattr(reference, "dropout", dropout)
    link_stages(run, tmp_path)
    config = with_kernels(stage, run, "reference")
    find(config.stage).exports.run(config, tmp_path / f"{stage} again")
    assert_same_metrics(tmp_path / f"{stage} again", run.workdir / stage)


@pytest.mark.slow
def test_ppo_learns_the_same_from_given_rollouts(run, tmp_path, monkeypatch):
    """Where a tie is decided by rounding, one token leads to other answers."""
    link_stages(run, tmp_path)
    samples, given = [], iter(())
    make_sampler = ppo_programs.make_sampler

    def recording(*args, **kwargs):
        sample = make_sampler(*args, **kwargs)

        def draw(params, prompts, key):
            samples.append(sample(params, prompts, key))
            return samples[-1]

        return draw

    def repeating(*args, **kwargs):
        return lambda params, prompts, key: next(given)

    for kernels, sampler in (("auto", recording), ("reference", repeating)):
        given = iter(samples)
        monkeypatch.setattr(ppo_programs, "make_sampler", sampler)
        config = with_kernels("ppo_ptx", run, kernels)
        config.rollout.num_samples = 0
        ppo.run(config, tmp_path / f"ppo_ptx {kernels}")
    assert len(samples) == 4
    assert_same_metrics(tmp_path / "ppo_ptx reference", tmp_path / "ppo_ptx auto")


# Runs the recipe while no module of a fast way can be imported.
PROGRAM = """
import sys

FAST = (
    "selection", "blocks", "cached", "cudnn", "dropout", "splash", "head", "linear",
    "norm",
)


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {f"instructgpt.models.kernels.{fast}" for fast in FAST}:
            raise ImportError(f"{name} is not to be imported")


sys.meta_path.insert(0, Refuse())
from configs import recipe as recipe_config
from instructgpt.stages import recipe

config = recipe_config.get_config("smoke")
for stage in config.stages.values():
    if "model" in stage:
        stage.model.kernels = "reference"
recipe.run(config, sys.argv[1])
"""


@pytest.mark.long
def test_the_recipe_needs_no_fast_module(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path],
        cwd=REPO,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "evaluate" / "results.json").read_text())
    expected = json.loads((run.workdir / "evaluate" / "results.json").read_text())
    for name, loss in expected["pretrain_loss"].items():
        assert results["pretrain_loss"][name] == pytest.approx(loss, rel=1e-2)
