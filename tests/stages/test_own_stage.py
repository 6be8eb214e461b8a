"""A stage from a folder that is no part of the package: run, planned, in a recipe."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def pasted(name: str) -> str:
    """The file of this name as configs/README.md shows it."""
    page = (REPO / "configs" / "README.md").read_text()
    found = re.search(rf"```python\n# {name}\n(.*?)```", page, re.S)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("counting.py", "mine.py"):
        (folder / name).write_text(pasted(name))
    return folder


def call(program: str, *flags: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.run(
        [sys.executable, "-m", f"instructgpt.{program}", *map(str, flags)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_runs_alone_and_takes_flags(folder, tmp_path):
    config = f"--config={folder}/mine.py:alone"
    line = config, f"--workdir={tmp_path / 'count'}", "--config.count.times=2"
    done = call("main", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tokens = json.loads((tmp_path / "count" / "count.json").read_text())["tokens"]
    assert tokens > 0 and tokens % 2 == 0
    assert (tmp_path / "count" / "finished.json").exists()
    saved = json.loads((tmp_path / "count" / "config.json").read_text())
    assert saved["stage"] == "counting" and saved["count"] == {"rows": 8, "times": 2}
    other = call("main", *line[:2], "--config.count.times=3", cwd=tmp_path)
    assert other.returncode == 1
    assert "config.count.times: 2 -> 3" in other.stderr
    wrong = call("main", *line[:2], "--config.count.row=3", cwd=tmp_path)
    assert "did you mean 'rows'? config.count has: rows, times" in wrong.stderr


def test_it_is_planned(folder, tmp_path):
    done = call("plan", f"--config={folder}/mine.py:alone", "--devices=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "count" in done.stdout and "it fits" in done.stdout
    assert "not counted" in done.stdout  # its operations


def test_a_recipe_runs_it(folder, tmp_path):
    config = f"--config={folder}/mine.py:recipe"
    steps = "--config.stages.pretrain.train.num_steps=1"
    line = config, f"--workdir={tmp_path / 'all'}", steps
    done = call("main", *line, "--config.stages.count.count.rows=0", cwd=tmp_path)
    assert done.returncode == 1
    assert "config.stages.count.count.rows=0: give" in done.stderr
    done = call("main", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "=== pretrain ===" in done.stdout and "=== count ===" in done.stdout
    assert (tmp_path / "all" / "count" / "count.json").exists()
    again = call("main", *line, cwd=tmp_path)
    assert again.stdout.count(": done") == 2


def test_a_module_that_is_no_stage_is_one_line(folder, tmp_path):
    (folder / "nothing.py").write_text("X = 1\n")
    line = f"--config={folder}/mine.py:alone", f"--workdir={tmp_path / 'x'}"
    for name, says in (("nothing", "exports no function run"), ("no_such", "known st")):
        done = call("main", *line, f"--config.stage={name}", cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert f"config.stage='{name}'" in done.stderr and says in done.stderr
