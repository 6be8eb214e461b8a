"""Figures of the miniature world's evaluators (paper, Figs 6, 7, 28, 29 and 39).

Each function takes the content of a `results.json`, and returns None where it has no
such numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from instructgpt.evals.report.plotting import (
    DASHED,
    INK,
    MUTED,
    WIDTH,
    Results,
    error_lengths,
    label,
    look,
    model_names,
    styled,
    title,
)
from instructgpt.evals.world.tasks import SETTINGS, TASKS
from instructgpt.evals.world.truthful import PROMPTS
from instructgpt.world.beginnings import INSTRUCTIONS

KEYS = ("world_truthful", "world_toxicity", "world_tasks")
_GREY = "#d0d4d9"
Numbers = Mapping[str, Any]


def _found(results: Results, key: str, groups: Iterable[str]) -> dict[str, Numbers]:
    """An evaluator's numbers by model, in the paper's order.

    GPT (prompted) is left out: these texts have no place for its examples, so that its
    numbers are those of GPT. So is what has other groups, such as those of a user's own
    evaluator with this key.
    """
    found = results.get("evaluators", {}).get(key, {})
    whole = [name for name in found if all(group in found[name] for group in groups)]
    names = [name for name in model_names(results) if name in whole]
    names += [name for name in whole if name not in names]
    return {name: found[name] for name in names if name != "gpt_prompted"}


@styled
def truthful(results: Results) -> Figure | None:
    """Draws true answers in grey, and true and informative ones in colour (Fig. 6)."""
    found = _found(results, "world_truthful", PROMPTS)
    if not found:
        return None
    fig = Figure(figsize=(7.2, 2.9))
    axes = fig.subplots(1, len(PROMPTS), sharey=True)
    for ax, (prompt, heading) in zip(axes, PROMPTS.items(), strict=True):
        for x, (name, numbers) in enumerate(found.items()):
            own = numbers[prompt]
            _bar(ax, x - 0.1, own["truthful"], _GREY, 0.6)
            _bar(ax, x + 0.1, own["truthful_informative"], look(name).color, 0.6)
        ax.set_title(heading)
        _rates(ax)
    axes[0].set_ylabel("Share of answers")
    grey = Patch(color=_GREY, label="True, whether or not it informs")
    _legend(fig, results, found, grey)
    return fig


@styled
def toxicity(results: Results) -> Figure | None:
    """Draws the mean toxicity of completions by instruction (Figs 7 and 39)."""
    found = _found(results, "world_toxicity", INSTRUCTIONS)
    if not found:
        return None
    fig = Figure(figsize=(WIDTH, 2.8))
    axes = fig.subplots(1, len(INSTRUCTIONS), sharey=True)
    highest = max(
        float(value[2]) for numbers in found.values() for value in numbers.values()
    )
    for ax, name in zip(axes, INSTRUCTIONS, strict=True):
        for x, (model, numbers) in enumerate(found.items()):
            _bar(ax, x, numbers[name], look(model).color, 0.72)
        ax.set_title("No instruction" if name == "none" else title(name))
        ax.set_xticks([])
        ax.set_ylim(0, min(1.0, 1.1 * highest + 0.02))
    axes[0].set_ylabel("Mean toxicity (0–1)")
    _legend(fig, results, found)
    return fig


@styled
def tasks(results: Results) -> Figure | None:
    """Draws accuracies in each task, zero-shot and few-shot (Figs 28 and 29)."""
    found = _found(results, "world_tasks", SETTINGS)
    if not found:
        return None
    fig = Figure(figsize=(7.2, 4.2))
    grid = fig.subplots(len(SETTINGS), len(TASKS), sharey=True, squeeze=False)
    for axes, setting in zip(grid, SETTINGS, strict=True):
        for ax, (task, chance) in zip(axes, TASKS.items(), strict=True):
            for x, (name, numbers) in enumerate(found.items()):
                _bar(ax, x, numbers[setting][task], look(name).color, 0.72)
            if chance:
                ax.axhline(chance, color=MUTED, lw=1, ls=DASHED)
            _rates(ax)
            ax.set_title(f"{title(task)}, {setting.replace('_', '-')}", fontsize=8.5)
        axes[0].set_ylabel("Accuracy")
    _legend(fig, results, found)
    return fig


def _bar(ax: Axes, x: float, value: Sequence[float], color: str, width: float) -> None:
    values = np.array([value], float)
    ax.bar(
        [x],
        values[:, 0],
        width,
        color=color,
        yerr=error_lengths(values),
        error_kw={"ecolor": INK, "elinewidth": 0.9, "capsize": 2},
    )


def _rates(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", ".5", "", "1"])


def _legend(
    fig: Figure, results: Results, found: Mapping[str, Numbers], *more: Patch
) -> None:
    handles = [Patch(color=look(n).color, label=label(results, n)) for n in found]
    fig.legend(
        handles=[*handles, *more],
        loc="outside lower center",
        ncols=3,
        handlelength=1,
        columnspacing=1.4,
    )
