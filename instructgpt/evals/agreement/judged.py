"""Agreement between judges of models' answers, and between their labelers (§3.4, §3.6).

It is computed from judgements, whose answers have models' names instead of numbers.
"""

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from instructgpt.evals.agreement.alpha import Units, ordinal_alpha, places
from instructgpt.evals.agreement.pairs import COUNTS, PAPER, compare, rates
from instructgpt.evals.intervals import Interval
from instructgpt.evals.judgements import Judgement, preference
from instructgpt.evals.preference import Judged, sheets

_Sheet = Mapping[str, Judgement]  # what a labeler judged together, by model


def agreement(
    first: Iterable[Judgement], second: Iterable[Judgement]
) -> dict[str, Interval]:
    """How often two judges agree which of two answers to a prompt is better (§3.4).

    A judgement is not compared with itself, nor with another of the same labeler.

    Returns:
      `without_ties`, `with_ties` and `tau` (pairs.py), with 95 % intervals over
      prompts; without those that have no pair.
    """
    ours, theirs = (_by_prompt(x) for x in (first, second))
    counts: dict[str, np.ndarray] = {}
    for prompt in ours.keys() & theirs.keys():
        found = counts.setdefault(prompt, np.zeros(COUNTS))
        for (name, a), (other, b) in itertools.product(ours[prompt], theirs[prompt]):
            if name != other:
                shared = [model for model in a if model in b]
                found += compare(_signs(a, shared), _signs(b, shared))
    if not counts:
        return {}
    return rates(np.stack([counts[prompt] for prompt in sorted(counts)]))


def _by_prompt(
    judgements: Iterable[Judgement],
) -> dict[str, list[tuple[str, _Sheet]]]:
    """The sheets of each prompt, with their labelers."""
    out: dict[str, list[tuple[str, _Sheet]]] = {}
    for (prompt, labeler, _), sheet in sheets(judgements).items():
        out.setdefault(prompt, []).append((labeler, sheet))
    return out


def _signs(sheet: _Sheet, models: Iterable[str]) -> np.ndarray:
    """Which of each two models' answers is better, as pairs.signs; NaN if not known."""
    outcomes = (
        preference(sheet[one], sheet[other])
        for one, other in itertools.combinations(models, 2)
    )
    return np.array([math.nan if x is None else 2 * x - 1 for x in outcomes], float)


def alphas(judgements: Iterable[Judgement]) -> dict[str, Interval]:
    """Krippendorff's alpha between labelers (alpha.py); a model's answer is a unit.

    Of several sheets of a labeler on a prompt the first counts. Ranks count of sheets
    on which all models can be compared, in any way that `preference` compares them.

    Returns:
      `alpha_ranks` and `alpha_likert`, those that are defined.
    """
    ranks: dict[str, list[list[float]]] = {}
    likert: dict[str, list[list[float]]] = {}
    for prompt, found in _by_prompt(judgements).items():
        own = dict(reversed(found)).values()
        ranks[prompt] = _joined(map(_places, own))
        likert[prompt] = _joined(
            {
                model: one.likert
                for model, one in sheet.items()
                if one.likert is not None
            }
            for sheet in own
        )
    units: dict[str, Units] = {"alpha_ranks": ranks, "alpha_likert": likert}
    found_alphas = {name: ordinal_alpha(given) for name, given in units.items()}
    return {name: x for name, x in found_alphas.items() if x is not None}


def _joined(labelers: Iterable[Mapping[str, float]]) -> list[list[float]]:
    """The values of each model's answer, from each labeler's values by model."""
    units: dict[str, list[float]] = {}
    for values in labelers:
        for model, value in values.items():
            units.setdefault(model, []).append(value)
    return list(units.values())


def _places(sheet: _Sheet) -> dict[str, float]:
    """The place of each model's answer from 0 (best) to 1; nothing if not known."""
    models = list(sheet)
    if len(models) < 2:
        return {}
    wins = dict.fromkeys(models, 0.0)
    for one, other in itertools.combinations(models, 2):
        outcome = preference(sheet[one], sheet[other])
        if outcome is None:
            return {}
        wins[one] += outcome
        wins[other] += 1 - outcome
    found = places([-wins[model] for model in models])
    return dict(zip(models, map(float, found), strict=True))


def agreements(judged: Mapping[str, Judged]) -> dict[str, dict[str, list[float]]]:
    """Agreement between all judges, and between the labelers within a group of each.

    Returns:
      `with_ties`, `without_ties` and `tau` by "JUDGE, JUDGE" and by "JUDGE: GROUP",
      each [value, low, high]; of groups also the `alphas`, and for the groups of the
      paper `paper`, [value, what stands after ±].
    """
    out: dict[str, dict[str, list[float]]] = {}
    for (key, one), (other, two) in itertools.combinations(judged.items(), 2):
        # The name of the judge tells its labelers from those of another.
        ours, theirs = _named(one.judgements, key), _named(two.judgements, other)
        out[f"{key}, {other}"] = _plain(agreement(ours, theirs))
    for key, one in judged.items():
        for group in dict.fromkeys(x.group for x in one.judgements):
            part = [x for x in one.judgements if x.group == group]
            found = _plain(agreement(part, part))
            if found:
                found |= _plain(alphas(part))
                found |= {"paper": list(PAPER[group])} if group in PAPER else {}
            out[f"{key}: {group or 'labelers'}"] = found
    return {name: found for name, found in out.items() if found}


def _plain(found: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: list(interval) for name, interval in found.items()}


def _named(judgements: Iterable[Judgement], judge: str) -> list[Judgement]:
    return [x._replace(labeler=f"{judge}:{x.labeler}") for x in judgements]
