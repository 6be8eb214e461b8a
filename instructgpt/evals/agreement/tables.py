"""Agreement and quality as tables for the terminal and the page."""

from collections.abc import Mapping
from typing import Any

from instructgpt.evals.report.plotting import GROUPS, title
from instructgpt.evals.report.tables import AGREEMENT, format_interval, format_paper
from instructgpt.progress import format_table

Report = Mapping[str, Any]  # the content of agreement.json
Table = tuple[list[str], list[list[str]]]  # columns and rows


def group_name(group: str) -> str:
    """Displayed name of a group of labelers."""
    return GROUPS.get(group, title(group)) if group else "Labelers"


def format_agreement(report: Report) -> str:
    """Formats the report of `agreement_report` for the terminal: four tables."""
    tables = [
        group_table(report),
        category_table(report),
        labeler_table(report),
        work_table(report),
    ]
    parts = [format_table(rows, columns) for columns, rows in tables if rows]
    flagged = [
        f"{name}: {', '.join(found['flags'])}"
        for name, found in report["labelers"].items()
        if found["flags"]
    ]
    return "\n\n".join([*parts, "\n".join(["Flagged:", *(flagged or ["nobody"])])])


def group_table(report: Report) -> Table:
    """A row for each group of labelers, with the paper's number beside it."""
    groups = report["groups"]
    known = [
        name
        for name in AGREEMENT
        if name != "paper" and any(name in x for x in groups.values())
    ]
    rows = [
        [
            group_name(name),
            str(found["labelers"]),
            str(found["prompts"]),
            *(format_interval(found.get(measure), 3) for measure in known),
            format_paper(found.get("paper")),
        ]
        for name, found in groups.items()
    ]
    shown = [AGREEMENT[name] for name in known]
    return ["Agreement", "Labelers", "Prompts", *shown, "Paper"], rows


def rates_table(report: Report) -> Table:
    """The two rates of each group, and the paper's."""
    rows = [
        [
            group_name(name),
            format_interval(found.get("without_ties"), 3),
            format_interval(found.get("with_ties"), 3),
            format_paper(found.get("paper")),
        ]
        for name, found in report["groups"].items()
    ]
    return ["", "Without ties", "With ties", "Paper"], rows


def coefficient_table(report: Report) -> Table:
    """Coefficients of each group, and the two rates with bootstrap intervals."""
    names = ("tau", "alpha_ranks", "alpha_likert")
    rows = [
        [
            group_name(name),
            str(found["labelers"]),
            str(found["prompts"]),
            *(format_interval(found.get(measure)) for measure in names),
            *(
                format_interval(found["bootstrap"].get(measure), 3)
                for measure in ("without_ties", "with_ties")
            ),
        ]
        for name, found in report["groups"].items()
    ]
    shown = [AGREEMENT[name] for name in names]
    rates = ["Without ties, bootstrap", "With ties, bootstrap"]
    return ["", "Labelers", "Prompts", *shown, *rates], rows


def category_table(report: Report) -> Table:
    """A row for each use case of the prompts."""
    measures = ("without_ties", "with_ties", "tau")
    rows = [
        [
            title(name),
            str(found["prompts"]),
            *(format_interval(found.get(measure)) for measure in measures),
        ]
        for name, found in report["categories"].items()
    ]
    return ["Use case", "Prompts", *(AGREEMENT[name] for name in measures)], rows


def labeler_table(report: Report) -> Table:
    """A row for each labeler: tasks, and agreement with the others."""
    measures = ("without_ties", "with_ties", "tau")
    rows = [
        [
            name,
            group_name(found["group"]),
            str(found["tasks"]),
            _percent(found["skipped"] / found["tasks"]),
            _percent(found.get("ties")),
            *(format_interval(found["others"].get(measure)) for measure in measures),
        ]
        for name, found in report["labelers"].items()
    ]
    shown = [AGREEMENT[name] for name in measures]
    return ["Labeler", "Group", "Tasks", "Skipped", "Tied pairs", *shown], rows


def work_table(report: Report) -> Table:
    """A row for each labeler: drift, gold, repeats, pace and displayed order."""
    rows = []
    for name, found in report["labelers"].items():
        drift, order = found.get("drift"), found.get("order")
        pace = found.get("pace")
        rows.append(
            [
                name,
                f"{drift['change']:+.2f}" if drift else "–",
                format_interval(found.get("gold")),
                format_interval(found.get("repeated", {}).get("without_ties")),
                _percent(pace["rushed"]) if pace else "–",
                f"{order['tau']:+.2f}" if order else "–",
            ]
        )
    columns = ["Drift", "Gold pairs right", "Agrees with oneself", "Rushed tasks"]
    return ["Labeler", *columns, "Tau with place"], rows


def flag_table(report: Report) -> Table:
    """A row for each flag that a labeler has, with what was measured."""
    rows = [
        [name, flag, _measured(found, flag)]
        for name, found in report["labelers"].items()
        for flag in found["flags"]
    ]
    return ["Labeler", "Flag", "Measured"], rows


def _measured(found: Mapping[str, Any], flag: str) -> str:
    """The number for which a labeler has a flag."""
    if flag == "rushes":
        return f"{_percent(found['pace']['rushed'])} of tasks rushed"
    if flag == "follows the displayed order":
        return f"tau {found['order']['tau']:+.2f}"
    if flag == "drifts away":
        return f"agreement {found['drift']['change']:+.2f}"
    return f"{format_interval(found['gold'])} right"


def drift_table(report: Report) -> Table:
    """Agreement with the others in each third of a labeler's tasks."""
    rows = [
        [
            name,
            *(format_interval(third) for third in found["drift"]["thirds"]),
            f"{found['drift']['change']:+.2f}",
            f"{found['drift']['p']:.3f}",
        ]
        for name, found in report["labelers"].items()
        if "drift" in found
    ]
    return ["Labeler", "First third", "Second", "Last", "Change", "p"], rows


def gold_table(report: Report) -> Table:
    """Share of gold pairs ordered right, and agreement with oneself on repeats."""
    rows = [
        [
            name,
            format_interval(found.get("gold")),
            *(
                format_interval(found.get("repeated", {}).get(measure))
                for measure in ("without_ties", "with_ties")
            ),
            str(found["repeats"]),
        ]
        for name, found in report["labelers"].items()
        if "gold" in found or "repeated" in found
    ]
    columns = ["Gold pairs right", "Repeats, without ties", "With ties", "Repeats"]
    return ["Labeler", *columns], rows


def pace_table(report: Report) -> Table:
    """Seconds for a word, or a task, beside the others', and share of rushed tasks."""
    rows = [
        [
            name,
            f"{pace['median']:.2f} [{pace['low']:.2f}, {pace['high']:.2f}]",
            f"{pace['others']:.2f}",
            _percent(pace["rushed"]),
            str(pace["tasks"]),
        ]
        for name, found in report["labelers"].items()
        if (pace := found.get("pace"))
    ]
    return ["Labeler", "Seconds, middle 80 %", "Others", "Rushed tasks", "Tasks"], rows


def order_table(report: Report) -> Table:
    """Rank correlation with the displayed place, beside that of random orders."""
    rows = [
        [
            name,
            f"{order['tau']:+.3f}",
            f"{order['low']:+.3f} to {order['high']:+.3f}",
            f"{order['p']:.3f}",
            str(order["tasks"]),
        ]
        for name, found in report["labelers"].items()
        if (order := found.get("order"))
    ]
    return ["Labeler", "Tau", "95 % of random orders", "p", "Tasks"], rows


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
