"""Config files of the package, memory that stays, accelerators that are not used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instructgpt.cli import keep_memory, unused_accelerator, with_own_config

REPO = Path(__file__).resolve().parents[1]

PROGRAM = """
import resource, sys
import numpy as np
from instructgpt.cli import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

from pathlib import Path
done = keep_memory(Path(sys.argv[1]))
faults()
print(done, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked")
def test_what_was_freed_is_taken_again(tmp_path):
    call = [sys.executable, "-c", PROGRAM, tmp_path]
    out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    done, faults = out.split()
    if done == "False":
        pytest.skip("no glibc")
    assert int(faults) < 100  # 64 MiB are 16,384 pages


def test_an_accelerator_leaves_it_alone(tmp_path):
    (tmp_path / "nvidia0").touch()
    assert not keep_memory(tmp_path)


def test_a_config_of_the_package_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = REPO / "configs" / "sft.py"
    for given, found in (
        (["--config=configs/sft.py:mini"], [f"--config={own}:mini"]),
        (["--config", "configs/sft.py"], ["--config", str(own)]),
        (["-config=configs/sft.py"], [f"-config={own}"]),
        (["--config=configs/none.py:mini"], ["--config=configs/none.py:mini"]),
        (["--workdir=configs/sft.py"], ["--workdir=configs/sft.py"]),
    ):
        assert with_own_config(["main", *given, "x"]) == ["main", *found, "x"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sft.py").touch()  # one of the user's own wins
    given = ["main", "--config=configs/sft.py:mini"]
    assert with_own_config(given) == given


def test_from_another_folder_a_stage_starts(tmp_path):
    """The package and its configs are found through the installation alone."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def python(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=env,
        )

    where = python("-c", "import instructgpt; print(instructgpt.__file__)").stdout
    if Path(where.strip()).parents[1] != REPO:
        pytest.skip("another checkout is installed in this environment")
    done = python(
        *("-m", "instructgpt.main", "--config=configs/sft.py:smoke", "--workdir=run"),
        "--config.train.batch_size=-1",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: config.train.batch_size=-1")


def test_an_unused_accelerator_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert unused_accelerator("cpu", tmp_path) == ""
    (tmp_path / "accel0").touch()
    assert "a TPU" in unused_accelerator("cpu", tmp_path)
    (tmp_path / "nvidia0").touch()
    line = unused_accelerator("cpu", tmp_path)
    assert "NVIDIA GPU" in line and "[gpu]" in line and "\n" not in line
    assert unused_accelerator("gpu", tmp_path) == ""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert unused_accelerator("cpu", tmp_path) == ""
