"""What a comparison of runs says, as text for the terminal and as an HTML page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.evals.report import overlays
from instructgpt.evals.report.page import (
    Model,
    Row,
    Section,
    Table,
    as_image,
    render_page,
)
from instructgpt.evals.report.plotting import Curve
from instructgpt.evals.report.runs import (
    Difference,
    Run,
    StageRun,
    differences,
    notes,
    stage_groups,
)
from instructgpt.evals.report.tables import format_interval, numbers_of
from instructgpt.progress import format_number, format_table

# The metrics that the terminal shows unless others are asked for.
HEADLINES = (
    *("loss", "valid_loss", "accuracy", "valid_accuracy", "heldout_accuracy"),
    *("score", "kl", "response_length", "valid_pretrain_loss", "rm_score"),
)
_LONGEST = 40  # characters of a config's value on the terminal


class Comparison(NamedTuple):
    """Runs, the stages that they share, and the metrics that were asked for."""

    runs: Sequence[Run]
    groups: Mapping[str, Mapping[str, StageRun]]
    metrics: Sequence[str]  # () if none were named

    @classmethod
    def of(cls, runs: Sequence[Run], *, metrics: Sequence[str] = ()) -> "Comparison":
        """Arranges runs by stage.

        Args:
          runs: The compared runs.
          metrics: Names of the metrics to show; by default those of `HEADLINES` on the
            terminal, and all in the page.

        Raises:
          UserError: no run has a metric of such a name.
        """
        groups = stage_groups(runs)
        known = dict.fromkeys(
            name
            for stages in groups.values()
            for name in overlays.metric_names(_curves(stages))
        )
        for name in metrics:
            if name not in known:
                raise UserError(
                    f"--metrics: no run has a metric {name!r}; there are: "
                    f"{', '.join(sorted(known)) or 'none yet'}"
                )
        return cls(runs, groups, metrics)

    @property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [run.name for run in self.runs]

    def text(self, *, width: int = 100) -> str:
        """The comparison for a terminal of so many columns."""
        parts = ["\n".join(f"{run.name}: {run.path}" for run in self.runs)]
        parts += ["\n".join(notes(self.groups, self.runs))]
        parts.append(_keys_text(self, width))
        for name, stages in self.groups.items():
            parts.append(_curves_text(name, stages, self, width))
            parts.append(_results_text(self, name, width))
        left = self.left_out()
        if left:
            more = "1 metric" if left == 1 else f"{left} metrics"
            parts.append(f"{more} more: name them by --metrics, or see --html.")
        return "\n\n".join(part for part in parts if part)

    def html(self) -> str:
        """The comparison as one page that needs no other file."""
        sections = [_runs_section(self), _keys_section(self)]
        for name in self.groups:
            sections += _stage_sections(self, name)
        return render_page(
            sections, heading=f"InstructGPT: {len(self.runs)} runs compared", facts={}
        )

    def shown(self, stages: Mapping[str, StageRun], *, headlines: bool) -> list[str]:
        """The metrics to show of a stage, of those that its runs have."""
        have = overlays.metric_names(_curves(stages))
        if self.metrics:
            return [name for name in self.metrics if name in have]
        some = [name for name in HEADLINES if name in have] if headlines else []
        return some or have

    def left_out(self) -> int:
        """How many metrics the terminal leaves out."""
        if self.metrics:
            return 0
        return len(
            {
                name
                for stages in self.groups.values()
                for name in set(self.shown(stages, headlines=False))
                - set(self.shown(stages, headlines=True))
            }
        )


def _curves(stages: Mapping[str, StageRun]) -> dict[str, Curve]:
    return {run: stage.rows for run, stage in stages.items()}


def _last(rows: Curve, metric: str) -> tuple[float, int] | None:
    """Last value of a metric, NaN where it was not finite, and its step."""
    for row in reversed(rows):
        if metric in row:
            value = row[metric]
            return float("nan") if value is None else float(value), row["step"]
    return None


def _keys_text(comparison: Comparison, width: int) -> str:
    found = differences(comparison.groups, comparison.runs)
    if not found:
        return "No key of config.json differs."
    stages = len(comparison.groups) > 1
    columns = ["key", *["stage"] * stages, *comparison.names]
    rows = [
        [
            _cut(d.key),
            *[_where(d, comparison)] * stages,
            *(_cut(value) for value in d.values),
        ]
        for d in found
    ]
    count = "One key differs" if len(found) == 1 else f"{len(found)} keys differ"
    return f"{count}:\n\n{_fitting(rows, columns, comparison.names, width)}"


def _where(difference: Difference, comparison: Comparison) -> str:
    shared = [n for n, stages in comparison.groups.items() if len(stages) > 1]
    every = len(difference.stages) == len(shared)
    return "all" if every else ", ".join(difference.stages)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _fitting(
    rows: Sequence[Sequence[str]],
    columns: Sequence[str],
    names: Sequence[str],
    width: int,
) -> str:
    """A table with a column per run, or a row per run if that would be too wide."""
    table = format_table(rows, columns)
    if max(map(len, table.splitlines())) <= width:
        return table
    before = len(columns) - len(names)
    long = [
        [*(row[:before] if i == 0 else [""] * before), name, row[before + i]]
        for row in rows
        for i, name in enumerate(names)
    ]
    return format_table(long, [*columns[:before], "run", "value"])


def _curves_text(
    name: str, stages: Mapping[str, StageRun], comparison: Comparison, width: int
) -> str:
    curves = _curves(stages)
    metrics = comparison.shown(stages, headlines=True)
    if not metrics:
        return ""
    steps = [row["step"] for own in curves.values() for row in own]
    span = min(steps), max(steps)
    # What the other columns and the gaps between them leave.
    room = width - 22 - max(map(len, [name, *metrics])) - max(map(len, curves))
    rows: list[list[Any]] = []
    for metric in metrics:
        lines = overlays.text_curves(
            curves, metric, steps=span, width=min(max(room, 16), 60)
        )
        for run, line in lines.items():
            last = _last(curves[run], metric)
            value, step = (None, "–") if last is None else (last[0], str(last[1]))
            rows.append(["" if run != next(iter(lines)) else metric, run, line])
            rows[-1] += [value, step]
    columns = [name, "run", f"steps {span[0]} to {span[1]}", "last", "step"]
    return format_table(rows, columns)


def _results_text(comparison: Comparison, name: str, width: int) -> str:
    """The numbers of results.json with their intervals, without those of groups."""
    rows = [row for row in _results(comparison, name) if ": " not in row[0]]
    columns = [f"{name}, with 95 % intervals", *comparison.names]
    return _fitting(rows, columns, comparison.names, width) if rows else ""


def _results(comparison: Comparison, name: str) -> list[list[str]]:
    """A row for each number of results.json: its name, and its text for each run."""
    stages = comparison.groups[name]
    found = {
        run: numbers_of(stage.results) for run, stage in stages.items() if stage.results
    }
    keys = dict.fromkeys(key for numbers in found.values() for key in numbers)
    measures = list(dict.fromkeys(key.partition("/")[0] for key in keys))
    ordered = sorted(keys, key=lambda key: measures.index(key.partition("/")[0]))
    return [
        [key, *(_interval(found.get(run, {}).get(key)) for run in comparison.names)]
        for key in ordered
    ]


def _interval(value: Sequence[float] | None) -> str:
    if value is None or len(value) == 1:
        return format_interval(None if value is None else value[0], 3)
    return format_interval(value, 3)


def _model(comparison: Comparison, name: str) -> Model:
    return Model(name, overlays.color_of(comparison.names.index(name)))


def _runs_section(comparison: Comparison) -> Section:
    rows = [
        Row(
            [
                str(run.path),
                ", ".join(
                    name if run.is_recipe else (stage.stage or name)
                    for name, stage in run.stages.items()
                ),
            ],
            _model(comparison, run.name),
        )
        for run in comparison.runs
    ]
    caption = " ".join(notes(comparison.groups, comparison.runs))
    table = Table(["Run", "Workdir", "Stages"], rows)
    return Section("Runs", caption or "All are finished.", table=table)


def _keys_section(comparison: Comparison) -> Section:
    found = differences(comparison.groups, comparison.runs)
    several = len(comparison.groups) > 1
    columns = ["Key", *["Stage"] * several, *comparison.names]
    rows = [Row([d.key, *[_where(d, comparison)] * several, *d.values]) for d in found]
    if not rows:
        columns, rows = ["Key"], [Row(["No key differs."])]
    return Section(
        "What differs",
        "Keys of config.json whose values differ, and what the runs read. Paths are "
        "relative to a stage's workdir where they are beside it.",
        table=Table(columns, rows),
    )


def _stage_sections(comparison: Comparison, name: str) -> Iterator[Section]:
    stages = comparison.groups[name]
    curves: dict[str, Curve] = {
        run: stages[run].rows if run in stages else () for run in comparison.names
    }
    metrics = comparison.shown(stages, headlines=False)
    last = [
        Row([metric, *(_last_text(curves[run], metric) for run in comparison.names)])
        for metric in metrics
    ]
    columns = ["Last value", *comparison.names]
    yield Section(
        name,
        "Each metric over the steps; a long curve is faint, its running mean strong.",
        image=as_image(overlays.overlay(curves, metrics), f"Metrics of {name}"),
        details=Table(columns, last, "In numbers") if last else None,
    )
    results = _results(comparison, name)
    if results:
        whole = [Row(row) for row in results if ": " not in row[0]]
        parts = [Row(row) for row in results if ": " in row[0]]
        columns = ["", *comparison.names]
        yield Section(
            f"{name}: results",
            "Numbers of results.json with 95 % intervals, by measure and model.",
            table=Table(columns, whole),
            details=Table(columns, parts, "By flag, use case and judge")
            if parts
            else None,
        )


def _last_text(rows: Curve, metric: str) -> str:
    last = _last(rows, metric)
    return "–" if last is None else f"{format_number(last[0])} at step {last[1]}"
