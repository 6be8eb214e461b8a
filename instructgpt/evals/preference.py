"""What judgements say of models: win rates, Likert and flags (§3.6, §4.1).

The unit that was sampled is the prompt. Where several labelers, or one labeler in both
orders, judged a prompt, their outcomes are averaged before intervals are taken.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instructgpt.data.draws import HELD_OUT
from instructgpt.evals.interface import Record, Results, Value
from instructgpt.evals.intervals import Interval, mean_interval
from instructgpt.evals.judgements import LIKERT, Judgement, preference

# Flags of Table 3 that Fig. 4 shows under another name: the name there, and whether
# its bar counts the answers without the flag.
FIG_4 = {
    "fails_to_follow_instruction": ("attempts_correct_instruction", True),
    "satisfies_constraint": ("follows_constraint", False),
    "hallucination": ("hallucination", False),
    "inappropriate_for_customer_assistant": (
        "appropriate_for_customer_assistant",
        True,
    ),
}
# Fields of prompts by whose values win rates are reported.
GROUPED_BY = ("distribution", "category", "source", "style")
GPT_LIKE = "gpt3"  # prompts that were not sent to an InstructGPT model (Fig. 3)
HALF = (0.5, 0.5, 0.5)  # a model against itself
Groups = dict[str, dict[str, dict[str, list[float]]]]


class Judged(NamedTuple):
    """The judgements of one judge, with what they say of each model."""

    judgements: Sequence[Judgement]
    models: Mapping[str, Results]
    groups: Groups  # field -> value -> model -> win rate with its interval


def summarise(
    judgements: Sequence[Judgement],
    records: Sequence[Record],
    responses: Mapping[str, Sequence[str]],
    *,
    baseline: str,
) -> Judged:
    """Computes the numbers of each model, with 95 % intervals over prompts.

    These are `win_rate` against the baseline (a tie counts one half), the means of
    `likert`, `score` and of each of `flags/`, the mean `likert` by category, and the
    number of `words` of the answers, which judges often prefer long.

    As in the paper's Fig. 1, prompts of the GPT-3 distribution and held-out labelers
    are not part of these numbers where there are others; they are in `groups`.

    Args:
      judgements: Checked judgements, of any number of labelers.
      records: The N prompts, with ids.
      responses: N answers of every model by its name.
      baseline: Name of the model that the others are compared with.
    """
    by_id = {record["id"]: record for record in records}
    main = _main_part(judgements, by_id)
    judged_ids = {one.id for one in main}
    models = {}
    for name, texts in responses.items():
        own = [one for one in main if one.model == name]
        numbers: dict[str, Value] = {}
        rate = win_rate(main, name, baseline=baseline)
        if rate is not None:
            numbers["win_rate"] = rate
        numbers |= _means(own)
        numbers |= _likert_by_category(own, by_id)
        words = [
            len(text.split())
            for record, text in zip(records, texts, strict=True)
            if record["id"] in judged_ids
        ]
        numbers["words"] = mean_interval(words) if len(words) > 1 else float(words[0])
        every = [one for one in judgements if one.model == name]
        rows = [_row(found) for found in _by_prompt(every, by_id)]
        models[name] = Results(numbers, rows if all(rows) else ())
    names = [name for name in responses if name != baseline]
    return Judged(judgements, models, _groups(judgements, by_id, names, baseline))


def win_rate(
    judgements: Iterable[Judgement], model: str, *, baseline: str
) -> Interval | None:
    """How often a model's answers are preferred to the baseline's (Fig. 1).

    Returns:
      The rate with its 95 % interval over prompts; exactly one half for the baseline
      itself; None if no labeler compared the two.
    """
    outcomes = _outcomes(judgements, model, baseline)
    if model == baseline:
        return Interval(*HALF)
    if not outcomes:
        return None
    means = [float(np.mean(values)) for values in outcomes.values()]
    return mean_interval(means, limits=(0.0, 1.0))


def _outcomes(
    judgements: Iterable[Judgement], model: str, baseline: str
) -> dict[str, list[float]]:
    """Outcomes of each prompt: 1, 1/2 or 0, one of each labeler and sheet."""
    outcomes: dict[str, list[float]] = {}
    for (prompt, *_), sheet in sheets(judgements).items():
        if model in sheet and baseline in sheet:
            outcome = preference(sheet[model], sheet[baseline])
            if outcome is not None:
                outcomes.setdefault(prompt, []).append(outcome)
    return outcomes


def sheets(
    judgements: Iterable[Judgement],
) -> dict[tuple[str, str, str], dict[str, Judgement]]:
    """What each labeler judged together: judgements by model, by their place."""
    out: dict[tuple[str, str, str], dict[str, Judgement]] = {}
    for one in judgements:
        out.setdefault(one.place, {})[one.model] = one
    return out


def _main_part(
    judgements: Sequence[Judgement],
    records: Mapping[str, Record],
    *,
    but: Sequence[str] = (),
) -> list[Judgement]:
    """The judgements of the headline numbers; all, if none is left otherwise.

    Those are of instructions, and not of held-out labelers; `but` names what is not
    restricted: "distribution" or "labelers".
    """
    found: list[Judgement] = list(judgements)
    checks: dict[str, Callable[[Judgement], bool]] = {
        "distribution": lambda one: records[one.id].get("distribution", "") != GPT_LIKE,
        "labelers": lambda one: one.group != HELD_OUT,
    }
    for name, check in checks.items():
        if name not in but:
            found = [one for one in found if check(one)] or found
    return found


def _by_prompt(
    judgements: Iterable[Judgement], records: Mapping[str, Record]
) -> list[list[Judgement]]:
    """The judgements of each prompt, in the order of the records."""
    found: dict[str, list[Judgement]] = {name: [] for name in records}
    for one in judgements:
        found[one.id].append(one)
    return list(found.values())


def _prompt_means(
    judgements: Iterable[Judgement], value: Callable[[Judgement], float | None]
) -> list[float]:
    """Each prompt's mean of a value over its labelers, where it was given."""
    found: dict[str, list[float]] = {}
    for one in judgements:
        given = value(one)
        if given is not None:
            found.setdefault(one.id, []).append(float(given))
    return [float(np.mean(values)) for values in found.values()]


def _means(judgements: Sequence[Judgement]) -> dict[str, Value]:
    """Mean Likert score, mean score and shares of flags of one model."""
    numbers: dict[str, Value] = {}
    likert = _prompt_means(judgements, lambda one: one.likert)
    if likert:
        numbers["likert"] = mean_interval(likert, limits=LIKERT)
    scores = _prompt_means(judgements, lambda one: one.score)
    if len(scores) > 1:
        numbers["score"] = mean_interval(scores)
    elif scores:
        numbers["score"] = scores[0]
    given = {flag for one in judgements for flag in one.flags}
    known = [flag for flag in FIG_4 if flag in given]
    for flag in [*known, *sorted(given - set(FIG_4))]:
        shown, negated = FIG_4.get(flag, (flag, False))
        values = _prompt_means(judgements, _flag_value(flag, negated))
        numbers[f"flags/{shown}"] = mean_interval(values, limits=(0.0, 1.0))
    return numbers


def _flag_value(flag: str, negated: bool) -> Callable[[Judgement], float | None]:
    def value(one: Judgement) -> float | None:
        given = one.flags.get(flag)
        return None if given is None else float(given != negated)

    return value


def _likert_by_category(
    judgements: Sequence[Judgement], records: Mapping[str, Record]
) -> dict[str, Value]:
    parts: dict[str, list[Judgement]] = {}
    for one in judgements:
        category = records[one.id].get("category", "")
        if category and one.likert is not None:
            parts.setdefault(category, []).append(one)
    return {
        f"categories/{category}": mean_interval(
            _prompt_means(part, lambda one: one.likert), limits=LIKERT
        )
        for category, part in sorted(parts.items())
    }


def _row(found: Sequence[Judgement]) -> dict[str, Any]:
    """What the labelers say of one answer, for the tables of samples."""
    row: dict[str, Any] = {}
    for name in ("likert", "score", "rank"):
        values = [getattr(one, name) for one in found if getattr(one, name) is not None]
        if values:
            row[name] = round(float(np.mean(values)), 4)
    # The number that the report shows beside the answer.
    rating = row.get("likert", row.get("score"))
    row = ({} if rating is None else {"rating": rating}) | row
    flags = sorted({k for one in found for k, given in one.flags.items() if given})
    if any(one.flags for one in found):
        row["flags"] = flags
    notes = [one.note for one in found if one.note]
    return row | ({"notes": notes} if notes else {})


def _groups(
    judgements: Sequence[Judgement],
    records: Mapping[str, Record],
    models: Sequence[str],
    baseline: str,
) -> Groups:
    """Win rates by labelers, by fields of prompts, and by labelers and distribution."""

    def distribution(one: Judgement) -> str:
        return str(records[one.id].get("distribution", ""))

    keys: dict[str, Callable[[Judgement], str]] = {
        "labelers": lambda one: one.group,
        "labelers, distribution": lambda one: (
            f"{one.group}, {distribution(one)}"
            if one.group and distribution(one)
            else ""
        ),
        **{field: _field_value(records, field) for field in GROUPED_BY},
    }
    out: Groups = {}
    for field, key in keys.items():
        # Each table varies one thing: the others are as in the first table.
        own = _main_part(judgements, records, but=field.split(", "))
        parts: dict[str, list[Judgement]] = {}
        for one in own:
            if key(one):
                parts.setdefault(key(one), []).append(one)
        if len(parts) < 2:
            continue
        for value, part in sorted(parts.items()):
            rates = {m: win_rate(part, m, baseline=baseline) for m in models}
            found = {m: list(rate) for m, rate in rates.items() if rate is not None}
            if found:
                out.setdefault(field, {})[value] = found
    return out


def _field_value(
    records: Mapping[str, Record], field: str
) -> Callable[[Judgement], str]:
    return lambda one: str(records[one.id].get(field, ""))
