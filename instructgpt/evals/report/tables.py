"""The results as tables for the terminal, a README and the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instructgpt.evals.compute import compute_table
from instructgpt.evals.report.plotting import (
    Results,
    baseline,
    group_title,
    label,
    model_names,
    title,
)
from instructgpt.progress import format_table

# Measures of agreement, and how they are called.
AGREEMENT = {
    "without_ties": "Without ties",
    "with_ties": "With ties",
    "tau": "Kendall's tau",
    "alpha_ranks": "Alpha, ranks",
    "alpha_likert": "Alpha, Likert",
    "paper": "Paper",
}


def format_results_table(results: Results, *, markdown: bool = False) -> str:
    """Formats tables of the models' quality, of flags, and of other measurements.

    The first table has a row per model (win rate against SFT, Likert, RM score, words
    of an answer, with 95 % intervals in brackets), the second a row per flag. Then
    follow win rates by the labelers' group, the agreement of judges, benchmarks, and
    the compute of the stages. Other evaluators and judges have a table each. A measure
    that no model has is left out; "–" means that one model lacks it.

    Args:
      results: The content of `results.json`.
      markdown: Whether to write Markdown tables for a README, not aligned text.
    """
    tables = [model_table(results), flag_table(results)]
    tables += [table for field, table in group_tables(results) if field == "labelers"]
    tables.append(agreement_table(results))
    tables += [benchmark_table(results), compute_table(results)]
    for _, key, (_, *columns), rows in other_tables(results):
        tables.append(([title(key), *columns], rows))
    layout = markdown_table if markdown else format_table
    return "\n\n".join(layout(rows, columns) for columns, rows in tables if rows)


def describe_results(results: Results) -> str:
    """One line on the comparison: prompts, split, seeds of world and training.

    Of benchmarks it is the number of questions.
    """
    meta = results["meta"]
    if "questions" in results:
        counts = results["questions"]
        return f"{sum(counts.values())} questions of {len(counts)} benchmarks"
    return (
        f"{results['num_prompts']} {results.get('split', 'test')} prompts, world "
        f"{meta.get('world_seed', meta['seed'])}, training seed {meta['seed']}"
    )


def model_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the first table of `format_results_table`."""
    measures = {
        "win_rate": f"Win rate vs {baseline(results)}",
        "score_win_rate": "Win rate by RM score",
        "likert": "Likert (1–7)",
        "mean_score": "RM score",
        "words": "Words",
    }
    models = results.get("models", {})
    present = [key for key in measures if any(key in m for m in models.values())]
    if not present:
        return ["Model"], []
    rows = [
        [label(results, name), *(_measure(results, name, key) for key in present)]
        for name in model_names(results)
    ]
    return ["Model", *(measures[key] for key in present)], rows


def _measure(results: Results, name: str, key: str) -> str:
    value = results["models"][name].get(key)
    if key.endswith("win_rate") and value and name == results.get("baseline", "sft"):
        return format_interval(value[0])  # one half by definition
    return format_interval(value)


def flag_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the second table of `format_results_table`."""
    return table_by_model(results, "flags", digits=2)


def table_by_model(
    results: Results, group: str, *, digits: int
) -> tuple[list[str], list[list[str]]]:
    """A row for each key of `models[...][group]`, a column per model, no intervals."""
    models = {n: results["models"][n].get(group, {}) for n in model_names(results)}
    models = {name: values for name, values in models.items() if values}
    keys = list(dict.fromkeys(key for values in models.values() for key in values))
    rows = [
        [
            title(key),
            *(
                format_interval((m.get(key) or [None])[0], digits)
                for m in models.values()
            ),
        ]
        for key in keys
    ]
    return ["", *(label(results, name) for name in models)], rows


def group_tables(
    results: Results,
) -> Iterator[tuple[str, tuple[list[str], list[list[str]]]]]:
    """Win rates by a field of prompts or by labelers' groups, a column per model.

    Yields:
      The field, and the table's columns and rows, for each judge.
    """
    for judge, fields in results.get("groups", {}).items():
        for field, groups in fields.items():
            known = {name for rates in groups.values() for name in rates}
            names = [name for name in model_names(results) if name in known]
            rows = [
                [group_title(value), *(format_interval(rates.get(n)) for n in names)]
                for value, rates in groups.items()
            ]
            what = f"Win rate by {field} ({judge})"
            yield field, ([what, *(label(results, name) for name in names)], rows)


def agreement_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """A row for each pair of judges, and for the labelers within each group.

    Beside a group that the paper has stands the paper's number, which it gives without
    saying how ties count (§3.4).
    """
    found = results.get("agreement", {})
    known = [kind for kind in AGREEMENT if any(kind in x for x in found.values())]
    rows = [
        [
            who,
            *(format_interval(rates.get(kind)) for kind in known if kind != "paper"),
            *([format_paper(rates.get("paper"))] if "paper" in known else []),
        ]
        for who, rates in found.items()
    ]
    return ["Agreement", *(AGREEMENT[kind] for kind in known)], rows


def format_paper(paper: Sequence[float] | None) -> str:
    """The paper's agreement: "0.726 ± 0.015"."""
    return "–" if paper is None else f"{paper[0]:.3f} ± {paper[1]:.3f}"


def benchmark_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """A row for each metric of each benchmark, a column per model."""
    found = results.get("benchmarks", {})
    names = [name for name in model_names(results) if name in found]
    keys = dict.fromkeys(
        (task, metric)
        for name in names
        for task, metrics in found[name].items()
        for metric in metrics
    )
    rows = [
        [
            f"{short_task(task)}: {metric}",
            *(format_interval(found[name].get(task, {}).get(metric)) for name in names),
        ]
        for task, metric in keys
    ]
    return ["Benchmark", *(label(results, name) for name in names)], rows


def short_task(task: str) -> str:
    """The displayed name of a benchmark: our task files all begin alike."""
    return task.removeprefix("instructgpt_")


def other_tables(
    results: Results,
) -> Iterator[tuple[str, str, list[str], list[list[str]]]]:
    """Tables of users' own evaluators and judges.

    Yields:
      "judges" or "evaluators", the key, and the table's columns and rows: one column
      per model, one row per number, with the group before the number's name.
    """
    for kind in ("judges", "evaluators"):
        for key, found in results.get(kind, {}).items():
            numbers = {name: dict(_with_groups(value)) for name, value in found.items()}
            # Models of the comparison come first, then models that were only measured.
            names = [name for name in model_names(results) if name in numbers]
            names += [name for name in numbers if name not in names]
            keys = dict.fromkeys(k for name in names for k in numbers[name])
            rows = [
                [title(k), *(format_interval(numbers[n].get(k)) for n in names)]
                for k in keys
            ]
            yield kind, key, ["", *(label(results, name) for name in names)], rows


def numbers_of(results: Results) -> dict[str, tuple[float, ...]]:
    """All numbers of the results, by names that are the same in every run.

    Returns:
      (value, low, high), or (value,) without an interval, by a name such as
      "win_rate/ppo", "flags: hallucinates/sft" or "agreement_heldout".
    """
    measures: dict[str, Any] = {}
    for model, entry in results.get("models", {}).items():
        for name, value in _with_groups(entry):
            measures[f"{name}/{model}"] = value
    for model, value in results.get("pretrain_loss", {}).items():
        measures[f"pretrain_loss/{model}"] = value
    measures |= results.get("reward_model", {})
    for stage, value in (results.get("compute") or {}).items():
        measures[f"pfs_days/{stage}"] = value
    for model, tasks in results.get("benchmarks", {}).items():
        for name, value in _with_groups(tasks):
            measures[f"{short_task(name)}/{model}"] = value
    for kind in ("judges", "evaluators"):
        for key, found in results.get(kind, {}).items():
            for model, entry in found.items():
                for name, value in _with_groups(entry):
                    measures[f"{key}: {name}/{model}"] = value
    numbers = {}
    for name, value in measures.items():
        values = value if isinstance(value, list | tuple) else (value,)
        if all(isinstance(x, int | float) for x in values):
            numbers[name] = tuple(values)
    return numbers


def _with_groups(numbers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Numbers by name; members of a group are named "group: name"."""
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            for own, inner in value.items():
                yield f"{name}: {own}", inner
        else:
            yield name, value


def markdown_table(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> str:
    """Formats a Markdown table: text in the first column, numbers in the others."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def format_interval(value: float | Sequence[float] | None, digits: int = 2) -> str:
    """Formats a value, or a value with its interval: "0.58 [0.53, 0.63]"."""
    if value is None:
        return "–"
    if not isinstance(value, Sequence):
        return f"{value:.{digits}f}"
    middle, low, high = (f"{number:.{digits}f}" for number in value)
    return f"{middle} [{low}, {high}]"
