"""Runs many PPO iterations: what is held stays constant, nothing is recompiled.

    python tests/benchmarks/endurance.py [--iterations=200] [--picture=FILE.png]

Runs the smoke recipe up to PPO-ptx with so many iterations, an evaluation every 20, a
checkpoint every 10. After each iteration it takes the memory in use and the number of
Python objects and counts the programs compiled since the one before. Exits with 1 if
at the end the memory in use is more than 1 % above that half-way, or the objects more
than 2 %, or if anything is compiled after the first evaluation. The objects grow a
little, because the checkpoint library keeps about a thousand small strings a save.

The process's resident memory is drawn beside what is in use. It never shrinks, as the
commands keep what a step frees, and rises in steps where a large block finds no gap.
"""

import argparse
import ctypes
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from configs import recipe as recipe_config  # noqa: E402
from instructgpt import loop  # noqa: E402
from instructgpt.cli import keep_memory  # noqa: E402
from instructgpt.evals.report.plotting import MODELS, STYLE  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402
from instructgpt.stages import recipe  # noqa: E402
from tests.stages.compile_spy import compiled_so_far  # noqa: E402

STAGE = "ppo_ptx"
EVALUATE_EVERY, SAVE_EVERY = 20, 10
# Growth from half-way to the end that is allowed.
GROWTH = {"in use": 0.01, "objects": 0.02}


class Watch:
    """Memory, Python objects and compilations after each iteration of a job."""

    def __init__(self) -> None:
        self.held: dict[str, list[float]] = {}
        self.compiled: list[int] = []
        self._before = compiled_so_far()
        self._agree = loop.agree_to_stop
        loop.agree_to_stop = self._after

    def _after(self, asked: bool, step: int) -> bool:
        if step == 1:  # of the last job, as all call this
            self.held, self.compiled = {}, []
        for name, amount in held().items():
            self.held.setdefault(name, []).append(amount)
        self.compiled.append(compiled_so_far() - self._before)
        self._before = compiled_so_far()
        return self._agree(asked, step)


class _Malloc(ctypes.Structure):
    """What glibc's mallinfo2 returns, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def held() -> dict[str, float]:
    """This process's memory in use and resident in MiB, thousands of Python objects.

    In use is what was allocated and not freed, arrays included, objects not. Where the
    C library does not tell, it is the resident memory.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    try:
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _Malloc
        info = ask()
        used = (info.uordblks + info.hblkhd) / 2**20
    except AttributeError:
        used = resident
    objects = sys.getallocatedblocks() / 1000
    return {"in use": used, "resident": resident, "objects": objects}


def run(iterations: int, workdir: Path) -> Watch:
    """Runs the recipe up to and with these iterations."""
    config = recipe_config.get_config("smoke")
    config.order = tuple(n for n in config.order if n not in ("ppo", "evaluate"))
    train = config.stages[STAGE].train
    train.num_steps, train.log_every = iterations, SAVE_EVERY
    train.eval_every, train.checkpoint_every = EVALUATE_EVERY, SAVE_EVERY
    watch = Watch()
    recipe.run(config, workdir)
    # The loop asks once more after its last iteration.
    del watch.compiled[iterations:]
    for amounts in watch.held.values():
        del amounts[iterations:]
    return watch


def summary(watch: Watch) -> tuple[list[list[str]], bool]:
    """(rows of a table, whether what is held is flat and nothing was compiled late)."""
    rows, good = [], True
    names = {
        "in use": "memory in use, MiB",
        "resident": "memory resident, MiB",
        "objects": "Python objects, thousands",
    }
    for key, name in names.items():
        amounts = np.array(watch.held[key])
        half, size = len(amounts) // 2, max(1, len(amounts) // 20)
        means = [
            float(part.mean())
            for part in (amounts[:size], amounts[half : half + size], amounts[-size:])
        ]
        rows.append([name, *(f"{mean:,.1f}" for mean in means)])
        good &= means[2] <= means[1] * (1 + GROWTH.get(key, np.inf))
    early = sum(watch.compiled[: EVALUATE_EVERY + 1])
    late = sum(watch.compiled[EVALUATE_EVERY + 1 :])
    rows.append(["programs compiled up to the first evaluation", str(early), "", ""])
    rows.append(["programs compiled after it", "", "", str(late)])
    return rows, good and not late


def draw(watch: Watch) -> Figure:
    """Memory and compilations by iteration, one above the other."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        steps = np.arange(1, len(watch.compiled) + 1)
        look = MODELS[STAGE]
        for name, line in (("resident", ":"), ("in use", "-")):
            above.plot(steps, watch.held[name], line, color=look.color)
            end = steps[-1], watch.held[name][-1]
            above.annotate(name, end, (0, 6), textcoords="offset points", ha="right")
        above.set_ylim(0, max(watch.held["resident"]) * 1.15)
        above.set_title("Memory of the host, MiB")
        below.bar(steps, watch.compiled, color=look.color, width=1.0)
        below.set_title("Programs compiled")
        below.set_xlabel(f"{look.label} iteration")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, prints the table and draws; 1 if more is held or compiled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--iterations", type=int, default=200, help="how many (%(default)s)")
    add("--picture", type=Path, help="a .png or .svg that gets the curve")
    args = parser.parse_args(argv)
    if args.iterations < 2 * EVALUATE_EVERY:
        parser.error(f"give at least {2 * EVALUATE_EVERY} iterations")
    with tempfile.TemporaryDirectory() as folder:
        watch = run(args.iterations, Path(folder) / "run")
    rows, good = summary(watch)
    heading = [f"{args.iterations} iterations", "first", "half-way", "last"]
    print(format_table(rows, heading))
    if args.picture:
        draw(watch).savefig(args.picture, dpi=160)
    return int(not good)


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
