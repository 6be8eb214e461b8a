"""Benchmarks as a figure: a panel each, as in the paper's Figures 28 and 29."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from instructgpt.evals.report.plotting import (
    INK,
    MODELS,
    Results,
    error_lengths,
    label,
    look,
    model_names,
    styled,
)
from instructgpt.evals.report.tables import short_task

# A panel shows the first of these metrics that its benchmark has.
_FIRST = (
    "toxicity",
    "true_and_informative",
    "acc_token",
    "f1",
    "bleu",
    "rougeL",
    "mc2",
    "entropy",
    "rougeL_acc",
    "acc",
)
_OTHERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
_COLUMNS = 3


@styled
def benchmark_figure(results: Results) -> Figure | None:
    """Draws one metric of each benchmark, by model, with 95 % intervals."""
    found = results.get("benchmarks", {})
    names = [name for name in model_names(results) if name in found]
    tasks = list(dict.fromkeys(task for name in names for task in found[name]))
    if not tasks:
        return None
    rows = math.ceil(len(tasks) / _COLUMNS)
    fig = Figure(figsize=(7.2, 0.6 + 1.7 * rows))
    axes = fig.subplots(rows, _COLUMNS, squeeze=False).ravel()
    colors = _colors(names)
    for ax, task in zip(axes, tasks, strict=False):
        metric = _metric(found[names[0]][task])
        points = {
            name: np.array([_with_ends(found[name][task][metric])], float)
            for name in names
            if metric in found[name].get(task, {})
        }
        for x, (name, values) in enumerate(points.items()):
            ax.bar(
                [x],
                values[:, 0],
                0.72,
                color=colors[name],
                yerr=error_lengths(values),
                error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2.5},
            )
        ax.set_title(f"{short_task(task)}\n{metric}", fontsize=7.5)
        ax.set_xticks([])
        ax.set_ylim(0, _top(points))
    for ax in axes[len(tasks) :]:
        ax.set_axis_off()
    handles = [Patch(color=colors[n], label=label(results, n)) for n in names]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1)
    return fig


def _with_ends(value: float | Sequence[float]) -> Sequence[float]:
    """A value with its interval, of no width if it has none."""
    return value if isinstance(value, Sequence) else (value, value, value)


def _metric(metrics: Mapping[str, Sequence[float]]) -> str:
    return next((name for name in _FIRST if name in metrics), next(iter(metrics)))


def _colors(names: Sequence[str]) -> dict[str, str]:
    """A colour for each model: that of the report, or one that no other here has."""
    taken = {look(name).color for name in names if name in MODELS}
    free = iter([color for color in _OTHERS if color not in taken] * len(names))
    return {n: look(n).color if n in MODELS else next(free) for n in names}


def _top(points: Mapping[str, np.ndarray]) -> float:
    """The end of a panel's axis: 1 for rates, else what fits."""
    highest = max(float(values.max()) for values in points.values())
    return 1.0 if highest <= 1 else 1.1 * highest
