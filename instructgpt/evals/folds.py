"""Cross-validation of the reward model over groups of labelers (paper §4.1, E.2)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from instructgpt.evals.report.plotting import (
    INK,
    MUTED,
    WIDTH,
    annotate,
    shared_legend,
    styled,
)
from instructgpt.progress import format_table

# Measured rankings -> their name, and the paper's accuracy and error (§4.1).
MEASURED: dict[str, tuple[str, tuple[float, float]]] = {
    "same": ("labelers of the training groups", (0.724, 0.004)),
    "other": ("labelers of the group left out", (0.696, 0.009)),
}
_DIFFERENCE = "difference"


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over folds and seeds with two standard errors.

    Args:
      runs: A dict for each model, with `fold`, `seed`, and accuracies `same`, `other`.

    Returns:
      For "same", "other", and "difference" within a model: `mean`; `error`, the
      standard error over all models, as if they were independent; and `error_of_folds`,
      over the means of the folds, as seeds of a fold share their data.
    """
    out = {}
    for name in (*MEASURED, _DIFFERENCE):
        values = np.array([_value(run, name) for run in runs])
        folds = np.array([run["fold"] for run in runs])
        means = np.array([values[folds == fold].mean() for fold in np.unique(folds)])
        out[name] = {
            "mean": float(values.mean()),
            "error": _standard_error(values),
            "error_of_folds": _standard_error(means),
        }
    return out


def _value(run: Mapping[str, Any], name: str) -> float:
    return run["same"] - run["other"] if name == _DIFFERENCE else run[name]


def _standard_error(values: np.ndarray) -> float | None:
    """The standard error of a mean of values [N]; None for a single one."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def folds_table(results: Mapping[str, Any]) -> str:
    """The table of a folds stage's `results.json`, beside the paper's numbers."""
    rows = []
    for name, found in results["summary"].items():
        label, paper = MEASURED.get(name, (_DIFFERENCE, None))
        errors = (found[key] for key in ("error", "error_of_folds"))
        published = f"{_percent(paper[0])} ± {_percent(paper[1])}" if paper else "–"
        rows.append([label, _percent(found["mean"]), *map(_percent, errors), published])
    columns = ["accuracy in %", "mean", "± (all)", "± (folds)", "paper (6B)"]
    return format_table(rows, columns)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


@styled
def folds_figure(results: Mapping[str, Any]) -> Figure:
    """Draws the accuracies of every model, their means, and the paper's."""
    fig = Figure(figsize=(WIDTH, 3.4))
    ax = fig.add_subplot()
    folds = np.array([run["fold"] for run in results["runs"]])
    beside = 0.3 * (folds / max(1, folds.max()) - 1)  # a fold's models share a column
    for x, (name, (_, (paper, paper_error))) in enumerate(MEASURED.items()):
        values = [run[name] for run in results["runs"]]
        ax.plot(x - 0.05 + beside, values, "o", color="#0072b2", alpha=0.5, ms=4)
        found = results["summary"][name]
        mean, error = found["mean"], found["error"] or 0.0
        ax.errorbar([x + 0.1], [mean], [error], fmt="D", color=INK, ms=6)
        ax.errorbar([x + 0.2], [paper], [paper_error], fmt="s", color=MUTED, ms=5)
        annotate(ax, x + 0.1, mean, f"{mean:.3f}", offset=(7, -8))
    kinds = {
        "a model, by fold": ("o", "#0072b2"),
        "mean ± standard error": ("D", INK),
        "paper (6B)": ("s", MUTED),
    }
    for label, (marker, color) in kinds.items():
        ax.plot([], [], marker, color=color, ms=5, label=label)
    names = [label.replace(" of the", "\nof the") for label, _ in MEASURED.values()]
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.5, len(names) - 0.3)
    ax.set_ylabel("Share of pairs in the labeler's order")
    shared_legend(fig, ax)
    return fig
