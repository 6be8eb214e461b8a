"""Compares the speed of this checkout with another's, in turns.

    git worktree add ../other COMMIT
    python tests/benchmarks/turns.py ../other [sft] [reward] [sample] [ppo] \\
        [--turns=10] [flags of run.py, such as --width=512]

Both checkouts live in processes of their own, compile a job, and run it one after the
other, so that a turn's two times are seconds apart and share the machine's mood. The
order changes with every turn. A job's line gives the medians, their ratio (above 1:
this checkout is faster) and the median of the turns' ratios. Commits must both have
tests/benchmarks/run.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# Runs a job once for each line of its input, until the line "next".
WORKER = """
import importlib.util, sys, time
sys.path.insert(0, sys.argv[1])
spec = importlib.util.spec_from_file_location(
    "benchmark", sys.argv[1] + "/tests/benchmarks/run.py"
)
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
import instructgpt
if not instructgpt.__path__[0].startswith(sys.argv[1]):
    sys.exit(f"{sys.argv[1]}: would measure {instructgpt.__path__[0]}")
run.keep_memory()
run.use_cores()
args = run.parse(sys.argv[2:])
for name in args.jobs:
    job = run.jobs.JOBS[name](args)
    run.seconds_of(job.run, count=0)
    print(name, flush=True)
    for line in sys.stdin:
        if line == "next\\n":
            break
        start = time.perf_counter()
        run.jax.block_until_ready(job.run())
        print(time.perf_counter() - start, flush=True)
"""


class Side:
    """A checkout's process."""

    def __init__(self, tree: Path, flags: Sequence[str]):
        self.tree = tree
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER, str(tree), *flags],
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> str:
        """The next line that the process prints; it tells of its own errors."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit(f"error: the benchmark of {self.tree} ended; see above.")
        return line

    def write(self, line: str) -> None:
        """Sends a line to the process."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def seconds(self) -> float:
        """The time of one call of the job."""
        self.write("once")
        return float(self.read())

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def compare(
    other: Path, jobs: Sequence[str], flags: Sequence[str], turns: int
) -> Iterator[dict[str, object]]:
    """Yields a line for each job."""
    ours, theirs = (Side(tree, [*jobs, *flags]) for tree in (REPO, other))
    try:
        for job in jobs:
            assert ours.read() == theirs.read() == job
            times: dict[Side, list[float]] = {ours: [], theirs: []}
            for turn in range(turns):
                for side in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
                    times[side].append(side.seconds())
            here, there = (statistics.median(x) for x in times.values())
            pairs = [b / a for a, b in zip(*times.values(), strict=True)]
            yield {
                "job": job,
                "turns": turns,
                "here_s": round(here, 4),
                "other_s": round(there, 4),
                "ratio": round(there / here, 3),
                "median_pair": round(statistics.median(pairs), 3),
                "pairs": [round(min(pairs), 2), round(max(pairs), 2)],
            }
            for side in times:
                side.write("next")
    finally:
        ours.end()
        theirs.end()


def main(argv: Sequence[str] | None = None) -> None:
    """Compares and prints."""
    every = ("sft", "reward", "sample", "ppo")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(every)}; all")
    parser.add_argument("--turns", type=int, default=10, help="%(default)s")
    args, flags = parser.parse_known_args(argv)
    other = args.other.resolve()
    if not (other / "tests" / "benchmarks" / "run.py").is_file():
        parser.error(f"{other} has no tests/benchmarks/run.py")
    if args.turns < 1:
        parser.error(f"--turns={args.turns}; give 1 or more")
    if unknown := set(args.jobs) - set(every):
        parser.error(f"no job {', '.join(sorted(unknown))}; known: {', '.join(every)}")
    for line in compare(other, args.jobs or every, flags, args.turns):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
