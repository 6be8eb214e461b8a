"""Five-fold cross-validation of the reward model over labelers (paper §4.1, E.2).

The training labelers are cut into five groups of about equal data. For each group and
seed a reward model is trained on the rankings of the four others, by the stage
`reward`, and measured on rankings of labelers that it has seen and of the group left
out. No prompt of a measured ranking is in that model's training data.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.folds import Fold, cut_fold, labeler_groups
from instructgpt.data.records import Record
from instructgpt.data.sources import build_jsonl
from instructgpt.distributed import first_then_others, on_first
from instructgpt.errors import UserError, about
from instructgpt.evals.folds import folds_figure, folds_table, summary
from instructgpt.evals.report.plotting import to_png
from instructgpt.identity import RUNS, flat, is_finished, is_path, read_json
from instructgpt.metrics import read_metrics
from instructgpt.outputs import new_file
from instructgpt.paths import one_deeper, resolve
from instructgpt.ranges import NonNegativeInt, PositiveFraction, PositiveInt, RankedInt
from instructgpt.stages import common, loading, reward
from instructgpt.stages.label import has_report, open_comparisons
from instructgpt.stages.programs import Models, Program
from instructgpt.stages.rankings import RewardConfig, reads_own

_AGAIN = "delete this workdir, and run the stage again"
# The blocks of the reward stage's config that this stage's config has too.
_BLOCKS = (
    *("data", "mesh", "checkpoints", "model", "train"),
    *("optimizer", "init", "reward"),
)
# Sets of a fold -> splits of the rankings that its reward stages read.
_SPLITS = {"train": "train", "same": "valid", "other": "heldout"}


@dataclasses.dataclass(frozen=True)
class FoldsConfig:
    """How the rankings are cut, and how many models are trained."""

    num_folds: RankedInt = 5  # groups of labelers
    num_seeds: PositiveInt = 3  # models of each fold, from config.seed on
    # Share of the training groups' prompts whose rankings are measured.
    measured: PositiveFraction = 0.1
    num_rankings: NonNegativeInt = 0  # training rankings that are cut; 0: all
    # Whether the models are kept; else each is deleted once it is measured.
    keep_models: bool = False


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains and measures all models; writes `results.json` and `folds.png`."""
    context = common.start(config, workdir)
    path = context.workdir / "results.json"
    if not path.exists():
        common.write_json(path, _measure(context))
    results = read_json(path, remedy=_AGAIN)
    if not is_finished(context.workdir):
        on_first(lambda: _draw(context.workdir / "folds.png", results))
    common.finish(context)
    on_first(lambda: show(context.workdir))
    return results


def show(workdir: Path) -> None:
    """Prints the table of a finished stage."""
    results = read_json(workdir / "results.json", remedy=_AGAIN)
    common.announce(
        f"\n{len(results['runs'])} reward models, {len(results['groups'])} groups of "
        f"labelers:\n\n{folds_table(results)}\nfigure: {workdir / 'folds.png'}"
    )


def _draw(path: Path, results: dict[str, Any]) -> None:
    with new_file(path) as partial:
        partial.write_bytes(to_png(folds_figure(results)))


def _measure(context: common.Context) -> dict[str, Any]:
    """The content of `results.json`."""
    settings = common.block_of(context.config, "folds", FoldsConfig)
    with about("config.init"):
        init = common.block_of(context.config, "init", loading.InitConfig)
        loading.find(init, context, overrides=common.overrides(context.config.model))
    rankings = _rankings(context, settings)
    groups = labeler_groups(
        rankings,
        settings.num_folds,
        rng=np.random.default_rng([context.config.seed, 11]),
    )
    folds = [
        cut_fold(
            rankings,
            group,
            share=settings.measured,
            rng=np.random.default_rng([context.config.seed, 12, number]),
        )
        for number, group in enumerate(groups)
    ]
    runs: list[dict[str, Any]] = []
    total = settings.num_folds * settings.num_seeds
    for number, fold in enumerate(folds):
        for seed in range(settings.num_seeds):
            common.announce(
                f"{context.config.name}: fold {number}, seed {seed}, model "
                f"{len(runs) + 1} of {total}"
            )
            runs.append(_run_one(context, settings, fold, number, seed))
    return {"groups": groups, "runs": runs, "summary": summary(runs)}


def _rankings(context: common.Context, settings: FoldsConfig) -> list[Record]:
    """The training rankings that are cut."""
    found = common.block_of(context.config, "reward", RewardConfig)
    if reads_own(context, found):
        source = context.data.source("comparisons", "train")
    else:
        directory = resolve(found.comparisons, context.workdir)
        source = open_comparisons(directory, "train")
    return source[: settings.num_rankings or len(source)]


def _run_one(
    context: common.Context, settings: FoldsConfig, fold: Fold, number: int, seed: int
) -> dict[str, Any]:
    """Trains and measures a model, unless that is done; returns its accuracies."""
    path = context.workdir / f"fold-{number}-seed-{seed}.json"
    if not path.exists():
        folder = context.workdir / RUNS / f"fold-{number}"
        if not has_report(folder / "rankings"):
            first_then_others(lambda: _write_rankings(folder / "rankings", fold))
        workdir = folder / f"seed-{seed}"
        config = _training_config(context.config, number, seed)
        with about(f"fold {number}"):
            reward.run(config, workdir)
            found = _accuracies(workdir)
        common.write_json(path, {"fold": number, "seed": seed, **found})
        if not settings.keep_models:
            on_first(lambda: shutil.rmtree(workdir / "checkpoints"))
    return read_json(path, remedy=f"delete {path}, and that model is trained again")


def _accuracies(workdir: Path) -> dict[str, float]:
    """A trained model's accuracies on the two measured sets."""
    rows = read_metrics(workdir / "metrics.jsonl")
    out = {}
    for name, split in list(_SPLITS.items())[1:]:
        values = [
            row[f"{split}_accuracy"] for row in rows if f"{split}_accuracy" in row
        ]
        if not values:
            raise UserError(
                f"none of the measured rankings ({name}) has an untied pair; raise "
                "config.folds.measured, or give more rankings"
            )
        out[name] = values[-1]
    return out


def _training_config(config: ConfigDict, number: int, seed: int) -> ConfigDict:
    """The config of the reward stage of a fold and seed, whose workdir is deeper."""
    name = f"{config.name} {number}.{seed}"
    made = common.default_config("reward", name=name, trackers=config.trackers)
    made.seed = config.seed + seed
    for block in _BLOCKS:
        made[block] = config[block].copy_and_resolve_references()
    values = flat(made.to_dict())
    deeper = {
        key: one_deeper(one_deeper(one_deeper(value)))
        for key, value in values.items()
        if is_path(key) and value
    }
    made.update_from_flattened_dict({**deeper, "reward.comparisons": "../rankings"})
    return made


def _write_rankings(folder: Path, fold: Fold) -> None:
    """Writes a fold's rankings as a label stage would leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, split in _SPLITS.items():
        files[split] = folder / f"comparisons.{split}.jsonl"
        _write_lines(files[split], getattr(fold, name))
    made = build_jsonl("comparisons", "fold", folder, files)
    common.write_json(folder / "labels.json", {"set": made})


def _write_lines(path: Path, rows: Sequence[Record]) -> None:
    with new_file(path) as partial:
        lines = (json.dumps(row) + "\n" for row in rows)
        partial.write_text("".join(lines), encoding="utf-8")


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The update's program, which is the reward stage's."""
    return reward.programs(config, mesh, models)
