"""Every line of every README is run, in the order of its page, at smoke size.

A line is changed only by the table below, which says why. What is not run at all is
named with the test that runs it, or with what it needs.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evals.benchmarks import hub_rows
from tests.hf_models import write_chat_model
from tests.stages.recipe_run import finished
from tests.test_readme import NAMES, REPO, blocks

TINY_SMALL = (
    " --config.model.num_layers=1 --config.model.width=32 --config.model.num_heads=2"
    " --config.stages.pretrain.train.num_steps=4 --config.stages.sft.train.num_steps=4"
    " --config.stages.rl_init.train.num_steps=4"
    " --config.stages.ppo_ptx.train.num_steps=2"
)
# What a line has -> what is run in its place, and why.
CHANGES = {
    r"^source \.venv/bin/activate$": ":",  # the tests have an environment of their own
    r"(python -m instructgpt\.chat .*)": r"echo 'Where does Dela live?' | \1",
    r"--config\.seed=1$": "--config.seed=1 --config.order=\"('pretrain',)\"",
    r"^bash launch/setup_env\.sh$": ":",
    r"^pip install .*": ":",  # a test installs nothing
    r"^tensorboard --logdir runs$": r"timeout 20 \g<0> || [ $? = 124 ]",  # a server
    # Models of the hub: a tiny one with the same kind of tokenizer.
    r"HuggingFaceTB/SmolLM2-135M(-Instruct)?": "$TINY_MODEL",
    # What stands at runs/mini is of the smoke size.
    r"evaluate\.py:mini --workdir=runs/mini/compared": (
        "evaluate.py:smoke --workdir=runs/mini/compared"
    ),
    # Evaluation sets of the hub: rows made by hand.
    r"--config\.evaluate\.limit=100": (
        "--config.evaluate.limit=2 --config.evaluate.sets=$EVALUATION_SETS"
    ),
    # A plan for TPUs needs their compiler; toy sizes compile sooner.
    r"--config=configs/sft\.py:1\.3b --topology=v5e:4x4": (
        "--config=configs/sft.py:smoke --model=125m --devices=2"
    ),
    r"ppo_ptx\.py:gpt2 --devices=8": "ppo_ptx.py:gpt2 --devices=2 --phases=decode",
}
# Lines that are not run here -> who runs them.
ELSEWHERE = {
    r"launch/quickstart\.sh": "tests/test_launch.py",
    r"launch/test\.sh": "the suite itself",
    r"launch/smollm2\.sh": "tests/stages/test_public_recipe.py",
    r"recipe\.py:smollm2 ": "tests/stages/test_public_recipe.py",
    r"runs/mine/ppo_ptx runs/mine/exported": "tests/stages/test_public_recipe.py",
    r"hub:HuggingFaceH4": "tests/data/test_page.py",
    r"instructgpt\.prepare runs/public": "tests/data/test_page.py",
    r"ppo\.py:small --workdir=runs/mine/exact": "tests/stages/test_reward_functions.py",
    r"configs/sweep\.py": "tests/stages/test_sweep.py",
    r"tests/benchmarks/run\.py": "tests/benchmarks/test_run.py",
    r"tests/benchmarks/(refill|scaling)\.py": "minutes of measurement",
    r"launch/benchmark_gpu\.sh": "a GPU",
}
PAGES = [name for name in NAMES if blocks(REPO / name, "bash")]


def lines_of(page: str) -> list[str]:
    """The page's commands, one a string; a heredoc belongs to its command."""
    text = "\n".join(blocks(REPO / page, "bash"))
    text = re.sub(r"\\\n\s*", "", text)
    found: list[str] = []
    end = ""
    for line in text.splitlines():
        if end:
            found[-1] += f"\n{line}"
            end = "" if line == end else end
        elif line.strip():
            found.append(re.sub(r"\s+#.*$", "", line))
            begun = re.search(r"<<'(\w+)'", line)
            end = begun[1] if begun else ""
    return found


def changed(line: str) -> str:
    """The line that is run; "" if another test runs it."""
    if any(re.search(pattern, line) for pattern in ELSEWHERE):
        return ""
    for pattern, replacement in CHANGES.items():
        line = re.sub(pattern, replacement, line)
    if "recipe.py:small " in line:
        line += TINY_SMALL
    return line


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what is in the repository, with a finished recipe as runs/mini."""
    root = tmp_path_factory.mktemp("readme") / "code"
    root.mkdir()
    for name in ("instructgpt", "configs", "launch", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / name, root / name, ignore=ignored)
    for name in ("README.md", "pyproject.toml", "requirements.txt"):
        shutil.copy(REPO / name, root)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", *who, *command], cwd=root, check=True)
    for name in ("mini", "smoke"):
        shutil.copytree(finished(tmp_path_factory).workdir, root / "runs" / name)
    write_chat_model(root / "theirs")
    hub_rows.write_sets(root / "evaluation_sets")
    return root


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_lines_run_in_the_order_given(page, checkout):
    script = [changed(line) for line in lines_of(page)]
    done = subprocess.run(
        ["bash", "-xeuo", "pipefail", "-c", "\n".join(filter(None, script))],
        cwd=checkout,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(checkout),
            "PYTHONSAFEPATH": "1",
            "HOME": str(checkout.parent),
            "TINY_MODEL": str(checkout / "theirs"),
            "EVALUATION_SETS": str(checkout / "evaluation_sets"),
            "JAX_NUM_CPU_DEVICES": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_exception_is_of_a_line_and_names_its_test():
    lines = [line for page in PAGES for line in lines_of(page)]
    for pattern in (*ELSEWHERE, *CHANGES):
        assert any(re.search(pattern, line) for line in lines), pattern
    for where in ELSEWHERE.values():
        assert not where.endswith(".py") or (REPO / where).exists(), where
