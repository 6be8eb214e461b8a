"""Kills and stops the smoke recipe at seeded moments: it must end as if undisturbed.

    python tests/faults/kills.py [--kills=35] [--of_two=15] [--stops=20] [--disks=7]

An unbroken run first tells which moments there are (see `dying.py`). A run is then
launched with a moment to die at, launched again with a later one, and so on, several
times before it may end: --kills by SIGKILL in all, --stops by SIGTERM or SIGINT, and
--of_two by SIGKILL of one of two processes that are one program. One more runs on a
file system that fills up at --disks sizes, and one while a second is started in its
workdir (`crowded.py`). What each run leaves must be what the unbroken one left, to the
bit, with no file more or less (`same_end.py`). Exits with 1 if one is not.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from configs import recipe  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402
from tests.faults.crowded import fill, may_mount, share  # noqa: E402
from tests.faults.dying import Moment  # noqa: E402
from tests.faults.launches import launch, launch_two, wrong_ending  # noqa: E402
from tests.faults.same_end import differences  # noqa: E402

RECIPE = ("--config=configs/recipe.py:smoke",)
STAGES = tuple(recipe._STAGES)
# Two processes on one machine are slow: each stage once, and no report.
OF_TWO = "('pretrain','sft','rl_init','label','reward','select','ppo_ptx')"
PER_RUN = 8  # moments drawn for each run
STOPS = (signal.SIGTERM, signal.SIGINT)
# Between the first and the last of a moment's kinds, the stages' files are written.
KINDS = ("update", "mid-save", "commit or deletion", "between stages", "other files")


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


class Harness:
    """Runs of the recipe below a folder, each compared with an unbroken one.

    Args:
      root: Where the workdirs lie; those of runs that ended well are deleted.
      seed: It draws all moments.
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
        moments = [path.read_text().splitlines() for path in ledgers]
        print(f"{name}: {sum(map(len, moments))} moments", flush=True)
        return workdir, moments

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
        """Broken runs until there were so many signals, or several faults."""
        done, began = 0, time.monotonic()
        while done < wanted and len(self.faults) < 3:
            hit = self.broken(expected, ledgers, numbers, wanted - done)
            done += hit
            took = time.monotonic() - began
            print(f"run {self.runs}: {done} of {wanted} signals, {took:.0f} s")
            sys.stdout.flush()
            if not hit:
                self._fault(f"run {self.runs} got no signal", "")

    def crowd(self, expected: Path, *, disks: int) -> None:
        """Runs on a disk that fills up, and in a workdir that another run wants."""
        if disks and may_mount(self.root):
            self.runs += 1
            lines, faults = fill(RECIPE, self.root, expected, sizes=disks)
            print("\n".join(f"disk of {line}" for line in lines))
            for fault in faults:
                self._fault(fault, "")
        elif disks:
            print("no small disks: this user may not mount")
        self.runs += 1
        said, faults = share(RECIPE, self.root, expected)
        print(f"second run in a workdir: {said}")
        for fault in faults:
            self._fault(fault, "")

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
    add("--disks", type=int, default=7, help="sizes of a small disk (%(default)s)")
    add("--seed", type=int, default=0, help="of the moments (%(default)s)")
    args = parser.parse_args(argv)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="kills_"))
    harness = Harness(root, args.seed)
    if args.kills or args.stops or args.disks:
        expected, ledgers = harness.unbroken("unbroken")
        harness.crowd(expected, disks=args.disks)
        harness.until(args.kills, expected, ledgers, [signal.SIGKILL])
        harness.until(args.stops, expected, ledgers, STOPS)
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
