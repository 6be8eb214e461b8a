"""The report as one HTML page: pictures are inside, nothing comes from a network.

A part of the results that is missing leaves out its section and nothing else.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from instructgpt.evals import figures
from instructgpt.evals.plotting import (
    Curve,
    Results,
    label,
    look,
    model_names,
    title,
    to_data_uri,
)
from instructgpt.evals.tables import (
    flag_table,
    format_interval,
    model_table,
    table_by_model,
)

Curves = Mapping[str, Curve]


class Section(NamedTuple):
    """A heading, one line of what to see, and what stands below it."""

    title: str
    caption: str
    body: str


def render_html(results: Results, curves: Curves) -> str:
    """The whole page as text."""
    sections = [
        section
        for section in (
            *_model_sections(results),
            *_training_sections(results, curves),
            *_sample_sections(results),
        )
        if section.body
    ]
    body = "\n".join(
        f"<section><h2>{_text(section.title)}</h2>\n"
        f"<p class='caption'>{_text(section.caption)}</p>\n{section.body}\n</section>"
        for section in sections
    )
    return _PAGE.format(style=_STYLE, facts=_facts(results), body=body)


def _model_sections(results: Results) -> Iterable[Section]:
    yield Section(
        "Results",
        f"Judged by the gold judge on {_split(results)} prompts, of customers and with "
        "questions that no training text holds word for word; 95 % intervals over "
        "prompts.",
        _models_html(results),
    )
    yield Section(
        "Preference over SFT",
        "How often a model's answer is preferred to the SFT model's answer to the same "
        "prompt; a tie counts one half. Figure 1 of the paper, at one model size.",
        _image(figures.win_rates(results), "Win rate against SFT of each model"),
    )
    yield Section(
        "Overall quality",
        "Mean rating on the Likert scale from 1 to 7. Figure 5 of the paper.",
        _image(figures.likert(results), "Likert score of each model")
        + _details_html(
            "By use case", *table_by_model(results, "categories", digits=1)
        ),
    )
    yield Section(
        "What the answers do",
        "Share of answers with each flag of the paper's Table 3. Figure 4 of the "
        "paper; for hallucinations, lower is better.",
        _image(figures.flags(results), "Share of answers with each flag")
        + _details_html("In numbers", *flag_table(results)),
    )


def _training_sections(results: Results, curves: Curves) -> Iterable[Section]:
    yield Section(
        "Reinforcement learning",
        "PPO and PPO-ptx from the same start: the reward they gain, and how far they "
        "move away from their reference for it (paper §3.5, Eq. 2).",
        _image(figures.ppo_curves(curves), "Score, KL, value loss, clip fraction"),
    )
    yield Section(
        "Alignment tax",
        "Loss on held-out pretraining text: what PPO forgets of pretraining, and what "
        "the pretraining gradients of PPO-ptx give back (paper §4.2, Figure 33).",
        _image(
            figures.pretraining_loss(results, curves),
            "Held-out pretraining loss before and after RL",
        ),
    )
    yield Section(
        "Reward model",
        "Accuracy on pairs of answers that a labeler did not tie, for labelers whose "
        "rankings it was trained on and for others (paper §4.1). How often two "
        "labelers agree is over the pairs that neither ties (§3.4); to be compared "
        "with it, the model's accuracy is also taken over these, against either one.",
        _image(figures.reward_accuracy(results), "Reward model accuracy"),
    )
    yield Section(
        "Which SFT epoch",
        "In the paper validation loss rises after the first epoch while the reward "
        "model prefers later ones; the checkpoint is chosen by its score (§3.5).",
        _image(figures.sft_epochs(results), "Validation loss and RM score by epoch")
        + _epochs_html(results),
    )
    yield Section(
        "Losses",
        "Training loss and loss on held-out data of the supervised stages.",
        _image(figures.loss_curves(curves), "Loss curves of the supervised stages"),
    )


def _sample_sections(results: Results) -> Iterable[Section]:
    yield Section(
        "Samples",
        "The same prompts answered by each model, with the gold judge's rating "
        "(Figures 8 and 9 of the paper).",
        "\n".join(_sample_html(results, row) for row in results.get("samples") or ()),
    )


def _split(results: Results) -> str:
    """Which prompts were judged: "test", or "validation" while choices are made."""
    return {"valid": "validation"}.get(results.get("split", "test"), "test")


def _models_html(results: Results) -> str:
    columns, rows = model_table(results)
    names = [_name_html(results, model) for model in model_names(results)]
    cells = [
        [name, *map(_text, row[1:])] for name, row in zip(names, rows, strict=True)
    ]
    return _table_html(columns, cells)


def _epochs_html(results: Results) -> str:
    epochs = results.get("sft_epochs") or []
    rows = [
        [
            f"{row['epoch']}{' ← chosen' if row.get('chosen') else ''}",
            format_interval(row.get("valid_loss"), 3),
            format_interval(row.get("rm_score"), 3),
        ]
        for row in epochs
    ]
    marked = [bool(row.get("chosen")) for row in epochs]
    columns = ["Epoch", "Validation loss", "Mean RM score"]
    return _details_html("In numbers", columns, rows, marked)


def _details_html(
    summary: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    marked: Sequence[bool] | None = None,
) -> str:
    """A table of plain text that opens on a click; nothing if it has no rows."""
    if not rows:
        return ""
    cells = [[_text(cell) for cell in row] for row in rows]
    table = _table_html(columns, cells, marked)
    return f"<details><summary>{_text(summary)}</summary>{table}</details>"


def _sample_html(results: Results, sample: Mapping[str, Any]) -> str:
    order = [*model_names(results), *sample["responses"]]
    answers = []
    for model in dict.fromkeys(order):
        if model in sample["responses"]:
            text, rating = sample["responses"][model]
            answers.append(
                f"<dt>{_name_html(results, model)}"
                f"<span class='rating'>{format_interval(rating, 1)}</span></dt>"
                f"<dd>{_text(text) or '<i>(empty)</i>'}</dd>"
            )
    category = _text(title(sample.get("category", "")))
    return (
        f"<article><h3>{category}</h3><pre>{_text(sample['prompt'])}</pre>"
        f"<dl>{''.join(answers)}</dl></article>"
    )


def _table_html(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    marked: Sequence[bool] | None = None,
) -> str:
    """A table of column titles (plain text) and cells (HTML); nothing without rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    lines = []
    for row, mark in zip(rows, marked or [False] * len(rows), strict=True):
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        lines.append(
            f"<tr class='marked'>{cells}</tr>" if mark else f"<tr>{cells}</tr>"
        )
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _facts(results: Results) -> str:
    meta = results.get("meta", {})
    minutes = meta.get("minutes") or {}
    facts = {
        f"{_split(results).capitalize()} prompts": results.get("num_prompts"),
        "Commit": str(meta.get("commit") or "")[:12],
        "Date": meta.get("date"),
        "Hardware": meta.get("hardware"),
        "Seed": meta.get("seed"),
        "Seed of the world": meta.get("world_seed"),
        "Time": f"{sum(minutes.values()):.1f} minutes" if minutes else None,
    }
    items = [
        f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "")
    ]
    stages = ", ".join(f"{_text(name)} {value:.1f}" for name, value in minutes.items())
    details = f"<p class='caption'>Minutes by stage: {stages}.</p>" if stages else ""
    return f"<dl class='facts'>{''.join(items)}</dl>{details}"


def _image(figure: Figure | None, description: str) -> str:
    if figure is None:
        return ""
    return f"<img alt='{_text(description)}' src='{to_data_uri(figure)}'>"


def _name_html(results: Results, model: str) -> str:
    return (
        f"<span class='model'><i style='background:{look(model).color}'></i>"
        f"{_text(label(results, model))}</span>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 4rem; color: #1f2328;
  background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 0 0 .2rem; }
h3 { font-size: .8rem; margin: 0 0 .4rem; color: #6b7280; font-weight: 600;
  letter-spacing: .03em; text-transform: uppercase; }
section { margin-top: 2.6rem; }
.caption { color: #57606a; font-size: .92rem; margin: 0 0 .9rem; }
img { display: block; width: 100%; max-width: 40rem; height: auto; margin: 0 auto; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 1.8rem; margin: 1rem 0 .5rem; }
.facts dt { color: #6b7280; font-size: .78rem; } .facts dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid #e6e8eb; }
th { font-weight: 600; vertical-align: bottom; border-bottom-color: #b8bdc4; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td { white-space: nowrap; }
.marked td { font-weight: 600; background: #fff4e5; }
.model { white-space: nowrap; }
.model i { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em; }
details { margin-top: 1rem; } summary { cursor: pointer; font-size: .92rem; }
article { border: 1px solid #e0e3e7; border-radius: 8px; padding: .9rem 1rem;
  margin: 0 0 1rem; }
article pre { margin: 0 0 .7rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 600 .95rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
article dl { display: grid; grid-template-columns: 10.5rem 1fr; gap: .35rem 1rem;
  margin: 0; font-size: .92rem; }
article dt { display: flex; justify-content: space-between; align-items: baseline; }
article dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.rating { color: #57606a; font-variant-numeric: tabular-nums; }
@media (max-width: 34rem) { article dl { grid-template-columns: 1fr; gap: 0; }
  article dd { margin: 0 0 .6rem 1.2em; } article dt { justify-content: flex-start;
  gap: .6rem; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>InstructGPT: report</title>
<style>{style}</style>
</head>
<body>
<h1>InstructGPT, from pretraining to PPO-ptx</h1>
{facts}
{body}
</body>
</html>
"""
