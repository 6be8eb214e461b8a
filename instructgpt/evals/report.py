"""Makes `report.html` and `figure1.png` from a `results.json`."""

import json
import os
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError
from instructgpt.evals import figures
from instructgpt.evals.page import render_html
from instructgpt.evals.plotting import Curve, Results, to_png
from instructgpt.evals.tables import format_results_table
from instructgpt.metrics import read_metrics
from instructgpt.outputs import new_file

__all__ = ["format_results_table", "load_curves", "load_results", "write_report"]

REPORT_FILE, FIGURE_FILE = "report.html", "figure1.png"


def write_report(results_path: str | os.PathLike) -> Path:
    """Writes `report.html` and `figure1.png` beside a `results.json`.

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
    figure = figures.win_rates(results)
    if figure is not None:
        with new_file(path.parent / FIGURE_FILE) as partial:
            partial.write_bytes(to_png(figure))
    report = path.parent / REPORT_FILE
    with new_file(report) as partial:
        partial.write_text(render_html(results, curves), encoding="utf-8")
    return report


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
