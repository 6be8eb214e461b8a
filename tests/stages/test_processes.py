"""Two processes of four devices are one of eight, and neither waits for a dead one."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from instructgpt.metrics import read_metrics
from tests import tiny
from tests.stages.processes import ENDS_WITHIN, run_local, start_by_hand
from tests.stages.recipe_run import (
    MESH,
    Finished,
    finished,
    load_checkpoint,
    unfinished,
)

STAGES = ("sft", "reward", "ppo_ptx")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def flags(workdir: Path) -> list[str]:
    return [
        "--config=configs/recipe.py:smoke",
        f"--workdir={workdir}",
        *(
            f"--config.stages.{stage}.mesh.{axis}={size}"
            for stage in STAGES
            for axis, size in MESH.items()
        ),
    ]


def wait_for_step(path: Path, step: int, processes: list[subprocess.Popen]) -> None:
    while not path.exists() or not any(r["step"] >= step for r in read_metrics(path)):
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def assert_trained_alike(actual: Any, expected: Any) -> None:
    # Within one process XLA adds up in another order than Gloo does over several. Where
    # a loss has no slope, Adam makes steps of what rounding leaves: along a key's bias,
    # which moves all scores of a query, and along a reward model's last two, which move
    # all its scores. Its very last then takes off what demonstrations average.
    loose = {"['attention']['key']['bias']": 5e-4, "['ln_f']['bias']": 5e-4}
    for (path, want), got in zip(
        jax.tree_util.tree_leaves_with_path(expected),
        jax.tree.leaves(actual),
        strict=True,
    ):
        name = jax.tree_util.keystr(path)
        atol = next((loose[end] for end in loose if name.endswith(end)), 1e-4)
        atol = 5e-3 if name == "['bias']" else atol
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol, err_msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_two_processes_are_one(run, tmp_path):
    # 1. one process dies, and the other does not wait for it
    both = unfinished(run, tmp_path / "both", STAGES)
    first, second = processes = start_by_hand(*flags(both))
    try:
        wait_for_step(both / "sft" / "metrics.jsonl", 2, processes)
        second.kill()
        began = time.monotonic()
        said = first.communicate(timeout=ENDS_WITHIN)[0]
        assert time.monotonic() - began < ENDS_WITHIN
        assert first.returncode not in (0, -signal.SIGKILL)
        assert "another process" in said or "heartbeat" in said.lower(), said
    finally:
        for process in processes:
            process.kill()
            process.communicate()  # also closes the pipe
    # 2. the same line goes on, and all ends as in one process with the same mesh
    said = run_local(2, 4, *flags(both))
    assert said.count("=== ppo_ptx ===") == 1  # process 1 says nothing
    for stage in STAGES:
        actual, expected = (load_checkpoint(w / stage) for w in (both, run.workdir))
        for part in expected.keys() - {"step", "meta"}:
            assert_trained_alike(actual[part], expected[part])
        for found in (actual, expected):
            found["mean"] = found["meta"].pop("demonstration_mean", 0.0)
        assert actual["mean"] == pytest.approx(expected["mean"], abs=5e-3)
        for part in ("step", "meta"):
            assert actual[part] == expected[part]
    # 3. where Gloo adds up in one process too, the bits are the same
    alone = unfinished(run, tmp_path / "alone", STAGES)
    run_local(1, 8, *flags(alone))
    for stage in STAGES:
        actual, expected = (load_checkpoint(w / stage) for w in (both, alone))
        assert actual.pop("meta") == expected.pop("meta")
        tiny.assert_equal(actual, expected)
