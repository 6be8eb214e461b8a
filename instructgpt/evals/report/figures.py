"""The report's figures, drawn from a `results.json` and metric curves.

Each function takes plain data and returns a Matplotlib figure, or None where the data
it needs are missing.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from instructgpt.evals.report.plotting import (
    DASHED,
    INK,
    MUTED,
    WIDTH,
    Curve,
    Results,
    annotate,
    baseline,
    draw_bars,
    draw_dots,
    draw_line,
    error_lengths,
    label,
    limit_to_bulk,
    look,
    model_names,
    model_values,
    series,
    shared_legend,
    styled,
    title,
)


@styled
def win_rates(results: Results) -> Figure | None:
    """Draws the win rates against the baseline with 95 % intervals (paper, Fig. 1).

    If no judge gave win rates, those by the reward model's score are drawn.
    """
    points = model_values(results, "win_rate")
    points = points or model_values(results, "score_win_rate")
    if not points:
        return None
    fig = Figure(figsize=(WIDTH, 3.4))
    ax = fig.add_subplot()
    ax.axhline(0.5, color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    draw_dots(ax, results, points)
    ax.set_ylim(0, 1)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_ylabel(f"Win rate against {baseline(results)}")
    return fig


@styled
def likert(results: Results) -> Figure | None:
    """Draws the mean overall quality on the 1-7 scale (paper, Fig. 5)."""
    points = model_values(results, "likert")
    if not points:
        return None
    fig = Figure(figsize=(WIDTH, 3.4))
    ax = fig.add_subplot()
    draw_dots(ax, results, points)
    ax.set_ylim(1, 7)
    ax.set_ylabel("Likert score (1–7)")
    return fig


@styled
def flags(results: Results) -> Figure | None:
    """Draws how often each yes/no judgement holds (paper, Fig. 4 and Table 3)."""
    models = results.get("models", {})
    names = list(
        dict.fromkeys(flag for m in models.values() for flag in m.get("flags", {}))
    )
    if not names:
        return None
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    fig = Figure(figsize=(WIDTH, 0.5 + 1.9 * rows))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax, flag in zip(axes, names, strict=False):
        draw_bars(
            ax,
            {
                name: models[name]["flags"][flag]
                for name in model_names(results)
                if flag in models[name].get("flags", {})
            },
        )
        ax.set_title(title(flag), fontsize=8.5)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    handles = [
        Patch(color=look(name).color, label=label(results, name))
        for name in model_names(results)
    ]
    fig.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        handlelength=1,
        columnspacing=1.4,
    )
    return fig


@styled
def ppo_curves(curves: Mapping[str, Curve]) -> Figure | None:
    """Draws reward, KL, value loss and clip fraction over PPO iterations."""
    panels = {
        "score": "Reward model score",
        "kl": "KL to the reference (nats)",
        "value_loss": "Value loss",
        "clip_fraction": "Clip fraction",
    }
    runs = {name: curves[name] for name in ("ppo", "ppo_ptx") if name in curves}
    panels = {
        metric: heading
        for metric, heading in panels.items()
        if any(series(curve, metric)[0].size for curve in runs.values())
    }
    if not panels:
        return None
    fig = Figure(figsize=(WIDTH, 0.6 + 2.0 * math.ceil(len(panels) / 2)))
    axes = fig.subplots(math.ceil(len(panels) / 2), 2, squeeze=False)
    for ax, (metric, heading) in zip(axes.ravel(), panels.items(), strict=False):
        for name, curve in runs.items():
            draw_line(ax, *series(curve, metric), look(name).color, look(name).label)
        ax.set_title(heading)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("PPO iteration")
    shared_legend(fig, axes[0, 0])
    return fig


@styled
def loss_curves(curves: Mapping[str, Curve]) -> Figure | None:
    """Draws training and validation losses of the four supervised stages."""
    stages = {
        "pretrain": "Pretraining",
        "sft": "SFT",
        "rl_init": "RL init",
        "reward": "Reward model",
    }
    panels = {
        stage: heading
        for stage, heading in stages.items()
        if any(
            series(curves.get(stage, ()), name)[0].size
            for name in ("loss", "valid_loss")
        )
    }
    if not panels:
        return None
    rows = math.ceil(len(panels) / 2)
    fig = Figure(figsize=(WIDTH, 0.6 + 2.0 * rows))
    axes = fig.subplots(rows, 2, squeeze=False)
    for ax, (stage, heading) in zip(axes.ravel(), panels.items(), strict=False):
        curve = curves[stage]
        draw_line(ax, *series(curve, "loss"), "#0072b2", "training")
        steps, values = series(curve, "valid_loss")
        ax.plot(steps, values, "o-", color="#d55e00", ms=3.5, label="held out")
        limit_to_bulk(ax, curve)
        ax.set_title(heading)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("Step")
    shared_legend(fig, axes[0, 0])
    return fig


@styled
def pretraining_loss(
    results: Results, curves: Mapping[str, Curve] | None = None
) -> Figure | None:
    """Draws the held-out pretraining loss before and after RL: the alignment tax."""
    losses = results.get("pretrain_loss", {})
    names = [n for n in ("gpt", "rl_init", "ppo", "ppo_ptx") if n in losses]
    if not names:
        return None
    runs = {
        name: series((curves or {}).get(name, ()), "valid_pretrain_loss")
        for name in ("ppo", "ppo_ptx")
    }
    runs = {name: run for name, run in runs.items() if run[0].size > 1}
    fig = Figure(figsize=(WIDTH, 3.0))
    if runs:
        axes = fig.subplots(1, 2, sharey=True)
        for name, (steps, values) in runs.items():
            draw_line(axes[1], steps, values, look(name).color, look(name).label)
        axes[1].set_xlabel("PPO iteration")
        axes[1].legend()
        axes[1].set_title("During RL")
        axes[0].set_title("At the end")
    ax = axes[0] if runs else fig.add_subplot()
    if "rl_init" in losses:
        ax.axhline(losses["rl_init"], color=MUTED, lw=1, ls=DASHED, zorder=1)
    for x, name in enumerate(names):
        kind = look(name)
        ax.plot(x, losses[name], kind.marker, color=kind.color, ms=8)
        annotate(ax, x, losses[name], f"{losses[name]:.3f}", offset=(0, 7))
    ax.set_xticks(range(len(names)), [look(name).label for name in names])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.margins(y=0.25)
    ax.set_ylabel("Held-out loss (nats per token)")
    return fig


@styled
def reward_accuracy(results: Results) -> Figure | None:
    """Draws the reward model's accuracy on ranked pairs and the labelers' agreement.

    Only the last two kinds of marks are comparable: they are over the same pairs, those
    that two labelers left untied.
    """
    reward = results.get("reward_model", {})
    kinds = {
        "all_pairs": ("Reward model, all untied pairs", "#e69f00", "^"),
        "shared_pairs": ("Reward model, pairs untied by two labelers", "#d55e00", "v"),
        "agreement": ("Two labelers with each other, the same pairs", "#0072b2", "D"),
    }
    groups = {"train": "Training labelers", "heldout": "Held-out labelers"}
    if not any(f"{kind}_{group}" in reward for kind in kinds for group in groups):
        return None
    fig = Figure(figsize=(WIDTH, 3.4))
    ax = fig.add_subplot()
    ax.axhline(0.5, color=MUTED, lw=1, ls=DASHED, zorder=1)
    annotate(ax, 1.45, 0.5, "chance", offset=(-1, 6))
    for offset, (kind, (name, color, marker)) in zip(
        (-0.25, 0, 0.25), kinds.items(), strict=True
    ):
        present = [i for i, group in enumerate(groups) if f"{kind}_{group}" in reward]
        points = [reward[f"{kind}_{list(groups)[i]}"] for i in present]
        values = np.array(points, float).reshape(-1, 3)
        x = np.array(present) + offset
        ax.errorbar(
            x,
            values[:, 0],
            error_lengths(values),
            fmt=marker,
            color=color,
            ms=7,
            label=name,
        )
        for xi, (value, _, high) in zip(x, values, strict=True):
            annotate(ax, xi, high, f"{value:.3f}", offset=(0, 5))
    ax.set_xticks(range(len(groups)), list(groups.values()))
    ax.set_xlim(-0.5, 1.5)
    ax.set_ylim(0.45, 1.0)
    ax.set_ylabel("Share of pairs")
    ax.legend(loc="upper left")
    return fig


@styled
def sft_epochs(results: Results) -> Figure | None:
    """Draws validation loss and mean RM score after each SFT epoch (paper §3.5)."""
    epochs = results.get("sft_epochs") or []
    panels = {"valid_loss": "Validation loss", "rm_score": "Mean RM score"}
    panels = {k: v for k, v in panels.items() if series(epochs, k, x="epoch")[0].size}
    if not panels:
        return None
    chosen = [row for row in epochs if row.get("chosen")]
    fig = Figure(figsize=(WIDTH, 2.7))
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    for ax, (name, heading) in zip(axes, panels.items(), strict=True):
        ax.plot(*series(epochs, name, x="epoch"), "o-", color="#0072b2", ms=3.5)
        ax.plot(
            *series(chosen, name, x="epoch"),
            "o",
            ms=10,
            mfc="none",
            mew=1.8,
            color="#d55e00",
            ls="none",
            label="chosen",
        )
        ax.set_title(heading)
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chosen:
        axes[-1].legend(loc="lower right")
    return fig
