"""Draws win rates by groups of labelers and kinds of prompts (paper, Fig. 3)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from instructgpt.evals.report.plotting import (
    DASHED,
    GROUPS,
    INK,
    WIDTH,
    Results,
    baseline,
    error_lengths,
    group_title,
    label,
    look,
    model_names,
    styled,
)

_FIELDS = ("labelers, distribution", "labelers", "distribution")


@styled
def group_win_rates(results: Results) -> Figure | None:
    """Draws a panel for each group, with each model's win rate and its interval.

    The groups are those of the first judge that has labelers' groups, by kinds of
    prompts where there are two; otherwise kinds of prompts alone.
    """
    groups = _groups(results)
    if not groups:
        return None
    names = [n for n in model_names(results) if any(n in g for g in groups.values())]
    rows = math.ceil(len(groups) / 2)
    fig = Figure(figsize=(WIDTH, 0.9 + 1.6 * rows))
    axes = fig.subplots(rows, 2, sharey=True, squeeze=False).ravel()
    for ax, group in zip(axes, sorted(groups, key=_place), strict=False):
        ax.axhline(0.5, color=INK, linewidth=1, linestyle=DASHED, zorder=1)
        for x, name in enumerate(names):
            if name in groups[group]:
                rate, kind = groups[group][name], look(name)
                bars = error_lengths(np.array([rate], float))
                ax.errorbar([x], rate[:1], bars, fmt=kind.marker, color=kind.color)
        ax.set_xticks([])
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_ylim(0, 1)
        ax.set_title(group_title(group), fontsize=8.5)
    for ax in axes[len(groups) :]:
        ax.set_axis_off()
    fig.supylabel(f"Win rate against {baseline(results)}", fontsize=9)
    fig.legend(
        handles=[_key(results, name) for name in names],
        loc="outside lower center",
        ncols=len(names),
        columnspacing=1.4,
        handletextpad=0.3,
    )
    return fig


def _groups(results: Results) -> Mapping[str, Mapping[str, Sequence[float]]]:
    for field in _FIELDS:
        for fields in results.get("groups", {}).values():
            if field in fields:
                return fields[field]
    return {}


def _place(group: str) -> list[int]:
    """Where a group's panel is: those of the table first."""
    order = list(GROUPS)
    parts = group.split(", ")
    return [order.index(part) if part in order else len(order) for part in parts]


def _key(results: Results, name: str) -> Line2D:
    """A model's entry in the legend."""
    kind = look(name)
    return Line2D(
        [], [], ls="", marker=kind.marker, color=kind.color, label=label(results, name)
    )
