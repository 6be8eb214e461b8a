"""A sweep's results: a table for the terminal, a figure, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instructgpt.evals.report.page import Row, Section, Table, as_image, render_page
from instructgpt.evals.report.plotting import (
    DASHED,
    GRID,
    MUTED,
    WIDTH,
    error_lengths,
    look,
    styled,
    title,
    to_png,
)
from instructgpt.evals.report.tables import format_interval
from instructgpt.evals.report.writing import load_results
from instructgpt.outputs import new_file
from instructgpt.progress import format_count, format_table

Results = Mapping[str, Any]  # results.json of a sweep
FIGURE_FILE, REPORT_FILE = "sweep.png", "report.html"


class _Measure(NamedTuple):
    """How a number is called in the figure and in the table."""

    heading: str
    column: str
    digits: int = 2


# In the order of the figure: what is optimised beside what it is worth.
_MEASURES = {
    "rm_score": _Measure("Reward model's score", "RM score"),
    "win_rate": _Measure("Win rate", "win rate"),
    "likert": _Measure("Likert score, gold judge", "Likert"),
    "kl": _Measure("KL to the reference, nats per response", "KL"),
    "pretrain_loss": _Measure("Held-out pretraining loss", "pretraining loss", 3),
    "response_length": _Measure("Tokens of a response", "tokens", 1),
    "accuracy_valid": _Measure("Accuracy, training labelers", "accuracy", 3),
    "accuracy_heldout": _Measure(
        "Accuracy, held-out labelers", "accuracy, held-out", 3
    ),
}
# Stages of the recipe -> the models by whose look they are drawn.
_LOOKS = {"pretrain": "gpt"}


def format_sweep(results: Results) -> str:
    """The results as an aligned table with 95 % intervals: a row for each value.

    A run that failed says so in place of its numbers.
    """
    columns, rows = _table(results)
    failed = [
        f"{row['value']}: {row['status']}; {row['message']}"
        for row in results["rows"]
        if row["status"] != "finished" and row["stage"] == _stages(results)[-1]
    ]
    return "\n".join([format_table(rows, columns), *failed])


def write_sweep_report(path: Path) -> None:
    """Writes `sweep.png` and `report.html` beside a sweep's `results.json`.

    Raises:
      UserError: the results are missing or damaged.
    """
    results = load_results(path)
    figure = sweep_figure(results)
    if figure is not None:
        with new_file(path.parent / FIGURE_FILE) as partial:
            partial.write_bytes(to_png(figure))
    columns, rows = _table(results)
    failed = [
        Row([row["value"], row["stage"], row["status"], row["message"]])
        for row in results["rows"]
        if row["status"] != "finished"
    ]
    sections = [
        Section(
            "By value",
            f"Answers to {results['split']} prompts, sampled at temperature 1; 95 % "
            "intervals over prompts, of the loss over batches of text. "
            + _who(results)
            + " Dashed lines are the models that the sweep starts from.",
            table=Table(columns, [Row(row) for row in rows]),
            image=as_image(figure, "Each measure by value"),
        ),
        Section(
            "Not finished",
            "Runs that have no result.",
            table=Table(["Value", "Stage", "", "Message"], failed) if failed else None,
        ),
    ]
    facts = {
        "Stages": ", ".join(results["stages"]),
        "Keys": ", ".join(results["keys"]),
        "Commit": results["meta"]["commit"],
        "Seed": results["meta"]["seed"],
        "Seed of the world": results["meta"]["world_seed"],
    }
    with new_file(path.parent / REPORT_FILE) as partial:
        page = render_page(sections, heading=f"Sweep: {results['axis']}", facts=facts)
        partial.write_text(page, encoding="utf-8")


def _who(results: Results) -> str:
    if results["judged"]:
        return (
            "The gold judge decides the win rate; no model has learnt from it. Where "
            "the reward model's score rises and the gold judge's falls, the policy is "
            "over-optimised."
        )
    return "The reward model's score decides the win rate, which policies raise."


def _stages(results: Results) -> list[str]:
    """Names of the measured stages."""
    return list(dict.fromkeys(row["stage"] for row in results["rows"]))


def _measured(results: Results) -> list[str]:
    """Names of the numbers that any row has, in the order of the figure."""
    found = {key for row in results["rows"] for key in row.get("numbers", {})}
    return [name for name in _MEASURES if name in found]


def _table(results: Results) -> tuple[list[str], list[list[str]]]:
    names, several = _measured(results), len(_stages(results)) > 1
    sizes = len({row.get("num_params") for row in results["rows"]} - {None}) > 1
    columns = [results["axis"], *["stage"] * several, *["parameters"] * sizes]
    columns += [_MEASURES[name].column for name in names]
    rows = []
    for row in results["rows"]:
        numbers = row.get("numbers", {})
        cells = [format_interval(numbers.get(n), _MEASURES[n].digits) for n in names]
        failed = row["status"] != "finished"
        count = "–" if failed else format_count(row["num_params"])
        value = f"{row['value']}, {row['status']}" if failed else row["value"]
        spent = row.get("pfs_days")
        rows.append(
            [
                *(value, *[row["stage"]] * several, *[count] * sizes),
                *(*cells, "–" if spent is None else f"{spent:.3g}"),
            ]
        )
    for stage, numbers in results["beside"].items():
        cells = [format_interval(numbers.get(n), _MEASURES[n].digits) for n in names]
        rows.append([_name(stage), *[stage] * several, *["–"] * sizes, *cells, "–"])
    return [*columns, "PF/s-days"], rows


def _name(stage: str) -> str:
    kind = look(_LOOKS.get(stage, stage))
    return kind.label if kind.label != stage else title(stage)


@styled
def sweep_figure(results: Results) -> Figure | None:
    """Draws each number over the values, with intervals and the models beside them.

    Values stand at equal distances, in the order in which they were given. The reward
    model's score and what the answers are worth are side by side.
    """
    names = _measured(results)
    if not any("numbers" in row for row in results["rows"]):
        return None
    count = -(-len(names) // 2)
    fig = Figure(figsize=(WIDTH * 1.5, 0.9 + 2.2 * count))
    axes = fig.subplots(count, min(2, len(names)), squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        _draw(ax, results, name)
        heading = _MEASURES[name].heading
        if name == "win_rate":
            heading += f" against {_name(results['baseline'])}, "
            heading += "gold judge" if results["judged"] else "by score"
        ax.set_title(heading)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax in axes[max(len(names) - 2, 0) : len(names)]:
        ax.set_xlabel(results["axis"])
    handles, labels = axes[0].get_legend_handles_labels()
    for ax in axes[1:]:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            if text not in labels:
                handles.append(handle)
                labels.append(text)
    fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return fig


def _draw(ax: Axes, results: Results, name: str) -> None:
    """Draws one number: a line for each measured stage."""
    values = list(dict.fromkeys(row["value"] for row in results["rows"]))
    for stage in _stages(results):
        # A value without a result interrupts the line.
        points = np.full((len(values), 3), np.nan)
        for row in results["rows"]:
            if row["stage"] == stage and name in row.get("numbers", {}):
                place = values.index(row["value"])
                points[place] = _interval(row["numbers"][name])
        if np.isnan(points).all():
            continue
        kind = look(_LOOKS.get(stage, stage))
        ax.errorbar(
            range(len(values)),
            points[:, 0],
            error_lengths(points),
            fmt=f"{kind.marker}-",
            color=kind.color,
            ms=5,
            label=_name(stage),
        )
    for row in results["rows"]:
        if row["status"] != "finished":
            x = values.index(row["value"])
            ax.axvspan(x - 0.3, x + 0.3, color=GRID)
            ax.text(
                x,
                0.5,
                row["status"],
                rotation=90,
                ha="center",
                va="center",
                color=MUTED,
                transform=ax.get_xaxis_transform(),
            )
    for stage, numbers in results["beside"].items():
        # RL starts from another model than SFT, which has forgotten most of the text.
        aside = name == "kl" or (name == "pretrain_loss" and stage == "sft")
        if name in numbers and not aside:
            kind = look(_LOOKS.get(stage, stage))
            ax.axhline(
                _interval(numbers[name])[0],
                color=kind.color,
                lw=1,
                ls=DASHED,
                zorder=1,
                label=f"{_name(stage)}, before",
            )
    ax.set_xticks(range(len(values)), values)
    ax.set_xlim(-0.5, len(values) - 0.5)


def _interval(value: float | Sequence[float]) -> tuple[float, float, float]:
    if isinstance(value, Sequence):
        return value[0], value[1], value[2]
    return value, value, value
