"""Finished and unfinished runs as they lie on disk, read to be compared.

A run is the workdir of a stage, or that of a recipe, whose folders are its stages.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt import locks
from instructgpt.errors import UserError
from instructgpt.evals.report.writing import load_results
from instructgpt.identity import (
    CONFIG,
    FINISHED,
    IDENTITY,
    Identity,
    flat,
    is_path,
)
from instructgpt.metrics import METRICS_FILE, read_metrics
from instructgpt.paths import for_config, resolve

_DIGITS = 8  # of a digest that is shown


class StageRun(NamedTuple):
    """What the workdir of one stage holds."""

    workdir: Path
    stage: str  # value of `config.stage`; "" if there is no config
    state: str  # "finished", "at work" or "not finished"
    config: Mapping[str, Any]  # values by flat key, paths relative to the workdir
    content: Mapping[str, str]  # digests of the data, tokenizer and code that it reads
    parents: Mapping[str, str]  # flat key -> digest of the stage that it names
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    results: Mapping[str, Any] | None  # of results.json

    @property
    def step(self) -> int:
        """Last step with a metric; 0 if there is none."""
        return max((row["step"] for row in self.rows), default=0)


class Run(NamedTuple):
    """One of the compared runs."""

    name: str  # the shortest that tells it apart from the others
    path: Path
    stages: Mapping[str, StageRun]  # by their folders' names in a recipe
    is_recipe: bool


class Difference(NamedTuple):
    """A key whose values differ between runs."""

    key: str
    stages: tuple[str, ...]  # in which it differs so
    values: tuple[str, ...]  # by run; "–" where there is no such key


def open_runs(paths: Sequence[str]) -> list[Run]:
    """Reads runs, in the order given.

    Raises:
      UserError: there are fewer than two, one is given twice, a folder is no run, or a
        file in it is damaged.
    """
    folders = [Path(os.path.abspath(os.path.expanduser(path))) for path in paths]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"{folder} is given twice; name different runs")
    if len(folders) < 2:
        raise UserError("give two runs or more to compare")
    found = []
    for folder, name in zip(folders, _short_names(folders), strict=True):
        if is_stage(folder):
            stage = _read_stage(folder)
            own = str(stage.config.get("name", folder.name))
            found.append(Run(name, folder, {own: stage}, False))
            continue
        inner = sorted(p for p in folder.glob("*") if p.is_dir() and is_stage(p))
        if not inner:
            raise UserError(
                f"{folder} is no run: neither it nor a folder in it holds {CONFIG} or "
                f"{METRICS_FILE}; name the workdir of a stage or of a recipe"
                if folder.is_dir()
                else f"{folder}: there is no such folder"
            )
        stages = {path.name: _read_stage(path) for path in inner}
        found.append(Run(name, folder, stages, True))
    return found


def is_stage(folder: Path) -> bool:
    """Whether a folder is the workdir of a stage that has begun."""
    return any((folder / name).is_file() for name in (CONFIG, METRICS_FILE))


def stage_groups(runs: Sequence[Run]) -> dict[str, dict[str, StageRun]]:
    """The stages to compare: {name: {run's name: stage}}, in the order of a recipe.

    Runs that are single stages are one group, whatever their stages are.
    """
    if not any(run.is_recipe for run in runs):
        stages = {run.name: next(iter(run.stages.values())) for run in runs}
        names = dict.fromkeys(name for run in runs for name in run.stages)
        return {" and ".join(names): stages}
    begun = {
        name: min(_begun(run.stages[name]) for run in runs if name in run.stages)
        for run in runs
        for name in run.stages
    }
    return {
        name: {run.name: run.stages[name] for run in runs if name in run.stages}
        for name in sorted(begun, key=lambda name: begun[name])
    }


def differences(
    groups: Mapping[str, Mapping[str, StageRun]], runs: Sequence[Run]
) -> list[Difference]:
    """The keys that differ, each once for all stages in which it has the same values.

    Keys that a stage of another kind does not have are left out. What stages of a
    recipe read of each other is compared there, and not again as content.
    """
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    alone = not any(run.is_recipe for run in runs)
    for name, stages in groups.items():
        values = {run: _comparable(stage, alone) for run, stage in stages.items()}
        kinds = {stage.stage for stage in stages.values()}
        for key in dict.fromkeys(key for own in values.values() for key in own):
            have = [key in own for own in values.values()]
            if len(kinds) > 1 and not all(have):
                continue
            shown = tuple(_text(values, run.name, key) for run in runs)
            if len({_text(values, run, key) for run in values}) > 1:
                found.setdefault((key, shown), []).append(name)
    return [Difference(key, tuple(s), shown) for (key, shown), s in found.items()]


def notes(groups: Mapping[str, Mapping[str, StageRun]], runs: Sequence[Run]) -> list:
    """Sentences about what cannot be compared."""
    out = []
    for name, stages in groups.items():
        kinds = {run: stage.stage or "unknown" for run, stage in stages.items()}
        if len(set(kinds.values())) > 1:
            each = ", ".join(f"{run} is {kind}" for run, kind in kinds.items())
            out.append(
                f"Different stages: {each}. Keys and metrics that only one kind of "
                "stage has are not compared."
            )
        missing = [run.name for run in runs if run.name not in stages]
        if missing:
            out.append(f"{name}: not begun in {', '.join(missing)}.")
        for run, stage in stages.items():
            where = f"{run}, {name}" if len(groups) > 1 else run
            if stage.state != "finished":
                out.append(f"{where}: {stage.state}, {_so_far(stage)}.")
            if not stage.config:
                out.append(f"{where}: holds no {CONFIG}, so its keys are unknown.")
    return out


def _so_far(stage: StageRun) -> str:
    return f"step {stage.step} so far" if stage.rows else "no metrics so far"


def _begun(stage: StageRun) -> float:
    """When a stage began, in seconds."""
    path = stage.workdir / CONFIG
    first = min((float(row.get("time") or 0) for row in stage.rows), default=0.0)
    return first or (path.stat().st_mtime if path.exists() else 0.0)


def _read_stage(workdir: Path) -> StageRun:
    config, metrics = _read_config(workdir), workdir / METRICS_FILE
    results = workdir / "results.json"
    content: dict[str, str] = {}
    parents: Mapping[str, str] = {}
    if (workdir / IDENTITY).exists():
        identity = Identity.read(workdir / IDENTITY)
        content = {f"data: {name}": value for name, value in identity.data.items()}
        content |= {f"code of {name}": value for name, value in identity.code.items()}
        content["content of the tokenizer"] = identity.tokenizer
        parents = identity.parents
    if (workdir / FINISHED).exists():
        state = "finished"
    else:
        state = "at work" if locks.is_taken(workdir / locks.LOCK) else "not finished"
    return StageRun(
        workdir,
        str(config.get("stage", "")),
        state,
        config,
        content,
        parents,
        read_metrics(metrics) if metrics.exists() else [],
        load_results(results) if results.exists() else None,
    )


def _read_config(workdir: Path) -> dict[str, Any]:
    """The flat config; paths in the workdir's tree are relative to the workdir."""
    path = workdir / CONFIG
    if not path.exists():
        return {}
    try:
        values = flat(json.loads(path.read_bytes()))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged, or was changed by hand; leave this run out"
        ) from error
    for key, value in values.items():
        if is_path(key) and isinstance(value, str) and value:
            values[key] = for_config(resolve(value, workdir), workdir)
        elif is_path(key) and isinstance(value, list):
            values[key] = [for_config(resolve(v, workdir), workdir) for v in value]
    return values


def _comparable(stage: StageRun, alone: bool) -> dict[str, Any]:
    out = dict(stage.config)
    digests = dict(stage.content)
    if alone:
        digests |= {f"content of {key}": v for key, v in stage.parents.items()}
    return out | {key: value[-_DIGITS:] for key, value in digests.items()}


def _text(values: Mapping[str, Mapping[str, Any]], run: str, key: str) -> str:
    if run not in values or key not in values[run]:
        return "–"
    value = values[run][key]
    return value if isinstance(value, str) and value else json.dumps(value)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, of whole names, that tell all runs apart."""
    for count in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[1:][-count:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
