"""Runs many PPO iterations: host memory stays constant, nothing is recompiled.

    python tests/benchmarks/endurance.py [--iterations=200] [--picture=FILE.png]

Runs the smoke recipe up to PPO-ptx with so many iterations, an evaluation every 20, a
checkpoint every 10. After each iteration it takes the process's resident memory and
counts the programs compiled since the one before. Exits with 1 if memory at the end is
more than 2 % above that half-way, or if anything is compiled after the first
evaluation.
"""

import argparse
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
from instructgpt.evals.plotting import MODELS, STYLE  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402
from instructgpt.stages import recipe  # noqa: E402
from tests.stages.compile_spy import compiled_so_far  # noqa: E402

STAGE = "ppo_ptx"
EVALUATE_EVERY, SAVE_EVERY = 20, 10
GROWTH = 0.02  # of the memory half-way, allowed to the end


class Watch:
    """Memory and compilations after each iteration of a job."""

    def __init__(self) -> None:
        self.mebibytes: list[float] = []
        self.compiled: list[int] = []
        self._before = compiled_so_far()
        self._agree = loop.agree_to_stop
        loop.agree_to_stop = self._after

    def _after(self, asked: bool, step: int) -> bool:
        if step == 1:  # of the last job, as all call this
            self.mebibytes, self.compiled = [], []
        self.mebibytes.append(resident())
        self.compiled.append(compiled_so_far() - self._before)
        self._before = compiled_so_far()
        return self._agree(asked, step)


def resident() -> float:
    """This process's memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


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
    del watch.mebibytes[iterations:], watch.compiled[iterations:]
    return watch


def summary(watch: Watch) -> tuple[list[list[str]], bool]:
    """(rows of a table, whether memory is flat and nothing was compiled late)."""
    memory = np.array(watch.mebibytes)
    half, size = len(memory) // 2, max(1, len(memory) // 20)
    parts = {
        "first": memory[:size],
        "half-way": memory[half : half + size],
        "last": memory[-size:],
    }
    means = {name: float(part.mean()) for name, part in parts.items()}
    late = sum(watch.compiled[EVALUATE_EVERY + 1 :])
    rows = [[f"memory, {name}, MiB", f"{mean:.1f}"] for name, mean in means.items()]
    slope = np.polyfit(np.arange(len(memory) - half), memory[half:], 1)[0]
    rows.append(["growth in the second half, KiB an iteration", f"{slope * 1024:.1f}"])
    rows.append(["programs compiled up to the first evaluation", _early(watch)])
    rows.append(["programs compiled after it", str(late)])
    flat = means["last"] <= means["half-way"] * (1 + GROWTH)
    return rows, flat and not late


def _early(watch: Watch) -> str:
    return str(sum(watch.compiled[: EVALUATE_EVERY + 1]))


def draw(watch: Watch) -> Figure:
    """Memory and compilations by iteration, one above the other."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        steps = np.arange(1, len(watch.mebibytes) + 1)
        look = MODELS[STAGE]
        above.plot(steps, watch.mebibytes, color=look.color)
        above.set_ylim(0, max(watch.mebibytes) * 1.1)
        above.set_title("Resident memory of the host, MiB")
        below.bar(steps, watch.compiled, color=look.color, width=1.0)
        below.set_title("Programs compiled")
        below.set_xlabel(f"{look.label} iteration")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, prints the table and draws; 1 if memory grows or programs are compiled."""
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
    print(format_table(rows, [f"{args.iterations} iterations", ""]))
    if args.picture:
        draw(watch).savefig(args.picture, dpi=160)
    return int(not good)


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
