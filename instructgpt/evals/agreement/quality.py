"""The quality of each labeler's work, and the rules by which a labeler is flagged.

A flag is a reason to look at a labeler's work, no verdict: each rule also flags some
who work well. `Rules` says how often.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instructgpt.evals.agreement.overall import Comparison, by_prompt, group_place
from instructgpt.evals.agreement.pairs import compare, kendall_tau, rates, signs
from instructgpt.evals.agreement.rows import Ranked
from instructgpt.evals.intervals import ratio_interval

DRAWS = 999  # of a permutation test
_AT_ONCE = 20_000  # rankings that are shuffled together
PARTS = 3  # thirds of a labeler's time


class Rules(NamedTuple):
    """When a labeler is flagged.

    Attributes:
      level: How often a labeler who does nothing wrong is flagged by each of the two
        permutation tests, for drift and for the displayed order.
      min_tasks: With fewer tasks than this, none of the rules on tasks flags anybody.
      rushed: A task is rushed if it takes less than this share of the time that others
        take for as many words.
      rushed_share: A labeler rushes if at least this share of the tasks is rushed. If
        labelers' usual speeds differ by 35 % (the standard deviation of the logarithm)
        and one's tasks by 50 %, fewer than 2 % are flagged.
      gold: A labeler misses gold if the interval of the share of gold pairs ordered
        right lies below this. Who orders just this share right is flagged in fewer than
        5 % of cases, who orders more right in fewer.
    """

    level: float = 0.01
    min_tasks: int = 10
    rushed: float = 1 / 3
    rushed_share: float = 1 / 3
    gold: float = 0.75

    def in_words(self) -> dict[str, str]:
        """Each flag with its rule."""
        rushed, share, level, gold = (
            f"{100 * x:.3g} %"
            for x in (self.rushed, self.rushed_share, self.level, self.gold)
        )
        return {
            "rushes": (
                f"at least {share} of the tasks took less than {rushed} of the time "
                "that others take for as many words"
            ),
            "follows the displayed order": (
                "the ranks go with the order in which answers were shown, or against "
                f"it, more than in all but {level} of random orders"
            ),
            "drifts away": (
                "agreement with the others falls from the first third of the tasks to "
                f"the last, more than in all but {level} of random orders"
            ),
            "misses gold": (
                "the interval of the share of gold pairs ordered right lies below "
                f"{gold}"
            ),
        }


RULES = Rules()


def by_labeler(
    rows: Sequence[Ranked], found: Sequence[Comparison], rules: Rules = RULES
) -> dict[str, dict[str, Any]]:
    """What each labeler's work is like.

    Args:
      rows: Checked rows of all labelers.
      found: The comparisons of these rows.
      rules: When a labeler is flagged.

    Returns:
      By the labeler's name, sorted by group: `group`; numbers of `tasks`, `skipped`
      ones and `repeats`; `ties`, the share of pairs tied; `others` with `without_ties`,
      `with_ties` and `tau`, the agreement with all other labelers; and of `drift`,
      `repeated`, `gold`, `pace` and `order` those that the rows allow, see the
      functions below; and the list of `flags`.
    """
    own: dict[str, list[Ranked]] = {}
    for row in rows:
        own.setdefault(row.labeler, []).append(row)
    compared: dict[str, list[Comparison]] = {name: [] for name in own}
    for one in found:
        compared[one.first.labeler].append(one)
        compared[one.second.labeler].append(one)
    unit, paces = _paces(own)
    out = {}
    for name in sorted(own, key=lambda name: (group_place(own[name][0].group), name)):
        done = [row for row in own[name] if not row.skipped]
        tied = [signs(row.ranks) == 0 for row in done]
        found_pace = pace(name, paces, rules)
        entry: dict[str, Any] = {
            "group": own[name][0].group,
            "tasks": len(own[name]),
            "skipped": len(own[name]) - len(done),
            "repeats": sum(row.repeat for row in done),
            "ties": float(np.concatenate(tied).mean()) if tied else None,
            "others": _plain(rates(by_prompt(compared[name]))),
            "drift": drift(name, compared[name]),
            "repeated": self_agreement(done),
            "gold": gold_share(done),
            "pace": found_pace and found_pace | {"for_a": unit},
            "order": displayed_order(done),
        }
        entry = {key: x for key, x in entry.items() if x is not None}
        out[name] = entry | {"flags": _flags(entry, rules)}
    return out


def _plain(measured: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: list(interval) for name, interval in measured.items()}


def _flags(entry: Mapping[str, Any], rules: Rules) -> list[str]:
    rushed, order, drifted = (
        entry.get(name, {"tasks": 0}) for name in ("pace", "order", "drift")
    )
    gold = entry.get("gold")
    given = {
        "rushes": rushed["tasks"] >= rules.min_tasks
        and rushed["rushed"] >= rules.rushed_share,
        "follows the displayed order": order["tasks"] >= rules.min_tasks
        and order["p"] <= rules.level,
        "drifts away": drifted["tasks"] >= rules.min_tasks
        and drifted["p"] <= rules.level,
        "misses gold": gold is not None and gold[2] < rules.gold,
    }
    return [flag for flag, is_given in given.items() if is_given]


def drift(labeler: str, found: Iterable[Comparison]) -> dict[str, Any] | None:
    """How a labeler's agreement with the others changes over the labeler's tasks.

    The tasks that others have ranked too are cut into thirds, in the order in which the
    labeler handed them in.

    Returns:
      `thirds`, the agreement without ties [value, low, high] in each; `change`, the
      last less the first; `p`, how often the change is as low or lower if the order of
      the tasks is random (of 999 draws and this one); and the number of `tasks`. None
      without times, or if a third has no pair that neither ties.
    """
    counts: dict[str, np.ndarray] = {}
    times: dict[str, float] = {}
    for one in found:
        row = one.of(labeler)
        if row is not None:
            times[row.id] = row.time
            total = counts.setdefault(row.id, np.zeros(2))
            total += one.counts[:2]
    ordered = sorted(counts, key=lambda name: times[name])
    parts = np.array_split(np.arange(len(ordered)), PARTS)
    if not ordered or np.isnan(list(times.values())).any():
        return None
    table = np.stack([counts[name] for name in ordered])
    if any(not table[part, 1].sum() for part in parts):
        return None
    thirds = [ratio_interval(*table[part].T) for part in parts]
    change = thirds[-1].value - thirds[0].value
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(len(ordered)), (DRAWS, 1)), axis=1)
    first, last = (table[order[:, part]].sum(1) for part in (parts[0], parts[-1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = last[:, 0] / last[:, 1] - first[:, 0] / first[:, 1]
    return {
        "thirds": [list(third) for third in thirds],
        "change": change,
        # A draw in which a third has no pair counts for the labeler.
        "p": float((1 + (~(drawn > change + 1e-12)).sum()) / (1 + DRAWS)),
        "tasks": len(ordered),
    }


def self_agreement(rows: Iterable[Ranked]) -> dict[str, list[float]] | None:
    """How a labeler's repeats agree with the labeler's first ranking of the answers.

    Returns:
      The `rates` over the repeated tasks; None if there is none.
    """
    first: dict[str, Ranked] = {}
    repeats = []
    for row in rows:
        if row.repeat:
            repeats.append(row)
        else:
            first[row.id] = row
    tables: dict[str, np.ndarray] = {}
    for row in repeats:
        if row.id in first:
            counts = compare(signs(first[row.id].ranks), signs(row.ranks))
            tables[row.id] = tables.get(row.id, 0) + counts
    return _plain(rates(np.stack(list(tables.values())))) if tables else None


def gold_share(rows: Iterable[Ranked]) -> list[float] | None:
    """The share of gold pairs that a labeler orders right, [value, low, high].

    Counted are the pairs that the gold ranks do not tie; one that the labeler ties is
    half right. None if there is no such pair.
    """
    right: dict[str, float] = {}
    pairs: dict[str, float] = {}
    for row in rows:
        if row.gold:
            ours, truth = signs(row.ranks), signs(row.gold)
            untied = truth != 0
            share = (1 + ours * truth)[untied].sum() / 2
            right[row.id] = right.get(row.id, 0.0) + share
            pairs[row.id] = pairs.get(row.id, 0.0) + untied.sum()
    if not sum(pairs.values()):
        return None
    return list(ratio_interval(list(right.values()), list(pairs.values())))


def _paces(own: Mapping[str, Sequence[Ranked]]) -> tuple[str, dict[str, np.ndarray]]:
    """For what seconds are taken, a "word" or a "task", and those of each labeler.

    The seconds [tasks] are for a word shown, if words are known for all timed tasks.
    """
    timed = {
        name: [row for row in rows if row.seconds and not row.skipped]
        for name, rows in own.items()
    }
    by_word = all(row.words for rows in timed.values() for row in rows)
    return "word" if by_word else "task", {
        name: np.array([row.seconds / (row.words if by_word else 1) for row in rows])
        for name, rows in timed.items()
        if rows
    }


def pace(
    labeler: str, paces: Mapping[str, np.ndarray], rules: Rules
) -> dict[str, Any] | None:
    """How fast a labeler works beside the others.

    The others' pace is the median of their medians, so that a labeler with many tasks
    counts once.

    Args:
      labeler: The name.
      paces: Seconds for each word shown, of each task by labeler; for each task, if
        words are not known for all.
      rules: What a rushed task is.

    Returns:
      `median` and the middle 80 % of tasks (`low`, `high`) of the labeler's seconds,
      the median of the `others`, the share of tasks that are `rushed`, and the number
      of `tasks`; None if no other labeler's times are known.
    """
    others = [float(np.median(x)) for name, x in paces.items() if name != labeler]
    if labeler not in paces or not others:
        return None
    ours, usual = paces[labeler], float(np.median(others))
    low, median, high = np.quantile(ours, [0.1, 0.5, 0.9])
    return {
        "median": float(median),
        "low": float(low),
        "high": float(high),
        "others": usual,
        "rushed": float((ours < rules.rushed * usual).mean()),
        "tasks": len(ours),
    }


def displayed_order(rows: Iterable[Ranked]) -> dict[str, Any] | None:
    """Whether a labeler's ranks go with the order in which answers were shown.

    Answers are shuffled before they are shown, so an honest ranking does not depend on
    their places.

    Returns:
      `tau`, the mean over tasks of Kendall's tau-b of rank and place, 1 if the first
      shown is always best; the middle 95 % of it in random orders (`low`, `high`); `p`,
      how often a random order gives as large a tau of either sign (of 999 draws and
      this one); and the number of `tasks`, without those where all answers are tied.
      None if no shown order is known.
    """
    sizes: dict[int, list[list[int]]] = {}
    for row in rows:
        if row.shown and len(set(row.ranks)) > 1:
            given = [row.ranks[answer] for answer in row.shown]
            sizes.setdefault(len(given), []).append(given)
    if not sizes:
        return None
    rng = np.random.default_rng(0)
    total, drawn, tasks = 0.0, np.zeros(DRAWS), 0
    for size, tables in sizes.items():
        ranks = np.array(tables)
        in_place = signs(np.arange(size))
        total += float(kendall_tau(signs(ranks), in_place).sum())
        step = max(1, _AT_ONCE // len(ranks))
        for start in range(0, DRAWS, step):
            part = drawn[start : start + step]  # a view
            shuffled = np.tile(ranks, (len(part), 1, 1))
            shuffled = rng.permuted(shuffled, axis=2)
            part += kendall_tau(signs(shuffled), in_place).sum(1)
        tasks += len(ranks)
    extreme = np.abs(drawn) >= abs(total) - 1e-9
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "tau": total / tasks,
        "low": float(low) / tasks,
        "high": float(high) / tasks,
        "p": float((1 + extreme.sum()) / (1 + DRAWS)),
        "tasks": tasks,
    }
