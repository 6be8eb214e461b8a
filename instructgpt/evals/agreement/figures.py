"""Figures of labelers' agreement and quality, one for each question of the page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instructgpt.evals.agreement.tables import Report, group_name
from instructgpt.evals.report.agreement_figure import (
    WITH_TIES,
    WITHOUT_TIES,
    draw_intervals,
    names_down,
)
from instructgpt.evals.report.plotting import (
    DASHED,
    INK,
    MUTED,
    WIDTH,
    annotate,
    styled,
    title,
)

_FLAGGED = "#d55e00"
_COLORS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00")  # of groups, in order
Labelers = Mapping[str, Mapping[str, Any]]


def _color(report: Report, name: str, flag: str | None) -> str:
    """A labeler's colour: that of the group, or that of a flag."""
    found = report["labelers"][name]
    if flag is not None and flag in found["flags"]:
        return _FLAGGED
    groups = list(dict.fromkeys(x["group"] for x in report["labelers"].values()))
    return _COLORS[groups.index(found["group"]) % len(_COLORS)]


def _keys(ax: Axes, report: Report, flag: str | None) -> None:
    """Adds an entry of the legend for each group, and for the flagged."""
    shown = {
        group_name(x["group"]): _color(report, name, None)
        for name, x in report["labelers"].items()
    }
    if flag is not None and any(
        flag in x["flags"] for x in report["labelers"].values()
    ):
        shown["flagged"] = _FLAGGED
    for label, color in shown.items():
        ax.plot([], [], "o", color=color, ms=5.5, label=label)


def _labeler_figure(
    report: Report,
    panels: Mapping[str, Callable[[Mapping[str, Any]], Any]],
    *,
    flag: str | None = None,
    draw: Callable[[Axes, float, Any, str], None] | None = None,
) -> tuple[Figure, Sequence[Axes]] | None:
    """Draws a row for each labeler who has a value in one of the panels.

    Args:
      report: The report.
      panels: A panel's label along x -> the value of a labeler, None if there is none.
      flag: Labelers with this flag have a colour of their own.
      draw: Draws a value at a row in a colour; an interval if not given.
    """
    names = [
        name
        for name, found in report["labelers"].items()
        if any(value(found) is not None for value in panels.values())
    ]
    if not names:
        return None
    fig = Figure(figsize=(WIDTH, 1.2 + 0.24 * len(names)))
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (label, value) in zip(axes, panels.items(), strict=True):
        for row, name in enumerate(names):
            given = value(report["labelers"][name])
            color = _color(report, name, flag)
            if given is None:
                continue
            if draw is None:
                draw_intervals(ax, [row], [given], color=color)
            else:
                draw(ax, row, given, color)
        names_down(ax, names)
        ax.set_xlabel(label)
    _keys(axes[0], report, flag)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig, axes


@styled
def labeler_figure(report: Report) -> Figure | None:
    """Draws each labeler's agreement with all others."""
    drawn = _labeler_figure(
        report,
        {
            "Agreement without ties": lambda x: x["others"].get("without_ties"),
            "With ties": lambda x: x["others"].get("with_ties"),
        },
    )
    return drawn[0] if drawn else None


@styled
def category_figure(report: Report) -> Figure | None:
    """Draws the agreement on prompts of each use case."""
    found = report["categories"]
    if not found:
        return None
    fig = Figure(figsize=(WIDTH, 1.2 + 0.36 * len(found)))
    ax = fig.add_subplot()
    for kind, label, color, marker, offset in (
        ("without_ties", "without ties", WITHOUT_TIES, "o", -0.14),
        ("with_ties", "with ties", WITH_TIES, "s", 0.14),
    ):
        rows = [
            (i + offset, x[kind]) for i, x in enumerate(found.values()) if kind in x
        ]
        if rows:
            y, values = zip(*rows, strict=True)
            draw_intervals(ax, y, values, color=color, marker=marker, label=label)
    names_down(ax, [title(name) for name in found])
    ax.set_xlabel("Share of pairs on which two labelers agree")
    fig.legend(loc="outside lower center", ncols=2)
    return fig


@styled
def drift_figure(report: Report) -> Figure | None:
    """Draws agreement with the others by thirds of each labeler's tasks."""
    flag = "drifts away"
    lines = {
        name: [third[0] for third in found["drift"]["thirds"]]
        for name, found in report["labelers"].items()
        if "drift" in found
    }
    if not lines:
        return None
    fig = Figure(figsize=(WIDTH, 3.0))
    ax = fig.add_subplot()
    for name, values in lines.items():
        flagged = flag in report["labelers"][name]["flags"]
        color = _FLAGGED if flagged else MUTED
        ax.plot(range(3), values, "o-", color=color, alpha=1 if flagged else 0.35, ms=3)
        if flagged:
            annotate(ax, 2, values[-1], name, offset=(6, 0))
    mean = np.mean(list(lines.values()), axis=0)
    ax.plot(range(3), mean, "o-", color=WITHOUT_TIES, lw=2.4, ms=5, label="mean of all")
    ax.plot([], [], "o-", color=MUTED, alpha=0.35, ms=3, label="each labeler")
    if any(flag in report["labelers"][name]["flags"] for name in lines):
        ax.plot([], [], "o-", color=_FLAGGED, ms=3, label="flagged")
    ax.set_xticks(range(3), ["first third", "second", "last third"])
    ax.set_xlim(-0.2, 2.5)
    ax.set_ylabel("Agreement without ties")
    fig.legend(loc="outside lower center", ncols=3)
    return fig


@styled
def gold_figure(report: Report) -> Figure | None:
    """Draws the share of gold pairs ordered right, and agreement with oneself."""
    panels = {
        "Gold pairs ordered right": lambda x: x.get("gold"),
        "Agreement with oneself": lambda x: x.get("repeated", {}).get("without_ties"),
    }
    labelers = report["labelers"].values()
    panels = {
        label: value
        for label, value in panels.items()
        if any(value(found) is not None for found in labelers)
    }
    drawn = _labeler_figure(report, panels, flag="misses gold") if panels else None
    if drawn is None:
        return None
    if "Gold pairs ordered right" in panels:
        drawn[1][0].axvline(
            report["gold_below"], color=MUTED, lw=1, ls=DASHED, zorder=1
        )
    return drawn[0]


@styled
def pace_figure(report: Report) -> Figure | None:
    """Draws each labeler's pace, and below which others' pace a task is rushed."""

    def draw(ax: Axes, row: float, pace: Any, color: str) -> None:
        ax.plot([pace["low"], pace["high"]], [row, row], color=color, lw=1.6, alpha=0.6)
        ax.plot(pace["median"], row, "o", color=color, ms=5.5)
        ax.plot(report["rushed_below"] * pace["others"], row, "|", color=INK, ms=9)

    drawn = _labeler_figure(
        report, {"": lambda x: x.get("pace")}, flag="rushes", draw=draw
    )
    if drawn is None:
        return None
    fig, (ax,) = drawn
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    unit = next(x["pace"]["for_a"] for x in report["labelers"].values() if "pace" in x)
    shown = {"word": "word shown", "task": "task"}[unit]
    ax.set_xlabel(f"Seconds for a {shown}: median and middle 80 %; | rushed below")
    return fig


@styled
def order_figure(report: Report) -> Figure | None:
    """Draws how each labeler's ranks go with the displayed order."""

    def draw(ax: Axes, row: float, order: Any, color: str) -> None:
        ax.plot([order["low"], order["high"]], [row, row], color="#d0d4d9", lw=6)
        ax.plot(order["tau"], row, "o", color=color, ms=5.5)

    flag = "follows the displayed order"
    drawn = _labeler_figure(
        report, {"": lambda x: x.get("order")}, flag=flag, draw=draw
    )
    if drawn is None:
        return None
    fig, (ax,) = drawn
    ax.axvline(0, color=MUTED, lw=1, ls=DASHED, zorder=1)
    ax.set_xlabel("Tau of rank and displayed place; grey: 95 % of random orders")
    return fig


@styled
def ties_figure(report: Report) -> Figure | None:
    """Draws the shares of tied pairs and of skipped tasks of each labeler."""

    def draw(ax: Axes, row: float, share: float, color: str) -> None:
        ax.barh(row, share, 0.6, color=color)

    drawn = _labeler_figure(
        report,
        {
            "Share of pairs tied": lambda x: x.get("ties"),
            "Share of tasks skipped": lambda x: x["skipped"] / x["tasks"],
        },
        draw=draw,
    )
    return drawn[0] if drawn else None
