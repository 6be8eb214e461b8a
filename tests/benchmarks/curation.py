"""How fast the command curates, in how much memory, and whether it finds every fault.

    python tests/benchmarks/curation.py --rows=1000000

makes a synthetic set with planted faults, runs the command on a tenth of the rows and
on all of them, each in a process of its own, and checks that exactly the planted rows
were removed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tests.data.planted import BLOCK, FILES, check_planted, write_planted  # noqa: E402

# What a tenfold input may cost in memory: SQLite's page cache, empty in a small run.
MAX_GROWTH_MIB = 48


class Run(NamedTuple):
    """One run of the command."""

    rows: int
    removed: dict[str, int]
    seconds: float  # wall clock, with the start of Python
    cpu_seconds: float
    peak_mib: float  # resident memory of the process
    printed: str


def run(rows: int, *, given_splits: bool) -> Run:
    """Curates so many rows in a process of its own and checks what became of each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs = write_planted(folder, rows)
        out = folder / "out"
        command = [sys.executable, "-m", "instructgpt.curate", "--kind=prompts"]
        command += [*map(str, inputs), str(out)]
        if given_splits:
            splits = f"--given-splits={','.join(FILES)}"
            command += [splits, "--cross-split=drop"]
        started = time.perf_counter()
        with (folder / "printed").open("w") as printed:
            process = subprocess.Popen(command, cwd=REPO, stdout=printed)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return Run(
            rows,
            check_planted(out, rows, given_splits=given_splits),
            seconds,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss / 1024,
            (folder / "printed").read_text(),
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args(argv).rows
    if rows < 1 or rows % (10 * BLOCK):
        sys.exit(f"error: --rows={rows}: give a multiple of {10 * BLOCK:,}.")
    for given_splits in (False, True):
        print("splits given" if given_splits else "split by customer")
        small, large = (
            run(number, given_splits=given_splits) for number in (rows // 10, rows)
        )
        print(large.printed.rstrip())
        for result in (small, large):
            print(
                f"{result.rows:,} rows: {result.seconds:.1f} s,"
                f" {result.rows / result.seconds:,.0f} rows/s"
                f" ({result.rows / result.cpu_seconds:,.0f} a second of CPU time),"
                f" peak memory {result.peak_mib:.0f} MiB,"
                f" all {sum(result.removed.values()):,} planted rows removed: "
                + ", ".join(f"{reason} {n:,}" for reason, n in result.removed.items())
            )
        growth = large.peak_mib - small.peak_mib
        print(f"ten times the rows took {growth:.0f} MiB more")
        assert growth < MAX_GROWTH_MIB


if __name__ == "__main__":
    main()
