"""The benchmark runs and prints what a comparison reads."""

import json

import pytest

from tests.benchmarks import run

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
    iterations=2,
    devices=1,
)
UNITS = {
    "sft": "tokens_per_s",
    "reward": "prompts_per_s",
    "sample": "tokens_per_s",
    "ppo": "episodes_per_s",
}


def run_small(*arguments):
    run.main([*arguments, *(f"--{name}={value}" for name, value in SMALL.items())])


def test_every_job_prints_its_line(capsys):
    run_small()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["gflops"] > 0 and lines[0]["gb_per_s"] > 0
    assert [line["job"] for line in lines[1:]] == list(UNITS)
    for line in lines[1:]:
        assert line["system"] == "instructgpt" and line["n"] == 2
        assert line[UNITS[line["job"]]] > 0 and line["roofline"] > 0


def test_a_profile_names_the_phases(capsys):
    run_small("sft", "--profile")
    phases = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in phases] == ["forward", "gradient"]


def test_an_unknown_job_is_named():
    with pytest.raises(SystemExit):
        run.parse(["stf"])
