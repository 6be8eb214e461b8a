"""Curves of several runs over each other: as figures, and as text for the terminal."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from instructgpt.evals.report.plotting import WIDTH, Curve, draw_line, series, styled

# Okabe and Ito's colours without yellow, which is hard to see on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1f2328")
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_BARS = "▁▂▃▄▅▆▇█"
# Numbers that say how fast a machine is or how much it did, and not what a model has
# learnt.
SPEED = ("time", "step", "tokens_per_second", "input_share", "pfs_days")


def color_of(number: int) -> str:
    """Colour of the n-th run; after seven runs colours repeat with other dashes."""
    return COLORS[number % len(COLORS)]


def metric_names(curves: Mapping[str, Curve]) -> list[str]:
    """Names of the metrics that any of the runs has, in order of first use."""
    names = dict.fromkeys(
        name for rows in curves.values() for row in rows for name in row
    )
    return [name for name in names if name not in SPEED]


@styled
def overlay(curves: Mapping[str, Curve], metrics: Sequence[str]) -> Figure | None:
    """Draws each metric in a panel, with a line for every run that has it.

    Args:
      curves: Rows of `metrics.jsonl` by run; a run's place gives its colour.
      metrics: Names of the metrics. Those without a finite value have no panel.
    """
    panels = [
        name
        for name in metrics
        if any(series(rows, name)[0].size for rows in curves.values())
    ]
    if not panels:
        return None
    rows, columns = math.ceil(len(panels) / 2), min(2, len(panels))
    lines = math.ceil(len(curves) / 3)  # of the legend
    fig = Figure(figsize=(WIDTH * 1.3, 0.4 + 0.2 * lines + 1.9 * rows))
    axes = fig.subplots(rows, columns, squeeze=False)
    handles = {}
    for ax, name in zip(axes.ravel(), panels, strict=False):
        for number, (run, curve) in enumerate(curves.items()):
            steps, values = series(curve, name)
            if not steps.size:
                continue
            draw_line(ax, steps, values, color_of(number), run)
            handles[run] = ax.lines[-1]
            handles[run].set(
                linestyle=_DASHES[number // len(COLORS) % len(_DASHES)],
                marker="o" if len(steps) < 12 else "",
                markersize=3,
            )
        low, high = _limits(curves, name)
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        ax.set_ylim(low - margin, high + margin)
        ax.set_title(name)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    for ax in axes.ravel()[: len(panels)][-columns:]:
        ax.set_xlabel("Step")
    names = [run for run in curves if run in handles]
    fig.legend(
        [handles[run] for run in names],
        names,
        loc="outside lower center",
        ncols=min(3, len(names)),
    )
    return fig


def text_curves(
    curves: Mapping[str, Curve], metric: str, *, steps: tuple[int, int], width: int = 48
) -> dict[str, str]:
    """Draws one metric of every run as a line of block characters.

    All lines have one scale, from the lowest value to the highest, so that they can be
    read over each other. Where a run has no value yet, or no more, a line is blank.

    Args:
      curves: Rows of `metrics.jsonl` by run.
      metric: Name of the metric.
      steps: The steps at the left and the right end of the lines.
      width: Characters of a line.
    """
    low, high = _limits(curves, metric)
    lines = {}
    for run, rows in curves.items():
        at, values = series(rows, metric)
        place = (at - steps[0]) / max(steps[1] - steps[0], 1) * width
        columns = np.minimum(place.astype(int), width - 1)
        line, last = [" "] * width, -1
        for column in sorted(set(columns.tolist())):
            mean = values[columns == column].mean()
            share = (mean - low) / (high - low) if high > low else 0.5
            level = round(min(max(share, 0.0), 1.0) * (len(_BARS) - 1))
            if last >= 0:  # a value holds until the next one
                line[last + 1 : column] = line[last] * (column - last - 1)
            line[column], last = _BARS[level], column
        lines[run] = "".join(line)
    return lines


def _limits(curves: Mapping[str, Curve], metric: str) -> tuple[float, float]:
    """Range of a metric over all runs, without the few largest values of long runs.

    The loss of the first steps would otherwise leave no room for the rest.
    """
    found = [series(rows, metric)[1] for rows in curves.values()]
    found = [values for values in found if values.size]
    if not found:
        return 0.0, 0.0
    low = float(np.quantile(np.concatenate(found), 0.01, method="lower"))
    return low, float(np.quantile(np.concatenate(found), 0.97, method="higher"))
