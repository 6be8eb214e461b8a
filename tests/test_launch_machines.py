"""Scripts that start runs on other machines: what they would run, word for word."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
LINE = ["--config=configs/ppo_ptx.py:1.3b", "--workdir=runs/my ptx"]
MAIN = "python -m instructgpt.main"
FLAGS = "--config=configs/ppo_ptx.py:1.3b '--workdir=runs/my ptx'"
# The same inside of one word, and inside of a word of a word.
ONCE = FLAGS.replace("'", "'\\''")
TWICE = FLAGS.replace("'", "'\\''\\'\\'''\\''")
# With the workdir from the folder of the call.
TWICE_ABSOLUTE = TWICE.replace("runs/", "<cwd>/runs/")
TMP = "/tmp/instructgpt-<commit>"
SHIP = "mkdir -p {0}\nbash -c 'git -C <root> archive <commit> | tar -x -C {0}'\n"
TPU = {"NAME": "ptx", "ZONE": "us-east5-a", "ACCELERATOR": "v5litepod-16"}
CREATE = (
    "gcloud compute tpus queued-resources create ptx --zone=us-east5-a --node-id=ptx"
    " --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite"
)
SSH = "gcloud compute tpus tpu-vm ssh ptx --zone=us-east5-a --worker=all"
SETUP = f"""\
git -C <root> archive --output={TMP}.tar.gz <commit>
gcloud compute tpus tpu-vm scp {TMP}.tar.gz ptx:instructgpt.tar.gz --zone=us-east5-a \
--worker=all
{SSH} '--command=mkdir -p instructgpt bucket && tar -xzf instructgpt.tar.gz -C \
instructgpt && {{ mountpoint -q bucket || gcsfuse --implicit-dirs \
--rename-dir-limit=100000 mine bucket; }} && cd instructgpt && \
ln -sfn ~/bucket bucket && source launch/setup_env.sh && setup_env tpu'
"""
RUN = f"""\
{SSH} '--command=cd instructgpt && source .venv/bin/activate && set -o pipefail && \
{MAIN} --coordinator=auto {ONCE} 2>&1 | tee -a ~/instructgpt.log'
"""
DELETE = (
    "gcloud compute tpus queued-resources delete ptx --zone=us-east5-a --force --quiet"
)
# Script, what comes before the line, settings, what it would run.
GOLDEN = {
    "local": (
        "local.sh",
        {"PROCESSES": "2", "PORT": "9000"},
        "".join(
            f"{MAIN} --coordinator=localhost:9000 --num_processes=2 --process_id={i} "
            f"{FLAGS}\n"
            for i in range(2)
        ),
    ),
    "slurm": (
        "slurm.sh",
        {"NODES": "2", "GPUS": "8", "SHARED": "/shared/me", "PARTITION": "big"},
        "mkdir -p /shared/me/logs\n"
        + SHIP.format("/shared/me/code/<commit>")
        + "sbatch --job-name=instructgpt --nodes=2 --ntasks-per-node=8"
        " --gpus-per-node=8 --exclusive --time=1-00:00:00 --requeue --signal=TERM@120"
        " --open-mode=append --output=/shared/me/logs/%x-%j.log --partition=big"
        " '--wrap=bash -c '\\''cd /shared/me/code/<commit> &&"
        " source launch/setup_env.sh && setup_env gpu && exec srun --kill-on-bad-exit=1"
        f" {MAIN} --coordinator=auto {TWICE_ABSOLUTE}'\\'''\n",
    ),
    "tpu create": ("tpu.sh create", TPU | {"SPOT": "1"}, f"{CREATE} --spot\n"),
    "tpu setup": ("tpu.sh setup", TPU | {"BUCKET": "mine"}, SETUP),
    "tpu run": ("tpu.sh run", TPU, RUN),
    "tpu status": (
        "tpu.sh status",
        TPU,
        "gcloud compute tpus queued-resources describe ptx --zone=us-east5-a\n",
    ),
    "tpu logs": (
        "tpu.sh logs",
        TPU,
        "gcloud compute tpus tpu-vm ssh ptx --zone=us-east5-a --worker=0"
        " '--command=tail -n 100 -f instructgpt.log'\n",
    ),
    "tpu delete": ("tpu.sh delete", TPU, f"{DELETE}\n"),
    "tpu retry": (
        "tpu.sh retry",
        TPU | {"BUCKET": "mine"},
        f"{CREATE}\n{SETUP}{RUN}{DELETE}\n",
    ),
    "gke": (
        "gke.sh",
        TPU | {"CLUSTER": "pods"},
        SHIP.format(TMP)
        + "xpk workload create --cluster=pods --zone=us-east5-a --workload=ptx"
        " --device-type=v5litepod-16 --num-slices=1 --max-restarts=10"
        f" --base-docker-image=python:3.12 --script-dir={TMP}"
        " '--command=bash -c '\\''source launch/setup_env.sh && setup_env tpu && exec"
        f" {MAIN} --coordinator=auto {TWICE}'\\'''\n",
    ),
}
SKY = {"NAME": "ptx", "ACCELERATOR": "H100:8", "NODES": "2", "BUCKET": "mine"}


def start(script: str, *flags: str, root: Path = REPO, path: str = "", **settings: str):
    name, *action = script.split()
    return subprocess.run(
        ["bash", str(root / "launch" / name), *action, *flags],
        env={"PATH": f"{path}/usr/bin:/bin", "HOME": "/nonexistent", **settings},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A repository with the scripts alone, all committed."""
    root = tmp_path_factory.mktemp("machines") / "checkout"
    shutil.copytree(REPO / "launch", root / "launch")
    who = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    return root


def golden(text: str, root: Path) -> str:
    """What it is in a checkout."""
    words = ["git", "-C", str(root), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    places = {"<root>": str(root), "<commit>": commit.strip(), "<cwd>": os.getcwd()}
    for mark, place in places.items():
        text = text.replace(mark, place)
    return text


@pytest.mark.parametrize("name", GOLDEN)
def test_a_dry_run_prints_what_would_be_run(name, checkout):
    script, settings, expected = GOLDEN[name]
    flags = LINE if {"run", "retry"} & {*name.split()} or " " not in name else []
    done = start(script, "--dry-run", *flags, root=checkout, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == golden(expected, checkout)


def test_a_dry_run_of_sky(checkout):
    flags = ["--config=configs/ppo_ptx.py:1.3b", "--workdir=/bucket/ptx"]
    done = start("sky.sh", "--dry-run", *flags, root=checkout, **SKY)
    assert done.returncode == 0, done.stderr
    expected = SHIP.format(TMP) + (
        f"sky jobs launch --name=ptx --gpus=H100:8 --num-nodes=2 --workdir={TMP}"
        f" --env 'LINE={' '.join(flags)}' --env BUCKET=mine"
        f" --env EXTRA=gpu --yes {TMP}/launch/sky.yaml\n"
    )
    assert done.stdout == golden(expected, checkout)
    refused = start("sky.sh", *LINE, root=checkout, **SKY)
    assert refused.returncode == 2
    assert "--workdir=runs/my ptx: flags with spaces" in refused.stderr


@pytest.mark.parametrize(
    ("name", "command"),
    [("tpu create", "gcloud"), ("tpu run", "gcloud"), ("slurm", "sbatch")],
)
def test_it_runs_what_the_dry_run_prints(name, command, checkout, tmp_path):
    script, settings, expected = GOLDEN[name]
    settings = settings | ({"SHARED": str(tmp_path)} if "SHARED" in settings else {})
    fake, log = tmp_path / "bin" / command, tmp_path / "log"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\0" {command} "$@" >> {log}\n')
    fake.chmod(0o755)
    done = start(script, *LINE, root=checkout, path=f"{fake.parent}:", **settings)
    assert done.returncode == 0, done.stderr
    wanted = golden(expected, checkout).replace("/shared/me", str(tmp_path))
    lines = [words for words in map(shlex.split, wanted.splitlines()) if words]
    ran = log.read_text().split("\0")[:-1]
    assert ran == next(words for words in lines if words[0] == command)
    if command == "sbatch":  # and the code is there
        assert list(tmp_path.glob("code/*/launch/slurm.sh"))


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("local.sh", "PROCESSES"),
        ("slurm.sh", "NODES GPUS SHARED"),
        ("tpu.sh create", "NAME ZONE ACCELERATOR"),
        ("gke.sh", "NAME CLUSTER ZONE ACCELERATOR"),
        ("sky.sh", "NAME ACCELERATOR NODES BUCKET"),
    ],
)
def test_missing_settings_are_named(script, missing, checkout):
    done = start(script, *LINE, root=checkout)
    assert done.returncode == 2
    assert f"error: set {missing}, as the first lines" in done.stderr


def test_mistakes_are_one_line(checkout, tmp_path):
    done = start("local.sh", "--config=x", root=checkout, PROCESSES="2")
    assert done.stderr == (
        "error: give --workdir=..., as for python -m instructgpt.main\n"
    )
    done = start("tpu.sh start", root=checkout)
    assert "create, setup, run, logs, status, delete or retry" in done.stderr
    unknown = TPU | {"ACCELERATOR": "v9-8"}
    done = start("tpu.sh create", "--dry-run", root=checkout, **unknown)
    assert done.returncode == 2
    assert done.stderr == (
        "error: set RUNTIME: which one v9-8 takes is not known here\n"
    )


def test_changes_that_are_not_committed_are_refused(checkout, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(checkout, changed)
    (changed / "launch" / "new.txt").write_text("x")
    settings = GOLDEN["gke"][1]
    done = start("gke.sh", *LINE, root=changed, **settings)
    assert done.returncode == 2
    assert "commit or stash" in done.stderr
    done = start("gke.sh", "--dry-run", *LINE, root=changed, **settings)
    assert done.returncode == 0
    assert done.stderr == (
        "note: the working tree has changes that the machines will not get\n"
    )


def test_the_scripts_can_be_run_from_anywhere(checkout, tmp_path):
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        test_a_dry_run_prints_what_would_be_run("slurm", checkout)
    finally:
        os.chdir(before)
