"""The shell scripts are valid, and report where they cannot run."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = [*sorted((REPO / "launch").glob("*.sh")), REPO / ".ci" / "run"]


def run(*command: object, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **kwargs
    )


def test_the_promised_scripts_are_there():
    names = {path.name for path in SCRIPTS}
    assert {"quickstart.sh", "test.sh", "run"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_parse_it(script):
    done = run("bash", "-n", script)
    assert done.returncode == 0, done.stderr
    assert script.read_text().startswith(("#!/usr/bin/env bash\n", "# Sourced"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    tool = Path(sys.executable).with_name("shellcheck")  # of the `test` extra
    done = run(tool, "--external-sources", script, cwd=REPO)
    assert done.returncode == 0, done.stdout


def checkout(folder: Path) -> Path:
    """What the scripts need of the repository, without an environment."""
    shutil.copytree(REPO / "launch", folder / "launch")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(REPO / name, folder)
    return folder


def pythons(folder: Path, script: str) -> dict[str, str]:
    """An environment whose every Python is this shell script."""
    folder.mkdir()
    for name in ("python", "python3", "python3.11", "python3.12"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
def test_an_old_python_is_refused(script, tmp_path):
    env = pythons(tmp_path / "bin", "exit 1")
    repo = checkout(tmp_path / "repo")
    done = run("bash", repo / "launch" / script, env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert f"PYTHON=/path/to/python3.12 bash {repo}/launch/{script}" in done.stderr
    assert not (repo / ".venv").exists()


def test_a_python_without_venv_is_refused(tmp_path):
    env = pythons(tmp_path / "bin", 'case "$2" in *venv*) exit 1;; esac')
    repo = checkout(tmp_path / "repo")
    done = run("bash", repo / "launch" / "quickstart.sh", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "venv or ensurepip is missing" in done.stderr
    assert "python3-venv" in done.stderr


def test_quickstart_runs_the_recipe_where_it_was_called(tmp_path):
    repo, env = checkout(tmp_path / "repo"), {"PATH": "/usr/bin:/bin"}
    # An environment that is all there: nothing is installed, and it prints its command.
    pythons(repo / ".venv", "")
    (repo / ".venv" / "bin").mkdir()
    for name in ("python", "python3"):
        (repo / ".venv" / name).rename(repo / ".venv" / "bin" / name)
        (repo / ".venv" / "bin" / name).write_text(
            '#!/bin/sh\necho "$PWD:$PYTHONPATH" "$@"\n'
        )
    (repo / ".venv" / "bin" / "activate").write_text(f"PATH={repo}/.venv/bin:$PATH\n")
    wanted = run("bash", "-c", "cat requirements.txt pyproject.toml | cksum", cwd=repo)
    (repo / ".venv" / "installed-").write_text(wanted.stdout)
    done = run(
        *("bash", repo / "launch" / "quickstart.sh", "--config.seed=3"),
        env={**env, "WORKDIR": "here"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *(f"{tmp_path}:{repo}", "-m", "instructgpt.main"),
        *(f"--config={repo}/configs/recipe.py:mini", "--workdir=here"),
        "--config.seed=3",
    ]


def test_the_set_up_alone(tmp_path):
    """It stops where pip fails, and does not take the packages for installed."""
    repo, env = checkout(tmp_path / "repo"), {"PATH": "/usr/bin:/bin"}
    (repo / ".venv" / "bin").mkdir(parents=True)
    python = repo / ".venv" / "bin" / "python"
    (repo / ".venv" / "bin" / "activate").touch()
    for pip, code in (('case "$*" in *install*) exit 3;; esac', 3), ("exit 0", 0)):
        python.write_text(f"#!/bin/sh\n{pip}\n")
        python.chmod(0o755)
        done = run("bash", repo / "launch" / "setup_env.sh", env=env, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert (repo / ".venv" / "installed-").exists() == (code == 0)


SETUP = """
source launch/setup_env.sh
echo "chosen: $(find_accelerator)"
"""


@pytest.mark.parametrize(
    ("answer", "chosen", "says"),
    [
        ("echo 'NVIDIA H200, 570.86.15'", "gpu", ""),
        (r"printf 'A100, 535.1\nA100, 535.1\n'", "gpu", ""),
        ("true", "gpu", ""),
        ("echo 'Tesla K80, 470.82.01'", "", "driver 470 is too old"),
        ("exit 9", "", ""),  # as without a driver
    ],
)
def test_the_extra_of_jax_is_that_of_the_machine(answer, chosen, says, tmp_path):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    env = {"PATH": f"{tool.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    repo = checkout(tmp_path / "repo")
    done = run("bash", "-c", SETUP, env=env, cwd=repo)
    assert f"chosen: {chosen}\n" in done.stdout
    assert says in done.stderr and bool(says) == bool(done.stderr)
    done = run("bash", "-c", SETUP, env={**env, "ACCELERATOR": "cpu"}, cwd=repo)
    assert "chosen: \n" in done.stdout and not done.stderr


def test_a_gpu_gets_its_jax(tmp_path):
    """What pip is asked to install, by a Python that prints it."""
    repo = checkout(tmp_path / "repo")
    env = pythons(tmp_path / "bin", "exit 0")
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'H200, 570.86'\n")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    (repo / ".venv" / "bin").mkdir(parents=True)
    python = repo / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\n[ "$4" = "" ] || echo pip "$@"\n')
    python.chmod(0o755)
    (repo / ".venv" / "bin" / "activate").write_text("")
    call = "source launch/setup_env.sh; setup_env test; setup_env; echo end"
    done = run("bash", "-c", call, env=env, cwd=repo)
    assert done.returncode == 0, done.stderr
    assert "with JAX for the gpu" in done.stdout
    pips = [line for line in done.stdout.splitlines() if line.startswith("pip ")]
    assert len(pips) == 1 and pips[0].endswith("--editable .[test,gpu]")
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["gpu"] == ["jax[cuda12]"]


def test_readme_begins_with_the_two_commands():
    readme = REPO / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md")
    text = readme.read_text()
    assert "bash launch/quickstart.sh" in text
    assert "bash launch/test.sh" in text
    first, second = (text.index(f"bash launch/{s}.sh") for s in ("quickstart", "test"))
    assert max(first, second) < 3000
