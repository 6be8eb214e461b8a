"""A checkpoint goes from mesh to mesh, and no process holds more than its part."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint_process import MIB, SHAPE

REPO = Path(__file__).resolve().parents[1]
WHOLE = SHAPE[0] * SHAPE[1] * 4
assert WHOLE == MIB * 2**20


def run(action: str, directory: Path, *, devices: int, processes: int = 1):
    """The reports of all processes, each with so many devices."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        where = f"localhost:{listener.getsockname()[1]}"
    command = [sys.executable, "-m", "tests.checkpoint_process", action, str(directory)]
    who = [[where, str(processes), str(i)] if processes > 1 else [] for i in range(2)]
    started = [
        subprocess.Popen(
            command + who[i],
            cwd=REPO,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    reports = []
    for process in started:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        reports.append(json.loads(out.splitlines()[-1]))
    assert sum(r["bytes"] for r in reports) == WHOLE
    return reports


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_checkpoint_crosses_meshes_in_parts(tmp_path):
    [saved] = run("save", tmp_path, devices=8)
    for devices, processes in ((4, 1), (1, 1), (4, 2)):
        reports = run("restore", tmp_path, devices=devices, processes=processes)
        assert sum(r["sum"] for r in reports) == pytest.approx(saved["sum"], rel=1e-6)
        for report in reports:
            # Its part, and what is being read at the time.
            assert report["peak"] < 2 * report["bytes"] + 64 * 2**20
    # What two processes have saved, one reads.
    both = run("save", tmp_path / "two", devices=2, processes=2)
    [one] = run("restore", tmp_path / "two", devices=1)
    assert sum(r["sum"] for r in both) == pytest.approx(one["sum"], rel=1e-6)
