"""Draws labelers' agreement beside the paper's (§3.4), and what such figures share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instructgpt.evals.report.plotting import (
    DASHED,
    INK,
    MUTED,
    WIDTH,
    annotate,
    error_lengths,
    styled,
)

WITHOUT_TIES, WITH_TIES = "#0072b2", "#56b4e9"


@styled
def group_agreement(agreement: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Draws how often two labelers of a group agree, beside the paper's numbers (§3.4).

    Args:
      agreement: By a group's displayed name: `without_ties` and `with_ties`, each
        [value, low, high], and `paper`, [value, what stands after ±]; any may lack.

    Returns:
      None if no group has a rate.
    """
    kinds = {
        "without_ties": ("without ties", WITHOUT_TIES, "o", -0.2),
        "with_ties": ("with ties", WITH_TIES, "s", 0.0),
        "paper": ("paper (± as it says)", INK, "D", 0.2),
    }
    groups = {
        name: found
        for name, found in agreement.items()
        if "without_ties" in found or "with_ties" in found
    }
    if not groups:
        return None
    fig = Figure(figsize=(WIDTH, 1.3 + 0.62 * len(groups)))
    ax = fig.add_subplot()
    for kind, (label, color, marker, offset) in kinds.items():
        y: list[float] = []
        values: list[Sequence[float]] = []
        for row, found in enumerate(groups.values()):
            if kind in found:
                value, *rest = found[kind]
                ends = (value - rest[0], value + rest[0]) if kind == "paper" else rest
                y.append(row + offset)
                values.append((value, *ends))
        if values:
            draw_intervals(
                ax,
                y,
                values,
                color=color,
                marker=marker,
                label=label,
                hollow=kind == "paper",
            )
            for place, (value, _, high) in zip(y, values, strict=True):
                annotate(ax, high, place, f"{value:.3f}", offset=(5, 0))
    names_down(ax, list(groups))
    ax.axvline(0.5, color=MUTED, lw=1, ls=DASHED, zorder=1)
    ax.set_xlabel("Share of pairs on which two labelers agree")
    _room(ax)
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def _room(ax: Axes) -> None:
    """Leaves room at the right for a number."""
    low, high = ax.get_xlim()
    ax.set_xlim(max(low, -1.0), high + 0.12 * (high - low))


def draw_intervals(
    ax: Axes,
    y: Sequence[float],
    values: Sequence[Sequence[float]],
    *,
    color: str,
    marker: str = "o",
    label: str = "",
    hollow: bool = False,
) -> None:
    """Draws values [N][value, low, high] with their intervals along x."""
    array = np.array(values, float).reshape(-1, 3)
    ax.errorbar(
        array[:, 0],
        y,
        xerr=error_lengths(array),
        fmt=marker,
        color=color,
        mfc="white" if hollow else color,
        ms=5.5,
        elinewidth=1.2,
        capsize=2,
        label=label or None,
    )


def names_down(ax: Axes, names: Sequence[str]) -> None:
    """Writes names at the left, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
