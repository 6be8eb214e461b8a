"""Label Studio's own Python environment: found, or made once.

Its packages are older than those of this one, so the two do not share an environment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from instructgpt.errors import UserError
from instructgpt.locks import one_at_a_time

VERSION = "1.23.2"  # the version that is installed, and that the tests run with
VARIABLE = "LABEL_STUDIO"  # names the program label-studio of another environment
_DONE = "installed"  # a file that says that the installation came to its end


def label_studio() -> Path:
    """The program `label-studio` of an environment of its own.

    It is the one that the variable LABEL_STUDIO names; otherwise the one in the user's
    cache folder, where it is installed at the first call.

    Raises:
      UserError: the variable names no program, or Label Studio cannot be installed.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return _installed()
    path = Path(named).expanduser().absolute()
    if path.is_dir():
        path = path / "bin" / "label-studio"
    if not os.access(path, os.X_OK) or not python_of(path).exists():
        raise UserError(
            f"{VARIABLE}={named}: no program of an environment with Label Studio; give "
            "the path of its bin/label-studio, or unset the variable to have it "
            "installed"
        )
    return path


def python_of(program: Path) -> Path:
    """The Python of the environment that a program `label-studio` belongs to."""
    return program.parent / "python"


def _installed() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "instructgpt" / f"label-studio-{VERSION}"
    program = folder / "bin" / "label-studio"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder.parent / f".{folder.name}.lock"):
            if not (folder / _DONE).exists():
                _install(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: Label Studio cannot be installed there ({error.strerror}); "
            f"make room, or name its program in {VARIABLE}"
        ) from error
    return program


def _install(folder: Path) -> None:
    print(f"installing Label Studio {VERSION} into {folder}: some minutes, once")
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    for line in (
        [sys.executable, "-m", "venv", folder],
        [*pip, f"label-studio=={VERSION}"],
    ):
        # pip's progress goes to the terminal; its errors are shown in one line.
        done = subprocess.run(
            list(map(str, line)), stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            said = [x.strip() for x in done.stderr.splitlines() if x.strip()]
            raise UserError(
                f"Label Studio {VERSION} cannot be installed: "
                f"{said[-1] if said else 'no reason is given'}; see to the network and "
                "start the same line again, or install it in an "
                f"environment of its own and name its bin/label-studio in {VARIABLE}"
            )
    (folder / _DONE).touch()
