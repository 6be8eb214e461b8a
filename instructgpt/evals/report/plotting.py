"""The common look of the report's figures: palette, style and marks.

A model has the same colour, marker and name in all figures. Colours are those of Okabe
and Ito's palette, which colour-blind readers can tell apart.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Results = Mapping[str, Any]  # results.json
Curve = Sequence[Mapping[str, Any]]  # rows of a metrics.jsonl


class Look(NamedTuple):
    """Label, colour and marker of one model."""

    label: str
    color: str
    marker: str


MODELS = {
    "gpt": Look("GPT", "#8a8a8a", "o"),
    "gpt_prompted": Look("GPT (prompted)", "#56b4e9", "s"),
    "sft": Look("SFT", "#0072b2", "D"),
    "ppo": Look("PPO", "#e69f00", "^"),
    "ppo_ptx": Look("PPO-ptx", "#d55e00", "v"),
    "rl_init": Look("RL init", "#009e73", "P"),
}
# Groups of labelers and of prompts, in the order of tables and panels.
GROUPS = {
    "training": "Training labelers",
    "heldout": "Held-out labelers",
    "instructgpt": "Instructions",
    "gpt3": "GPT-3 prompts",
}
INK, MUTED, GRID = "#1f2328", "#6b7280", "#e6e8eb"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#b8bdc4",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "errorbar.capsize": 3,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": GRID,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "instructgpt",  # makes equal data give equal bytes
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.5,
}
DASHED = (0, (4, 3))  # style of lines for comparison
WIDTH = 5.2  # inches; narrow enough for the text to be read on a phone
styled = mpl.rc_context(STYLE)  # decorator of functions that draw


def label(results: Results, model: str) -> str:
    """Displayed name of a model: the label in the results, if there is one."""
    given = results.get("models", {}).get(model, {}).get("label")
    return given or (MODELS[model].label if model in MODELS else model)


def look(model: str) -> Look:
    """Look of a model; models outside of the recipe have the colour of ink."""
    return MODELS.get(model, Look(model, INK, "X"))


def model_names(results: Results) -> list[str]:
    """Models of the results in the paper's order, weakest first; others follow."""
    models = results.get("models", {})
    known = [name for name in MODELS if name in models]
    return known + [name for name in models if name not in MODELS]


def baseline(results: Results) -> str:
    """Displayed name of the model that the others are compared with."""
    return label(results, results.get("baseline", "sft"))


def group_title(name: str) -> str:
    """Displayed name of a group: "heldout, gpt3" -> "Held-out labelers, GPT-3 prompts".

    Other names are titles as they are.
    """
    return ", ".join(GROUPS.get(part, title(part)) for part in name.split(", "))


def title(name: str) -> str:
    """Turns a key into a title: "follows_constraints" -> "Follows constraints"."""
    words = name.replace("_", " ").capitalize()
    return words.replace(" qa", " QA").replace("Qa", "QA")


def series(rows: Curve, name: str, *, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """Steps [N] and values [N] of a metric, without rows whose value is not finite."""
    pairs = [
        (row[x], row[name])
        for row in rows
        if x in row and row.get(name) is not None and math.isfinite(row[name])
    ]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def to_png(fig: Figure, *, dpi: int = 200) -> bytes:
    """The figure as a PNG file."""
    return _save(fig, format="png", dpi=dpi)


def to_data_uri(fig: Figure) -> str:
    """The figure as an SVG `data:` address, for the `src` of an HTML image."""
    svg = _save(fig, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


@styled
def _save(fig: Figure, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, facecolor="white", **kwargs)
    return buffer.getvalue()


def model_values(results: Results, key: str) -> dict[str, Sequence[float]]:
    """Values {model: (value, low, high)} of one measure, for models that have it."""
    models = results.get("models", {})
    return {m: models[m][key] for m in model_names(results) if models[m].get(key)}


def error_lengths(values: np.ndarray) -> np.ndarray:
    """Converts intervals [N, 3] to Matplotlib's error bars: lengths [2, N]."""
    return np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]])


def annotate(
    ax: Axes, x: float, y: float, text: str, *, offset: tuple[float, float] = (9, 0)
) -> None:
    """Writes a value beside its mark, `offset` points to the right and up."""
    right, up = offset
    ax.annotate(
        text,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        va="bottom" if up > 0 else "center",
        ha="left" if right > 0 else "right" if right < 0 else "center",
        fontsize=8.5,
        color=INK,
        # A white box hides a line that passes behind the number.
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def draw_dots(
    ax: Axes, results: Results, points: Mapping[str, Sequence[float]]
) -> None:
    """Draws a mark with its interval and value for each model."""
    for x, (name, point) in enumerate(points.items()):
        kind, values = look(name), np.array([point], float)
        ax.errorbar(
            [x],
            values[:, 0],
            error_lengths(values),
            fmt=kind.marker,
            color=kind.color,
            ms=8,
        )
        annotate(ax, x, point[0], f"{point[0]:.2f}")
    names = [label(results, name).replace(" (", "\n(") for name in points]
    ax.set_xticks(range(len(points)), names)
    ax.set_xlim(-0.5, len(points) - 0.3)


def draw_bars(ax: Axes, points: Mapping[str, Sequence[float]]) -> None:
    """Draws a bar between 0 and 1 with its interval for each model."""
    for x, (name, point) in enumerate(points.items()):
        values = np.array([point], float)
        ax.bar(
            [x],
            values[:, 0],
            0.72,
            color=look(name).color,
            yerr=error_lengths(values),
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2.5},
        )
    ax.set_xticks([])
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", ".5", "", "1"])


def draw_line(
    ax: Axes, steps: np.ndarray, values: np.ndarray, color: str, name: str
) -> None:
    """Draws a curve; a long one is drawn faintly, with a strong running mean on top."""
    window = len(values) // 15
    if window < 2:
        ax.plot(steps, values, color=color, label=name)
        return
    ax.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    kernel = np.ones(window)
    weight = np.convolve(np.ones_like(values), kernel, mode="same")
    ax.plot(
        steps,
        np.convolve(values, kernel, mode="same") / weight,
        color=color,
        label=name,
    )


def limit_to_bulk(ax: Axes, curve: Curve) -> None:
    """Limits the axis so that the large loss of the first steps is cut off."""
    values = np.concatenate([series(curve, n)[1] for n in ("loss", "valid_loss")])
    low, high = values.min(), np.quantile(values, 0.97)
    if high > low:
        margin = 0.08 * (high - low)
        ax.set_ylim(low - margin, high + margin)


def shared_legend(fig: Figure, ax: Axes) -> None:
    """Puts the legend of one panel below all panels."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
