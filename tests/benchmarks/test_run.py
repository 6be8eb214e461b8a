"""The benchmark runs and prints what a comparison reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import refill, run, scaling, turns

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

SMALL = dict(
    layers=1,
    width=32,
    heads=2,
    vocab=64,
    context=32,
    batch=8,
    seq=16,
    prompts=8,
    K=3,
    reward_prompt=8,
    reward_response=4,
    samples=8,
    prompt=8,
    response=4,
    episodes=16,
    minibatch=8,
    ppo_prompt=8,
    ppo_response=4,
    ptx=8,
    iterations=2,
    devices=1,
)
UNITS = {
    "sft": "tokens_per_s",
    "reward": "prompts_per_s",
    "sample": "tokens_per_s",
    "ppo": "episodes_per_s",
}


# The machine's best rates are measured with small matrices, too.
RUN = SMALL | dict(rate_size=128)


def check(line):
    """The line states a job's rate and how near the machine's limit that is."""
    assert line["system"] == "instructgpt" and line["n"] == RUN["iterations"]
    assert line[UNITS[line["job"]]] > 0 and line["roofline"] > 0


def run_small(*arguments):
    run.main([*arguments, *(f"--{name}={value}" for name, value in RUN.items())])


def test_a_job_prints_its_line(capsys):
    """The others do in the script for GPUs, below."""
    assert run.parse([]).jobs == list(UNITS)
    run_small("reward")
    machine, line = map(json.loads, capsys.readouterr().out.splitlines())
    assert machine["gflops"] > 0 and machine["gb_per_s"] > 0
    check(line)


def test_refilled_slots_draw_the_same_tokens(capsys):
    sizes = SMALL | dict(responses=16, slots=4, response=10)
    line = refill.main([f"--{name}={value}" for name, value in sizes.items()])
    assert json.loads(capsys.readouterr().out) == line
    assert line["same_tokens"] and line["max_length"] > line["mean_length"] > 1


def test_the_script_for_gpus_at_a_small_size(tmp_path):
    shutil.copy(REPO / "launch" / "benchmark_gpu.sh", tmp_path)
    (tmp_path / "setup_env.sh").write_text(f"cd {REPO}\nsetup_env() {{ :; }}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    flags = [f"--{name}={value}" for name, value in RUN.items()]
    done = subprocess.run(
        ["bash", tmp_path / "benchmark_gpu.sh", *flags, "--remat=full"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    lines = [json.loads(x) for x in printed if x.startswith("{")]
    ran = [x for x in lines if "job" in x]
    assert [x["job"] for x in ran] == ["sft", "sample", "ppo"]
    for line in ran:
        check(line)
    assert {x["dtype"] for x in lines if "dtype" in x} == {"bfloat16"}

    phases = "sample reference reward value policy value ptx".split()
    profile = [x.split()[0] for x in printed if "roofline " in x]
    assert profile == ["forward", "gradient", "prefill", "decode", *phases]
    assert [x.split()[0] for x in printed if "temporaries" in x] == phases
    held = [x for x in printed if x.endswith("held")]
    assert len(held) == 7, "policy and value net with moments, average, two frozen"


def test_two_checkouts_run_in_turns(capfd):
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    turns.main([str(REPO), "sft", "reward", "--turns=2", *flags])
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["job"] for line in lines] == ["sft", "reward"]
    for line in lines:
        assert line["turns"] == 2
        low, high = line["pairs"]
        assert low <= round(line["median_pair"], 2) <= high
        assert line["ratio"] == pytest.approx(line["other_s"] / line["here_s"], rel=0.1)


def test_a_checkout_without_the_benchmark_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        turns.main([str(tmp_path)])
    assert f"{tmp_path} has no tests/benchmarks/run.py" in capsys.readouterr().err


def test_scaling_prints_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "AXES", ("width", "seq"))
    monkeypatch.setattr(scaling, "FACTORS", (1, 2))
    monkeypatch.setattr(scaling, "DEPTHS", (1, 2))
    sizes = SMALL | dict(seq=8, out=tmp_path / "scaling.png")
    out = scaling.main([f"--{name}={value}" for name, value in sizes.items()])
    assert all(set(values) == {1, 2} for values in out["relative"].values())
    assert all(seconds > 0 for seconds in out["compiled"].values())
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(scaling.AXES)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_job_is_named():
    with pytest.raises(SystemExit):
        run.parse(["stf"])
