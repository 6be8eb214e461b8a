"""Starts the recipe's command line so that it dies at a given moment."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.dying import SENT, Moment, to_text
from tests.stages.processes import free_port

REPO = Path(__file__).resolve().parents[2]
LONGEST = 900  # seconds for a launch; two processes on busy cores took more than 300
# What a run says when it is asked to stop: in the training loop, and elsewhere.
SAYS_STOPPED = ("which is saved; start the same line again", "what is whole stays")


class Ended(NamedTuple):
    """How a launch ended."""

    code: int  # of the process that had a moment to die at
    text: str  # what all printed
    moment: Moment | None  # that came


def environment(ledger: Path, moments: Sequence[Moment]) -> dict[str, str]:
    """What a launch sees."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax"))
    return {
        "JAX_NUM_CPU_DEVICES": "1",
        **os.environ,
        "LEDGER": str(ledger),
        "MOMENTS": to_text(moments),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def launch(flags: Sequence[str], ledger: Path, moments: Sequence[Moment]) -> Ended:
    """The command line as one process, with moments at the first of which it dies."""
    ledger.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.dying", *flags],
        cwd=REPO,
        env=environment(ledger, moments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        text = process.communicate(timeout=LONGEST)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        text = process.communicate()[0] + f"\nno end after {LONGEST} s"
        return Ended(-1, text, None)
    return Ended(process.returncode, text, _came(ledger, moments))


def launch_two(
    flags: Sequence[str], ledgers: Sequence[Path], moments: Sequence[Moment], which: int
) -> Ended:
    """The command line as two processes of one program, one of which is to die.

    The other is killed as soon as that has happened, as a scheduler does.
    """
    port = free_port()
    processes = []
    for number, ledger in enumerate(ledgers):
        ledger.unlink(missing_ok=True)
        where = f"--coordinator=localhost:{port}"
        line = [where, "--num_processes=2", f"--process_id={number}", *flags]
        with ledger.with_suffix(".log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.dying", *line],
                cwd=REPO,
                env=environment(ledger, moments if number == which else []),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
    late = time.monotonic() + LONGEST
    try:
        while all(p.poll() is None for p in processes) and time.monotonic() < late:
            time.sleep(0.05)
        came = _came(ledgers[which], moments)
        for process in processes if came is None else []:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(1, late - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    text = "".join(ledger.with_suffix(".log").read_text() for ledger in ledgers)
    codes = [process.returncode for process in processes]
    return Ended(codes[which] if came else max(codes, key=abs), text, came)


def _came(ledger: Path, moments: Sequence[Moment]) -> Moment | None:
    """The moment that a launch died at, if it lived to see one."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    by_line = {f"{SENT} {moment.event}": moment for moment in moments}
    return next((by_line[line] for line in lines if line in by_line), None)


def wrong_ending(ended: Ended) -> str:
    """What is wrong with how a launch ended; "" if nothing is."""
    moment = ended.moment
    if "Traceback (most recent" in ended.text:
        return "a traceback"
    if moment is None:
        return f"exit code {ended.code}" if ended.code else ""
    if moment.number == signal.SIGKILL:
        # Within the delay the run may have ended by itself.
        return "" if ended.code in (-signal.SIGKILL, 0) else f"exit code {ended.code}"
    if ended.code == 0 and moment.delay:
        return ""
    if ended.code != 128 + moment.number:
        return f"exit code {ended.code}"
    if not any(says in ended.text for says in SAYS_STOPPED):
        return "does not say that it was stopped"
    return ""
