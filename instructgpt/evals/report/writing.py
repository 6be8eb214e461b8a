"""Makes `report.html` and pictures from a `results.json`."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from instructgpt.errors import UserError
from instructgpt.evals.benchmarks.figure import benchmark_figure
from instructgpt.evals.report import figures
from instructgpt.evals.report.evaluation_page import render_html
from instructgpt.evals.report.group_figure import group_win_rates
from instructgpt.evals.report.plotting import Curve, Results, label, model_names, to_png
from instructgpt.evals.report.tables import format_results_table, numbers_of
from instructgpt.evals.world import figures as world_figures
from instructgpt.metrics import MetricWriter, read_metrics
from instructgpt.outputs import new_file

__all__ = [
    "format_results_table",
    "load_curves",
    "load_results",
    "show_report",
    "write_report",
]

REPORT_FILE, FIGURE_FILE = "report.html", "figure1.png"
BENCHMARKS_FILE = "benchmarks.png"


def write_report(results_path: str | os.PathLike) -> Path:
    """Writes `report.html` beside a `results.json`, and `figure1.png`, win rates.

    Of benchmarks the picture is `benchmarks.png`.

    Curves are read from the metrics files that the results name, relative to
    `results.json`; a file that does not exist counts as an empty curve.

    Returns:
      The path of `report.html`.

    Raises:
      UserError: the results file is missing or is not JSON.
    """
    path = Path(results_path)
    results = load_results(path)
    curves = load_curves(results, path.parent)
    pictures = {
        FIGURE_FILE: figures.win_rates(results),
        BENCHMARKS_FILE: benchmark_figure(results),
    }
    for name, figure in pictures.items():
        if figure is not None:
            with new_file(path.parent / name) as partial:
                partial.write_bytes(to_png(figure))
    report = path.parent / REPORT_FILE
    with new_file(report) as partial:
        partial.write_text(render_html(results, curves), encoding="utf-8")
    return report


def show_report(results_path: str | os.PathLike, writer: MetricWriter) -> None:
    """Passes the report's numbers, sampled answers and figures to a run's trackers.

    Raises:
      UserError: the results file is missing or is not JSON, or a tracker fails.
    """
    path = Path(results_path)
    results = load_results(path)
    names = model_names(results)
    answers = [
        (row["prompt"], *(row["responses"].get(name, [""])[0] for name in names))
        for row in results.get("samples") or ()
    ]
    with writer:
        writer.resume(0)  # forgets what a run that was killed here has shown
        numbers = numbers_of(results)
        writer.show_scalars(1, {name: value[0] for name, value in numbers.items()})
        if answers:
            columns = ("prompt", *(label(results, name) for name in names))
            writer.show_table(1, "samples", columns, answers)
        for name, figure in _figures(results, load_curves(results, path.parent)):
            writer.show_figure(1, name, to_png(figure, dpi=120))


def _figures(
    results: Results, curves: Mapping[str, Curve]
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each part of the report that can be drawn."""
    drawn = {
        "win_rates": figures.win_rates(results),
        "likert": figures.likert(results),
        "flags": figures.flags(results),
        "ppo_curves": figures.ppo_curves(curves),
        "pretraining_loss": figures.pretraining_loss(results, curves),
        "reward_accuracy": figures.reward_accuracy(results),
        "sft_epochs": figures.sft_epochs(results),
        "loss_curves": figures.loss_curves(curves),
        "benchmarks": benchmark_figure(results),
        "groups": group_win_rates(results),
        "truthful": world_figures.truthful(results),
        "toxicity": world_figures.toxicity(results),
        "tasks": world_figures.tasks(results),
    }
    for name, figure in drawn.items():
        if figure is not None:
            yield name, figure


def load_results(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a `results.json`.

    Raises:
      UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; run the evaluate stage first") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); "
            "run the evaluate stage again"
        ) from error


def load_curves(results: Results, folder: Path) -> dict[str, Curve]:
    """Reads the metric rows of every curve; a missing file gives no rows."""
    paths = {name: folder / path for name, path in results.get("curves", {}).items()}
    return {name: read_metrics(path) for name, path in paths.items() if path.exists()}
