"""Kills and stops the smoke recipe at seeded moments: it must end as if undisturbed.

    python tests/faults/kills.py [--kills=35] [--of_two=15] [--stops=20] [--seed=0]

An unbroken run first tells which moments there are (see `dying.py`). A run is then
launched with a moment to die at, launched again with a later one, and so on, several
times before it may end: --kills by SIGKILL in all, --stops by SIGTERM and SIGINT in
turns, and --of_two by SIGKILL of one of two processes that are one program. What each
run leaves must be what the unbroken one left, to the bit, with no file more or less
(`same_end.py`). Exits with 1 if one is not.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from configs import recipe  # noqa: E402
from instructgpt.metrics import format_table  # noqa: E402
from tests.faults.dying import SENT, Moment, to_text  # noqa: E402
from tests.faults.same_end import differences  # noqa: E402
from tests.stages.processes import free_port  # noqa: E402

RECIPE = ("--config=configs/recipe.py:smoke",)
STAGES = tuple(recipe._STAGES)
# Two processes on one machine are slow: each stage once, and no report.
OF_TWO = "('pretrain','sft','rl_init','label','reward','select','ppo_ptx')"
PER_RUN = 8  # moments drawn for each run
LONGEST = 300  # seconds for a launch
STOPS = (signal.SIGTERM, signal.SIGINT)
# What a run says when it is asked to stop: in the training loop, and elsewhere.
SAYS_STOPPED = ("which is saved; start the same line again", "what is whole stays")
# Between the first and the last of a moment's kinds, the stages' files are written.
KINDS = ("update", "mid-save", "commit or deletion", "between stages", "other files")


class Ended(NamedTuple):
    """How a launch ended."""

    code: int  # of the process that had a moment to die at
    text: str  # what all printed
    moment: Moment | None  # that came


def kind_of(event: str) -> str:
    """Which of KINDS an event of the ledger is."""
    what, _, path = event.partition(" ")
    parts = path.split("/")
    if what == "update":
        return "update"
    if "checkpoints" in parts and len(parts) > 2:
        begins = parts[2].partition(".")
        half = begins[1] and len(parts) > 3
        return "mid-save" if half and what != "os.remove" else "commit or deletion"
    if parts[-1].lstrip(".").startswith(("identity", "finished", "config", "lock")):
        return "between stages"
    return "other files"


def draw_moments(
    ledger: Sequence[str],
    draw: random.Random,
    *,
    count: int,
    numbers: Sequence[int] = (signal.SIGKILL,),
) -> list[Moment]:
    """Moments of a run in order, of kinds and stages drawn alike."""
    first = {event: i for i, event in reversed(list(enumerate(ledger)))}
    groups: dict[tuple[str, str], list[str]] = {}
    for event in first:
        stage = event.split(" ")[1].split("/")[0]
        groups.setdefault((kind_of(event), stage), []).append(event)
    chosen: set[str] = set()
    while len(chosen) < min(count, len(first)):
        kind = draw.choice(sorted({kind for kind, _ in groups}))
        group = draw.choice(sorted(g for g in groups if g[0] == kind))
        chosen.add(draw.choice(groups[group]))
    return [
        Moment(event, draw.choice([0.0, draw.random() * 0.3]), draw.choice(numbers))
        for event in sorted(chosen, key=first.__getitem__)
    ]


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
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.dying", *flags],
        cwd=REPO,
        env=environment(ledger, moments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    return Ended(done.returncode, done.stdout, _came(ledger, moments))


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


class Harness:
    """Runs of the recipe below a folder, each compared with an unbroken one.

    Args:
      root: Where the workdirs lie; those of runs that ended well are deleted.
      seed: Of all moments.
    """

    def __init__(self, root: Path, seed: int):
        self.root, self.draw = root, random.Random(seed)
        self.faults: list[str] = []
        self.hits: Counter[tuple[str, str]] = Counter()  # (signal, kind)
        self.runs = 0

    def _flags(self, workdir: Path, *, two: bool) -> list[str]:
        order = [f"--config.order={OF_TWO}"] if two else []
        return [*RECIPE, f"--workdir={workdir}", *order]

    def unbroken(self, name: str, *, two: bool = False) -> tuple[Path, list[list[str]]]:
        """A run that nothing disturbs: its workdir, and the ledger of each process."""
        workdir = self.root / name
        ledgers = [self.root / f"{name}.{i}.ledger" for i in range(1 + two)]
        if two:
            ended = launch_two(self._flags(workdir, two=True), ledgers, [], 0)
        else:
            ended = launch(self._flags(workdir, two=False), ledgers[0], [])
        if ended.code:
            raise SystemExit(f"the unbroken run failed:\n{ended.text}")
        return workdir, [path.read_text().splitlines() for path in ledgers]

    def broken(
        self,
        expected: Path,
        ledgers: Sequence[Sequence[str]],
        numbers: Sequence[int],
        most: int,
    ) -> int:
        """A run that gets up to so many signals; how many it got."""
        self.runs += 1
        name, two = f"run{self.runs}", len(ledgers) > 1
        workdir, hit = self.root / name, 0
        # One process's ledger knows nothing of the other's moments.
        which = self.draw.randrange(len(ledgers))
        count = min(PER_RUN, most)
        drawn = draw_moments(ledgers[which], self.draw, count=count, numbers=numbers)
        paths = [self.root / f"{name}.{i}.ledger" for i in range(len(ledgers))]
        flags, left = self._flags(workdir, two=two), drawn
        while True:
            if two:
                ended = launch_two(flags, paths, left, which)
            else:
                ended = launch(flags, paths[0], left)
            wrong = wrong_ending(ended)
            if wrong:
                about = f"{name}: {ended.moment} (process {which})"
                self._fault(f"{about}: {wrong}", ended.text)
                return hit
            if ended.moment is None:
                break
            # Those that have gone by without a signal do not come again.
            left = left[left.index(ended.moment) + 1 :]
            hit += 1
            sent = signal.Signals(ended.moment.number).name + " of two" * two
            self.hits[sent, kind_of(ended.moment.event)] += 1
        different = differences(expected, workdir)
        if different:
            self._fault(f"{name}: {'; '.join(different)}", str(drawn))
        else:
            shutil.rmtree(workdir)
        return hit

    def _fault(self, what: str, text: str) -> None:
        self.faults.append(what)
        print(f"FAULT {what}\n  | " + "\n  | ".join(text.splitlines()[-15:]))

    def until(
        self,
        wanted: int,
        expected: Path,
        ledgers: Sequence[Sequence[str]],
        numbers: Sequence[int],
    ) -> None:
        """Broken runs until there were so many signals, or one run got none."""
        done, began = 0, time.monotonic()
        while done < wanted and len(self.faults) < 3:
            hit = self.broken(expected, ledgers, numbers, wanted - done)
            done += hit
            took = time.monotonic() - began
            print(f"run {self.runs}: {done} of {wanted} signals, {took:.0f} s")
            sys.stdout.flush()

    def table(self) -> str:
        """How many signals came at which kind of moment."""
        signals = sorted({name for name, _ in self.hits})
        rows = []
        for name in signals:
            counts = [self.hits[name, kind] for kind in KINDS]
            rows.append([name, *map(str, counts), str(sum(counts))])
        return format_table(rows, ["signal", *KINDS, "all"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all, and prints a table; 1 if a run did not end as the unbroken one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kills", type=int, default=35, help="SIGKILLs of one process (%(default)s)")
    add("--of_two", type=int, default=15, help="of one of two (%(default)s)")
    add("--stops", type=int, default=20, help="SIGTERMs and SIGINTs (%(default)s)")
    add("--seed", type=int, default=0, help="of the moments (%(default)s)")
    args = parser.parse_args(argv)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="kills_"))
    harness = Harness(root, args.seed)
    if args.kills or args.stops:
        expected, ledgers = harness.unbroken("unbroken")
        harness.until(args.kills, expected, ledgers, [signal.SIGKILL])
        for i in range(2):
            harness.until(args.stops // 2, expected, ledgers, [STOPS[i]])
    if args.of_two:
        expected, ledgers = harness.unbroken("unbroken_two", two=True)
        harness.until(args.of_two, expected, ledgers, [signal.SIGKILL])
    print(harness.table())
    took = (time.monotonic() - began) / 60
    bad = len(harness.faults)
    print(f"{harness.runs} runs, {bad} not as the unbroken one, {took:.1f} minutes")
    if harness.faults:
        print(f"their workdirs stay in {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
