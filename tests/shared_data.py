"""Public data files that some machines have beside the repository, a user's not."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def shared_data(name: str) -> Path:
    """The folder of a data set; skips the test where it is absent."""
    root = Path(os.environ.get("INSTRUCTGPT_SHARED_DATA", REPO / "../shared/data"))
    path = (root / name).resolve()
    if not path.exists():
        pytest.skip(f"needs {name} in ../shared/data beside the repository")
    return path
