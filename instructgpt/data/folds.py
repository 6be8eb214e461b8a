"""Cuts of rankings by their labelers, for cross-validation (paper §4.1, E.2)."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from instructgpt.data.records import Record
from instructgpt.errors import UserError


class Fold(NamedTuple):
    """Rankings for training, and two sets whose prompts are not among them."""

    train: list[Record]  # by labelers of the training groups
    same: list[Record]  # by labelers of the training groups
    other: list[Record]  # by labelers of the group that is left out


def labeler_groups(
    rankings: Sequence[Record], number: int, *, rng: np.random.Generator
) -> list[list[str]]:
    """Cuts the labelers of rankings into groups with about equally many rankings.

    Labelers with the most rankings come first, each into the group that has the fewest
    so far; the generator orders labelers with equally many.

    Args:
      rankings: Comparisons, each with the name of its `labeler`.
      number: Number of groups.
      rng: Generator of the order.

    Raises:
      UserError: a ranking has no single labeler, or there are fewer labelers than
        groups.
    """
    counts = Counter(row["labeler"] for row in rankings)
    for row in rankings:
        if not row["labeler"]:
            raise UserError(
                f"ranking {row['id']!r} has no labeler; give each ranking the name of "
                "its labeler in the field `labeler`"
            )
        if "+" in row["labeler"]:
            raise UserError(
                f"ranking {row['id']!r} is the mean of several labelers, "
                f"{row['labeler']}, who may be of different groups; rank with "
                "config.label.train_labelers=1"
            )
    if len(counts) < number:
        raise UserError(
            f"the rankings are of {len(counts)} labelers, and {number} groups need as "
            f"many or more; give config.folds.num_folds={max(2, len(counts))} or "
            "rankings of more labelers"
        )
    names = [sorted(counts)[i] for i in rng.permutation(len(counts))]
    groups: list[list[str]] = [[] for _ in range(number)]
    sizes = [0] * number
    for name in sorted(names, key=lambda name: -counts[name]):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(name)
        sizes[smallest] += counts[name]
    return groups


def cut_fold(
    rankings: Sequence[Record],
    left_out: Collection[str],
    *,
    share: float,
    rng: np.random.Generator,
) -> Fold:
    """Cuts rankings into those of a fold's training and two measured sets.

    No prompt of a measured ranking, with its history, is in the training set.

    Args:
      rankings: Comparisons.
      left_out: The labelers of the group that is left out.
      share: Share of the prompts of the training groups that are measured.
      rng: Generator that draws these prompts.

    Raises:
      UserError: one of the three sets would be empty.
    """
    inside = [row for row in rankings if row["labeler"] not in left_out]
    prompts = sorted({_prompt(row) for row in inside})
    count = max(1, round(share * len(prompts)))
    drawn = rng.permutation(len(prompts))[:count]
    measured = {prompts[i] for i in drawn}
    seen = set(prompts) - measured
    fold = Fold(
        train=[row for row in inside if _prompt(row) in seen],
        same=[row for row in inside if _prompt(row) in measured],
        other=[
            row
            for row in rankings
            if row["labeler"] in left_out and _prompt(row) not in seen
        ],
    )
    if not all(fold):
        raise UserError(
            f"rankings of {len(prompts)} prompts: with "
            f"config.folds.measured={share} a fold has {len(fold.train)} rankings to "
            f"train on, {len(fold.same)} of the same labelers and {len(fold.other)} of "
            "the group left out to measure, whose prompts are not in training; change "
            "config.folds.measured, or give more rankings"
        )
    return fold


def _prompt(row: Record) -> tuple[str, ...]:
    return (*row["history"], row["prompt"])
