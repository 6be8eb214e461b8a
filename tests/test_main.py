"""The command line: a mistake is one line on stderr and exit status 1."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructgpt.checkpoints import open_checkpoint

REPO = Path(__file__).resolve().parents[1]
PRETRAIN = "--config=configs/pretrain.py:smoke"


def start(
    *flags: str, cwd: Path = REPO, program: tuple[str, ...] = ("-m", "instructgpt.main")
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *program, *flags],
        cwd=cwd,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


MISTAKES = {
    "key": (
        [PRETRAIN, "--config.train.batchsize=4"],
        ["--config.train.batchsize=4", "no key 'batchsize'", "mean 'batch_size'"]
        + ["config.train has: batch_size, checkpoint_every, ", "num_steps"],
    ),
    "block": (
        [PRETRAIN, "--config.optimiser.learning_rate=1"],
        ["--config.optimiser.learning_rate=1", "no key 'optimiser'", "optimizer"],
    ),
    "value's key": (
        [PRETRAIN, "--config.train.batch_size.x=4"],
        ["config.train.batch_size is a value and has no keys"],
    ),
    "type": (
        [PRETRAIN, "--config.train.batch_size=many"],
        ["train.batch_size", "many"],
    ),
    "variant": (
        ["--config=configs/pretrain.py:huge"],
        ["'huge' does not exist", "smoke", "mini", "175b"],
    ),
    "file": (
        ["--config=configs/nothing.py:smoke"],
        ["configs/nothing.py"],
    ),
    "stage": (
        [PRETRAIN, "--config.stage=dpo"],
        ["config.stage='dpo'", "pretrain", "evaluate"],
    ),
    "value": (
        [PRETRAIN, "--config.mesh.data=3"],
        ["config.mesh", "does not use all 1 devices"],
    ),
    "bucket": (
        [PRETRAIN, "--workdir=gs://bucket/run"],
        ["--workdir=gs://bucket/run", "mount the bucket"],
    ),
    "empty path": (
        ["--config=configs/sft.py:smoke", "--config.init.path="],
        ["config.init.path=''", "the path of a folder"],
    ),
    "records": (
        [PRETRAIN, "--config.data.jsonl=nowhere"],
        [f"config.data.jsonl={REPO}/nowhere", "no such folder"],
    ),
    "no config": ([], ["--config"]),
    "flag": ([PRETRAIN, "--confg.seed=1"], ["confg.seed"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, tmp_path):
    flags, words = MISTAKES[mistake]
    process = start(f"--workdir={tmp_path / 'run'}", *flags)
    _, err = process.communicate()
    assert process.returncode == 1
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert not [word for word in words if word not in lines[0]], err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_workdir_is_needed():
    process = start(PRETRAIN)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "--workdir" in err
    assert "Traceback" not in err


def test_a_workdir_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for workdir, says in ((tmp_path / "file", "a file is"),):
        process = start(PRETRAIN, f"--workdir={workdir}")
        _, err = process.communicate()
        assert process.returncode == 1
        assert err.startswith("error: ") and says in err
        assert err.count("\n") == 1, err


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_outside_of_the_loop_it_ends_in_one_line(tmp_path, asked):
    sets = f"--config.data.dir={tmp_path / 'sets'}"
    process = start(PRETRAIN, f"--workdir={tmp_path}", sets)
    while not (tmp_path / ".lock").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(asked)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + asked, err
    assert err.startswith(f"stopped by {asked.name}; what is whole stays")
    assert err.count("\n") == 1, err


def test_a_machine_without_semaphores_trains(tmp_path):
    """As some containers are, and file systems without shared memory."""
    script = (
        "import _multiprocessing, runpy, sys\n"
        "class SemLock(_multiprocessing.SemLock):\n"
        "    def __new__(cls, *_, **__): raise OSError(38, 'not implemented')\n"
        "_multiprocessing.SemLock = SemLock\n"
        "sys.argv[0] = 'main'\n"
        "runpy.run_module('instructgpt.main', run_name='__main__', alter_sys=True)\n"
    )
    workdir = f"--workdir={tmp_path / 'run'}"
    process = start(PRETRAIN, workdir, program=("-c", script))
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert (tmp_path / "run" / "finished.json").exists()


def test_an_empty_workdir_is_not_the_current_folder(tmp_path):
    process = start(
        f"--config={REPO}/configs/pretrain.py:smoke", "--workdir=", cwd=tmp_path
    )
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.strip() == (
        "error: --workdir is empty; name a folder for what the run keeps"
    )
    assert not list(tmp_path.iterdir())


def test_paths_count_from_where_the_command_is_typed(tmp_path):
    """And a run is opened again from elsewhere, by other paths to the same."""
    (tmp_path / "home").mkdir()
    (tmp_path / "-a [b]").mkdir()
    config = f"--config={REPO}/configs/pretrain.py:smoke"
    steps = "--config.train.num_steps=1"
    line = "--workdir=pretrain", "--config.data.dir=../home/sets"
    process = start(config, steps, *line, cwd=tmp_path / "-a [b]")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "pretrain   1/1" in out
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["sets"]
    assert [p.name for p in (tmp_path / "-a [b]").iterdir()] == ["pretrain"]
    line = "--workdir=../-a [b]/pretrain", "--config.data.dir=sets"
    process = start(config, steps, *line, cwd=tmp_path / "home")
    out, err = process.communicate()
    assert process.returncode == 0, err
    # There was nothing to do.
    (told,) = out.splitlines()
    assert told.startswith(f"{tmp_path}/-a [b]/pretrain was finished before")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["sets"]


@pytest.mark.slow
def test_a_machine_that_is_taken_away_saves_first(tmp_path):
    """SIGTERM in mid-run: a checkpoint, exit status 143, and the command goes on."""
    flags = [
        *(PRETRAIN, f"--workdir={tmp_path / 'run'}", "--config.data.dir=../data"),
        *("--config.train.num_steps=100000", "--config.train.checkpoint_every=0"),
        "--config.train.log_every=1",
    ]
    process = start(*flags)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = start(*flags)
    assert second.wait(timeout=60) == 1
    _, said = second.communicate()
    assert said.startswith(f"error: {tmp_path / 'run'}: another run is at work"), said
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, out + err
    checkpoints, step = open_checkpoint(tmp_path / "run")
    checkpoints.close()
    assert step >= 1
