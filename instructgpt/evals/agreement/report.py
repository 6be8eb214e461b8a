"""The report on labelers' agreement and quality: a page, a picture, JSON and text."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from instructgpt.evals.agreement import figures, tables
from instructgpt.evals.agreement.alpha import need_krippendorff
from instructgpt.evals.agreement.overall import by_category, by_group, comparisons
from instructgpt.evals.agreement.quality import RULES, Rules, by_labeler
from instructgpt.evals.agreement.rows import Ranked, check_rows
from instructgpt.evals.agreement.tables import Report, format_agreement
from instructgpt.evals.report.agreement_figure import group_agreement
from instructgpt.evals.report.page import Row, Section, Table, as_image, render_page
from instructgpt.evals.report.plotting import to_png
from instructgpt.outputs import new_file

__all__ = ["agreement_report", "format_agreement", "measure", "render_agreement"]

PAGE_FILE, FIGURE_FILE, NUMBERS_FILE = (
    "agreement.html",
    "agreement.png",
    "agreement.json",
)


def agreement_report(
    rows: Iterable[Ranked], folder: str | Path, *, rules: Rules = RULES
) -> dict[str, Any]:
    """Measures labelers' agreement and quality, and writes the report on them.

    Args:
      rows: What labelers gave, see `Ranked`: finished and skipped ranking tasks of one
        kind, of any number of labelers, groups and rounds.
      folder: Where `agreement.html` (the page, readable offline), `agreement.png`
        (agreement of groups beside the paper's) and `agreement.json` (the returned
        numbers) are written. A picture that cannot be drawn, as no two labelers ranked
        the same answers, is left out, and an old one removed.
      rules: When a labeler is flagged.

    Returns:
      The numbers, see `measure`; `format_agreement` makes text of them.

    Raises:
      UserError: rows that cannot be, see `check_rows`; krippendorff is not installed;
        or a file cannot be written.
    """
    need_krippendorff()
    report = measure(rows, rules=rules)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / NUMBERS_FILE) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    figure = group_agreement(_by_name(report))
    if figure is None:
        (folder / FIGURE_FILE).unlink(missing_ok=True)
    else:
        with new_file(folder / FIGURE_FILE) as partial:
            partial.write_bytes(to_png(figure))
    with new_file(folder / PAGE_FILE) as partial:
        partial.write_text(render_agreement(report), encoding="utf-8")
    return report


def measure(rows: Iterable[Ranked], *, rules: Rules = RULES) -> dict[str, Any]:
    """The numbers of the report, as they are in agreement.json.

    Returns:
      `counts` of the rows; `groups` (overall.by_group), `categories`
      (overall.by_category) and `labelers` (quality.by_labeler), in which an interval is
      [value, low, high]; and `rules`, each flag with its rule.

    Raises:
      UserError: see `check_rows`.
    """
    checked = check_rows(rows)
    found = comparisons(checked)
    return {
        "counts": {
            "labelers": len({row.labeler for row in checked}),
            "tasks": len(checked),
            "skipped": sum(row.skipped for row in checked),
            "repeats": sum(row.repeat and not row.skipped for row in checked),
            "gold": sum(bool(row.gold) and not row.skipped for row in checked),
            "prompts": len({row.id for row in checked}),
            "shared": len({one.first.id for one in found}),
        },
        "groups": by_group(checked, found),
        "categories": by_category(checked, found),
        "labelers": by_labeler(checked, found, rules),
        "rules": rules.in_words(),
        "rushed_below": rules.rushed,
        "gold_below": rules.gold,
    }


def render_agreement(report: Report) -> str:
    """The page of the report, in which no other file is needed."""
    counts = report["counts"]
    facts = {
        "Labelers": counts["labelers"],
        "Tasks": counts["tasks"],
        "Skipped": counts["skipped"],
        "Prompts": counts["prompts"],
        "With several labelers": counts["shared"],
        "Gold": counts["gold"],
        "Repeats": counts["repeats"],
    }
    return render_page(
        [*_agreement_sections(report), *_quality_sections(report)],
        heading="Labelers: agreement and quality",
        facts=facts,
    )


def _agreement_sections(report: Report) -> Iterator[Section]:
    yield Section(
        "Do labelers agree?",
        "Of each two answers that two labelers ranked: the share of pairs that both "
        "order alike, of those that neither ties, and of all pairs, where a tie is a "
        "third outcome. The paper says neither how it counts ties nor what its ± is: "
        "72.6 ± 1.5 % for training labelers and 77.3 ± 1.3 % for held-out ones (§3.4). "
        "The dashed line is chance, without ties. Kendall's tau is the mean over two "
        "rankings of a prompt; Krippendorff's alpha compares the place of each answer, "
        "and its Likert score. Gold items and repeats do not count. Intervals are of "
        "95 % over prompts: for these labelers, and other prompts.",
        table=_table(tables.rates_table(report)),
        image=as_image(
            group_agreement(_by_name(report)),
            "Agreement beside the paper's",
        ),
        details=_table(
            tables.coefficient_table(report),
            "Coefficients, and bootstrap intervals, for which prompts are drawn with "
            "all their rankings",
        ),
    )
    yield Section(
        "On which use cases?",
        "Agreement of all labelers by the prompt's use case.",
        image=as_image(figures.category_figure(report), "Agreement by use case"),
        details=_table(tables.category_table(report), "In numbers"),
    )
    yield Section(
        "Who agrees with the others?",
        "Each labeler with all others who ranked the same answers.",
        image=as_image(
            figures.labeler_figure(report), "Agreement of each labeler with the others"
        ),
        details=_table(tables.labeler_table(report), "In numbers"),
    )


def _quality_sections(report: Report) -> Iterator[Section]:
    rules = report["rules"]
    yield Section(
        "Who is flagged?",
        "A flag is a reason to look at somebody's work, no verdict: each rule also "
        "flags one or two in a hundred who work well.",
        table=_table(tables.flag_table(report))
        or Table(["Labeler"], [Row(["nobody"])]),
    )
    yield Section(
        "Does somebody drift?",
        "Agreement with the others in each third of a labeler's tasks, in the order in "
        f"which they were handed in. Flagged: {rules['drifts away']}.",
        image=as_image(
            figures.drift_figure(report), "Agreement by thirds of the tasks"
        ),
        details=_table(tables.drift_table(report), "In numbers"),
    )
    yield Section(
        "Are gold items right, and repeats alike?",
        "Pairs of gold items, whose order is known; one that is tied is half right. "
        "And how a second ranking of a task agrees with the first, without ties. "
        f"Flagged: {rules['misses gold']}.",
        image=as_image(
            figures.gold_figure(report), "Gold items and repeats by labeler"
        ),
        details=_table(tables.gold_table(report), "In numbers"),
    )
    yield Section(
        "Does somebody rush?",
        "Time for a task by the words shown; for a task alone, if words are not known. "
        f"Flagged: {rules['rushes']}.",
        image=as_image(figures.pace_figure(report), "Pace of each labeler"),
        details=_table(tables.pace_table(report), "In numbers"),
    )
    yield Section(
        "Does somebody follow the displayed order?",
        "Answers are shuffled before they are shown, so that ranks and places have "
        "nothing to do with each other. Flagged: "
        f"{rules['follows the displayed order']}.",
        image=as_image(figures.order_figure(report), "Ranks and displayed places"),
        details=_table(tables.order_table(report), "In numbers"),
    )
    yield Section(
        "Who ties, who skips?",
        "The share of pairs of answers with the same rank, and of tasks skipped.",
        image=as_image(figures.ties_figure(report), "Ties and skips of each labeler"),
    )


def _by_name(report: Report) -> dict[str, Any]:
    """The agreement of each group by its displayed name."""
    return {tables.group_name(name): x for name, x in report["groups"].items()}


def _table(content: tables.Table, title: str = "") -> Table | None:
    """A table of the page; None if it has no rows."""
    columns, rows = content
    return Table(columns, [Row(row) for row in rows], title) if rows else None
