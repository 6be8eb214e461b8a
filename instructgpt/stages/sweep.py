"""Runs a stage once for each of some values of a key, and measures what each leaves.

The runs start from a finished recipe, and each has its own folder, `runs/VALUE`. The
same command resumes: finished runs are left as they are, and so is one that diverged,
which has a row that says so. More values may be added to a sweep that is finished.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from instructgpt import locks
from instructgpt.distributed import on_first
from instructgpt.errors import DivergedError, UserError, about
from instructgpt.evals.compute import spent
from instructgpt.evals.found import commit
from instructgpt.evals.report.sweeps import format_sweep, write_sweep_report
from instructgpt.identity import (
    FINISHED,
    check_left,
    is_finished,
    read_json,
)
from instructgpt.metrics import METRICS_FILE, read_metrics
from instructgpt.paths import resolve
from instructgpt.progress import format_duration
from instructgpt.stages import common, find, loading, recipe
from instructgpt.stages.asking import forget_answers
from instructgpt.stages.sweep_models import MeasureConfig, Measuring, check_source
from instructgpt.stages.sweep_values import (
    Point,
    Sweep,
    SweepConfig,
    data_block,
    point_config,
    read_sweep,
)

__all__ = ["MeasureConfig", "SweepConfig", "run", "show"]

RESULTS, _FAILED = "results.json", "failed.json"
_AGAIN = "delete it, and start the sweep again: no run is lost"


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs and measures every value, and writes `results.json` and `report.html`.

    Raises:
      UserError: the config has a mistake, the recipe is not finished, or a run cannot
        begin. A run that fails later has a row in the results.
    """
    workdir = Path(workdir).absolute()
    sweep = read_sweep(config, workdir)
    if not sweep.recipe.is_dir():
        raise UserError(
            f"config.sweep.recipe: there is no folder {sweep.recipe}; name the workdir "
            "of a finished recipe by --config.sweep.recipe=WORKDIR"
        )
    measure = common.block_of(config, "measure", MeasureConfig)
    path = workdir / RESULTS
    wanted = {
        "values": [point.text for point in sweep.points],
        "measured": list(sweep.measured),
        "axis": sweep.axis,
        "measure": dataclasses.asdict(measure),
    }
    on_first(lambda: _reopen(path, wanted))
    context = common.start(_own_config(config, sweep), workdir)
    try:
        if not is_finished(workdir):
            results = _results(config, context, sweep, measure) | {"asked": wanted}
            common.write_json(path, results)
            on_first(lambda: write_sweep_report(path))
            forget_answers(context)
        common.finish(context)
    finally:
        locks.give_back(workdir / locks.LOCK)
    on_first(lambda: show(workdir))
    return read_json(path, remedy=_AGAIN)


def show(workdir: Path) -> None:
    """Prints the table of a finished sweep and where its report is."""
    results = read_json(workdir / RESULTS, remedy=_AGAIN)
    common.announce(f"\n{format_sweep(results)}")
    common.announce(f"\nreport: {workdir / 'report.html'}")


def _own_config(config: ConfigDict, sweep: Sweep) -> ConfigDict:
    """The config of the sweep's own workdir: what all values share."""
    own = ConfigDict(dict(stage="sweep", name=config.name, seed=config.seed))
    stage = recipe.stage_config(config, sweep.chain[-1])
    own.update(trackers=config.trackers, data=data_block(config, sweep))
    own.update(mesh=stage.mesh, checkpoints=stage.checkpoints)
    own.update(sweep=config.sweep, measure=config.measure)
    return own


def _reopen(path: Path, wanted: dict[str, Any]) -> None:
    """Lets a finished sweep go on if other values or measurements are asked for."""
    if is_finished(path.parent):
        check_left(path, remedy=_AGAIN)
        if read_json(path, remedy=_AGAIN)["asked"] != wanted:
            (path.parent / FINISHED).unlink()


def _results(
    config: ConfigDict, context: common.Context, sweep: Sweep, measure: MeasureConfig
) -> dict[str, Any]:
    """Runs and measures all values, after everything that can be checked before."""
    runs = [(point, point_config(config, sweep, point)) for point in sweep.points]
    measuring = Measuring(context, sweep, measure)
    for point, stages in runs:
        with about(f"config.sweep.grid, at {point.text}"):
            _check_inputs(context, stages, sweep, point)
            recipe.check_same(stages, sweep.folder(point), sweep.chain)
    rows, began = [], time.monotonic()
    for number, (point, stages) in enumerate(runs):
        elapsed = time.monotonic() - began
        left = elapsed / number * (len(runs) - number) if number else 0.0
        common.announce(
            f"\n##### {sweep.axis}: {point.text} ({number + 1} of {len(runs)}"
            + f", ETA {format_duration(left)}" * bool(number)
            + ") #####"
        )
        rows += _run_point(stages, sweep, point, measuring)
    return {
        "axis": sweep.axis,
        "keys": list(map(str.strip, sweep.settings.key.split(","))),
        "stages": list(sweep.chain),
        "rows": rows,
        "beside": measuring.beside(),
        "baseline": measure.baseline,
        "judged": context.data.world is not None,
        "split": measure.split,
        "meta": {
            "commit": commit(),
            "seed": config.seed,
            "world_seed": config.world_seed,
            "recipe": str(sweep.recipe),
        },
    }


def _run_point(
    stages: ConfigDict, sweep: Sweep, point: Point, measuring: Measuring
) -> list[dict[str, Any]]:
    """The rows of a value, one for each stage that is measured."""
    folder = sweep.folder(point)
    row: dict[str, Any] = {"value": point.text, "status": "finished", "message": ""}
    row["sets"] = {key: value for (_, key), value in point.values.items()}
    if (folder / _FAILED).exists():
        row |= read_json(folder / _FAILED, remedy=f"delete {folder}")
        common.announce(f"{row['status']} before: {row['message']}")
    else:
        row |= _train(stages, sweep, folder)
    if row["status"] != "finished":
        return [{**row, "stage": name} for name in sweep.measured]
    out = []
    for name in sweep.measured:
        numbers, num_params = measuring.measure(point, name)
        found: dict[str, Any] = {"stage": name, "num_params": num_params}
        found["pfs_days"] = spent(read_metrics(folder / name / METRICS_FILE))
        out.append({**row, **found, "numbers": numbers})
    return out


def _train(stages: ConfigDict, sweep: Sweep, folder: Path) -> dict[str, str]:
    """Runs a value's stages; returns the status and message of one that failed.

    Raises:
      UserError: a stage could not begin, which is a mistake of the config.
    """
    try:
        for name in sweep.chain:
            recipe.run_stage(stages, folder, name)
    except DivergedError as error:
        failed = {"status": "diverged", "message": str(error).partition(";")[0]}
        common.write_json(folder / _FAILED, failed)  # it would diverge again
    except UserError as error:
        if not (folder / name / METRICS_FILE).exists():
            raise  # before its first update
        failed = {"status": "failed", "message": str(error)}
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error).splitlines() or [type(error).__name__]
        failed = {"status": "failed", "message": text[0]}
    else:
        return {}
    common.announce(f"{failed['status']}: {failed['message']}")
    return failed


def _check_inputs(
    context: common.Context, stages: ConfigDict, sweep: Sweep, point: Point
) -> None:
    """Raises UserError if a run would start from a model that is missing or unfit.

    Models that the sweep makes itself are left out.
    """
    for name in sweep.chain:
        stage, folder = recipe.stage_config(stages, name), sweep.folder(point)
        for block in find(stage.stage).models:
            init = stage[block].to_dict()
            source = Path(resolve(init["path"] or "", folder / name))
            if init["path"] and source.parent != folder:
                with about(f"config.stages.{name}.{block}"):
                    given = loading.InitConfig(**{**init, "path": str(source)})
                    check_source(given, context)
