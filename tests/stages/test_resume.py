"""A recipe killed once in every stage ends with the bits of one that never was.

Each launch is a process of its own: it takes up the stage that was killed, finishes
it, and is killed in the next one.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from instructgpt.metrics import read_metrics
from tests.stages.recipe_run import (
    Finished,
    finished,
    load_checkpoint,
    newest_checkpoint,
)

REPO = Path(__file__).resolve().parents[2]
KILLS = {
    "pretrain": ("save", 4),
    "sft": ("update", 6),
    "rl_init": ("update", 9),
    "reward": ("update", 4),
    "ppo": ("update", 3),
    "ppo_ptx": ("commit", 3),
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def launch(workdir: Path, data_dir: Path, *kill: object) -> subprocess.CompletedProcess:
    command = ["-m", "tests.stages.killed_run", workdir, data_dir, *kill]
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=REPO,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def killed(run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("killed") / "recipe"
    for stage, kill in KILLS.items():
        done = launch(workdir, run.workdir / "data", stage, *kill)
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        final = newest_checkpoint(run.workdir / stage).name
        assert not (workdir / stage / "checkpoints" / final).exists()
    done = launch(workdir, run.workdir / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
@pytest.mark.parametrize("stage", KILLS)
def test_same_bits_after_a_kill(run, killed, stage):
    expected = load_checkpoint(run.workdir / stage)
    actual = load_checkpoint(killed / stage)
    assert {"params", "optimizer", "meta"} <= expected.keys()
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree_util.tree_leaves_with_path(expected),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*KILLS, "select"])
def test_same_metrics_after_a_kill(run, killed, stage):
    def curve(workdir: Path) -> list[dict]:
        rows = read_metrics(workdir / stage / "metrics.jsonl")
        clocks = ("time", "tokens_per_second", "input_share")
        return [{k: v for k, v in row.items() if k not in clocks} for row in rows]

    assert curve(killed) == curve(run.workdir)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["label/labels.json", "select/selected.json", "evaluate/results.json"]
)
def test_same_results_after_a_kill(run, killed, file):
    actual, expected = (
        json.loads((w / file).read_text()) for w in (killed, run.workdir)
    )
    for results in (actual, expected):
        results.pop("meta", None)  # says how long it took, and when
    assert actual == expected
