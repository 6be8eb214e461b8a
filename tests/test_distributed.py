"""How processes connect; `stages/test_processes.py` runs two of them."""

import contextlib
import json
import os
import signal
import subprocess
import time

import jax
import pytest

from instructgpt import distributed
from instructgpt.errors import UserError
from instructgpt.metrics import read_metrics
from tests.stages.processes import (
    ENDS_WITHIN,
    REPO,
    environment,
    free_port,
    start_by_hand,
)


@pytest.fixture
def joined(monkeypatch):
    """What jax.distributed.initialize was called with."""
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda **given: calls.append(given)
    )
    return calls


def test_alone_nothing_is_joined(joined):
    distributed.initialize("", 0, -1)
    assert not joined


def test_flags_and_clusters_are_passed_on(joined):
    distributed.initialize("host:1", 2, 1)
    distributed.initialize("auto", 0, -1)
    by_hand, auto = joined
    assert by_hand["coordinator_address"] == "host:1"
    assert (by_hand["num_processes"], by_hand["process_id"]) == (2, 1)
    assert "coordinator_address" not in auto
    for given in joined:  # none waits for a dead one for long
        assert given["heartbeat_timeout_seconds"] <= 30


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 2, -1), "go with --coordinator=HOST:PORT"),
        (("auto", 2, 0), "give all three, or none"),
        (("host:1", 0, -1), "needs --num_processes=N and --process_id"),
        (("host:1", 2, 2), "from 0 to N - 1; given are 2 and 2"),
    ],
)
def test_flags_that_do_not_go_together(given, message, joined):
    with pytest.raises(UserError, match=message):
        distributed.initialize(*given)
    assert not joined


def test_a_cluster_that_is_not_there_is_one_clear_error(monkeypatch):
    def fail(**given):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match="outside of a TPU pod, SLURM and Kubernetes"):
        distributed.initialize("auto", 0, -1)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: [pair.cc]\nmore"), True),
        (RuntimeError("Connection reset by peer"), True),
        (RuntimeError("UNAVAILABLE: the coordination service is gone"), True),
        (ValueError("shapes do not match"), False),
        (ValueError(""), False),
    ],
)
def test_a_lost_process_is_told_from_a_mistake(monkeypatch, error, says):
    assert distributed.lost_contact(error) == ""  # alone there is no other
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    first = str(error).partition("\n")[0]
    assert distributed.lost_contact(error) == (first if says else "")


def test_one_process_does_everything_itself():
    assert distributed.is_first()
    assert distributed.first_then_others(lambda: 3) == 3
    made = []
    distributed.on_first(lambda: made.append(1))
    assert made == [1]
    assert distributed.agree_to_stop(True, step=1)
    assert not distributed.agree_to_stop(False, step=1)
    assert distributed.fetch({"x": jax.numpy.ones(2)})["x"].tolist() == [1, 1]


@pytest.mark.slow
def test_a_mistake_that_one_finds_ends_both(tmp_path):
    """Process 0 looks at the workdir, while the other waits for it."""
    other = {"seed": 7, "stage": "pretrain"}
    (tmp_path / "config.json").write_text(json.dumps(other))
    (tmp_path / "metrics.jsonl").touch()
    began = time.monotonic()
    processes = start_by_hand(
        "--config=configs/pretrain.py:smoke", f"--workdir={tmp_path}"
    )
    said = [process.communicate(timeout=ENDS_WITHIN)[0] for process in processes]
    assert time.monotonic() - began < ENDS_WITHIN
    assert all(process.returncode for process in processes)
    assert "holds a run of something else" in said[0]


@pytest.mark.slow
def test_asked_to_stop_all_save_the_same_step_and_none_is_left(tmp_path):
    flags = ["--config=configs/pretrain.py:smoke", f"--workdir={tmp_path}"]
    flags += ["--config.train.num_steps=100000", "--config.train.checkpoint_every=0"]
    flags += ["--config.train.log_every=1"]  # the step that is saved is then logged
    script = subprocess.Popen(
        ["bash", "launch/local.sh", *flags, "--config.mesh.data=8"],
        cwd=REPO,
        env=environment(4, PROCESSES="2", PORT=str(free_port())),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        path = tmp_path / "metrics.jsonl"
        while not path.exists() or not read_metrics(path):
            assert script.poll() is None
            time.sleep(0.1)
        script.terminate()
        assert script.wait(timeout=ENDS_WITHIN) == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            for _ in range(100):  # what prefixes their lines ends a moment later
                os.killpg(script.pid, 0)
                time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.wait()
    saved = [p.name for p in (tmp_path / "checkpoints").iterdir()]
    assert saved == [str(read_metrics(path)[-1]["step"])]
