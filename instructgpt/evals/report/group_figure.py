"""Draws win rates by groups of labelers and kinds of prompts (paper, Fig. 3)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instructgpt.evals.report.plotting import (
    INK,
    WIDTH,
    Results,
    error_lengths,
    label,
    look,
    model_names,
    styled,
)

_FIELDS = ("labelers, distribution", "labelers", "distribution")
_WORDS = {
    "training": "training labelers",
    "heldout": "held-out labelers",
    "instructgpt": "instructions",
    "gpt3": "GPT-3 prompts",
}


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
    fig = Figure(figsize=(WIDTH, 0.7 + 1.9 * ((len(groups) + 1) // 2)))
    axes = fig.subplots((len(groups) + 1) // 2, 2, sharey=True, squeeze=False).ravel()
    for ax, (group, rates) in zip(axes, groups.items(), strict=False):
        ax.axhline(0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for x, name in enumerate(names):
            if name in rates:
                _draw(ax, x, rates[name], name)
        ax.set_xticks(range(len(names)), [label(results, n) for n in names])
        ax.tick_params(axis="x", rotation=30)
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_ylim(0, 1)
        words = (_WORDS.get(part, part) for part in group.split(", "))
        ax.set_title(", ".join(words).capitalize(), fontsize=8.5)
    for ax in axes[len(groups) :]:
        ax.set_axis_off()
    fig.supylabel("Win rate against SFT", fontsize=9)
    return fig


def _groups(results: Results) -> Mapping[str, Mapping[str, Sequence[float]]]:
    for field in _FIELDS:
        for fields in results.get("groups", {}).values():
            if field in fields:
                return fields[field]
    return {}


def _draw(ax: Axes, x: int, rate: Sequence[float], name: str) -> None:
    kind = look(name)
    bars = error_lengths(np.array([rate], float))
    ax.errorbar([x], rate[:1], bars, fmt=kind.marker, color=kind.color, ms=6)
