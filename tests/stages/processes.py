"""Starts the command line as several processes of one program."""

import os
import socket
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
ENDS_WITHIN = 60  # seconds after another process has died


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def environment(devices: int, **more: str) -> dict[str, str]:
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **more}


def run_local(processes: int, devices: int, *line: str) -> str:
    """The script of the README; gives what it printed."""
    done = subprocess.run(
        ["bash", "launch/local.sh", *line],
        cwd=REPO,
        env=environment(devices, PROCESSES=str(processes), PORT=str(free_port())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_by_hand(*line: str) -> list[subprocess.Popen]:
    """Two processes, without a script that looks after them."""
    where = f"--coordinator=localhost:{free_port()}"
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "instructgpt.main", where),
                *("--num_processes=2", f"--process_id={number}", *line),
            ],
            cwd=REPO,
            env=environment(4),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
