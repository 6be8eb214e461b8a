"""Writes the results of several runs of the recipe as one Markdown table.

    python tests/benchmarks/seeds.py runs/mini runs/mini-1 runs/mini-2

takes the workdirs of recipes that have evaluated and prints a row for each: its seeds
and every number of its results, with 95 % intervals in brackets. Below them stand the
mean and the range of each number over runs in one world with several training seeds,
and over several worlds with one training seed. `--transpose` prints a column for each
run instead.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.errors import UserError  # noqa: E402
from instructgpt.evals.report.plotting import Results, label, model_names, title  # noqa: E402
from instructgpt.evals.report.tables import format_interval, markdown_table  # noqa: E402
from instructgpt.evals.report.writing import load_results  # noqa: E402

Value = float | Sequence[float] | None  # a number, or it with its interval
Numbers = dict[str, Value]  # column -> value
# Models whose pretraining loss tells of the alignment tax.
TAXED = {"gpt": "GPT", "rl_init": "RL-init", "ppo": "PPO", "ppo_ptx": "PPO-ptx"}
RANKED = {
    "shared_pairs": "RM accuracy, shared pairs",
    "agreement": "labelers' agreement, the same pairs",
}


class Run(NamedTuple):
    """A finished recipe."""

    name: str  # its workdir as it was given
    world: int  # seed of the world
    training: int  # seed of training and sampling
    numbers: Numbers


def read_run(workdir: str) -> Run:
    """The results of a recipe.

    Raises:
      UserError: it has not evaluated, or its results are damaged.
    """
    path = Path(workdir) / "evaluate" / "results.json"
    results = load_results(path)
    meta = results.get("meta", {})
    if "seed" not in meta:
        raise UserError(f"{path}: meta.seed is missing; run the evaluate stage again")
    # One seed was that of the world and of training before there were two.
    world = meta.get("world_seed", meta["seed"])
    return Run(workdir, world, meta["seed"], read_numbers(results))


def read_numbers(results: Results) -> Numbers:
    """Every number that runs are compared by, as `results.json` has it.

    The keys are in the order in which they are printed. The baseline has no win rate.
    """
    models = {name: results["models"][name] for name in model_names(results)}
    names = {name: label(results, name) for name in models}
    numbers: Numbers = {}
    for name, model in models.items():
        if name != results.get("baseline", "sft"):
            numbers[f"win rate, {names[name]}"] = model.get("win_rate")
    for name, model in models.items():
        numbers[f"Likert, {names[name]}"] = model.get("likert")
    for name, shown in TAXED.items():
        loss = results.get("pretrain_loss", {}).get(name)
        numbers[f"pretraining loss, {shown}"] = loss
    flags = dict.fromkeys(flag for m in models.values() for flag in m.get("flags", {}))
    for flag in flags:
        for name, model in models.items():
            shown = f"{title(flag).lower()}, {names[name]}"
            numbers[shown] = model.get("flags", {}).get(flag)
    for group, labelers in (("train", "training"), ("heldout", "held-out")):
        for kind, shown in RANKED.items():
            rate = results.get("reward_model", {}).get(f"{kind}_{group}")
            numbers[f"{shown}, {labelers} labelers"] = rate
    return numbers


def groups(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """Runs that share one of the two seeds and differ in the other, named by both."""
    kinds: tuple[tuple[str, str, Callable[[Run], int], Callable[[Run], int]], ...] = (
        ("world", "training seeds", lambda r: r.world, lambda r: r.training),
        ("training seed", "worlds", lambda r: r.training, lambda r: r.world),
    )
    for common, varied, of_common, of_varied in kinds:
        for seed in dict.fromkeys(map(of_common, runs)):
            members = [run for run in runs if of_common(run) == seed]
            count = len({of_varied(run) for run in members})
            if count > 1:
                yield f"{common} {seed}, {count} {varied}", members


def spread(values: Sequence[Value], digits: int) -> str:
    """Mean and range of a number over runs: "0.64 (0.63–0.65)"; "–" without a value."""
    found = [v[0] if isinstance(v, Sequence) else v for v in values if v is not None]
    if not found:
        return "–"
    mean, least, greatest = sum(found) / len(found), min(found), max(found)
    return f"{mean:.{digits}f} ({least:.{digits}f}–{greatest:.{digits}f})"


def table(runs: Sequence[Run], *, transpose: bool = False) -> str:
    """The Markdown table: a row for each run, then one for each group of them."""
    columns = list(dict.fromkeys(key for run in runs for key in run.numbers))
    rows = [["run", "world seed", "training seed", *columns]]
    for run in runs:
        cells = [format_interval(run.numbers.get(c), _digits(c)) for c in columns]
        rows.append([run.name, str(run.world), str(run.training), *cells])
    for name, members in groups(runs):
        cells = [
            spread([run.numbers.get(c) for run in members], _digits(c)) for c in columns
        ]
        rows.append([f"mean (range): {name}", "", "", *cells])
    if transpose:
        rows = [list(row) for row in zip(*rows, strict=True)]
    return markdown_table(rows[1:], rows[0])


def _digits(column: str) -> int:
    return 3 if column.startswith("pretraining loss") else 2


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="WORKDIR", help="of a recipe")
    parser.add_argument(
        "--transpose", action="store_true", help="print a column for each run"
    )
    args = parser.parse_args(argv)
    try:
        print(table([read_run(run) for run in args.runs], transpose=args.transpose))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
