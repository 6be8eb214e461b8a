"""The rows from which agreement and quality are computed: one ranking by one labeler.

K answers to a prompt are numbered the same way for all labelers, however they were
shuffled when they were shown.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from instructgpt.data.records import is_ranking
from instructgpt.errors import UserError, shown
from instructgpt.evals.judgements import LIKERT


class Ranked(NamedTuple):
    """What one labeler gave for one ranking task, or that it was skipped.

    Attributes:
      id: Names what was ranked: rows with this id have the same K answers. Tasks of
        another page, round or split have another id.
      labeler: Who ranked.
      ranks: The K ranks by the answer's number, 1 is best, equal ranks are a tie; empty
        if the task was skipped.
      group: The labeler's group, such as training or heldout.
      category: The prompt's use case.
      shown: The answer shown at place i has the number shown[i]; empty if not known.
      when: When it was handed in, ISO 8601; without a time zone it is UTC. Empty if not
        known.
      seconds: Time spent; 0 if not known.
      words: Number of words shown, of the prompt and the answers; 0 if not known.
      gold: The right ranks, of an item whose answer is known; else empty.
      repeat: Whether the labeler has been given this before.
      likert: Likert scores by the answer's number, None for one that was not rated;
        empty if none was.
    """

    id: str
    labeler: str
    ranks: tuple[int, ...] = ()
    group: str = ""
    category: str = ""
    shown: tuple[int, ...] = ()
    when: str = ""
    seconds: float = 0.0
    words: int = 0
    gold: tuple[int, ...] = ()
    repeat: bool = False
    likert: tuple[float | None, ...] = ()

    @property
    def skipped(self) -> bool:
        """Whether there is no ranking."""
        return not self.ranks

    @property
    def compared(self) -> bool:
        """Whether it is compared with other labelers' rankings.

        Repeats are not, as each labeler counts once; nor are gold items, which are
        chosen so that their order is clear, and would raise the agreement.
        """
        return not (self.skipped or self.repeat or self.gold)

    @property
    def time(self) -> float:
        """Seconds since 1970 at which it was handed in; NaN if not known."""
        if not self.when:
            return math.nan
        time = datetime.fromisoformat(self.when)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def check_rows(rows: Iterable[Ranked]) -> list[Ranked]:
    """Returns the rows, or raises UserError that names the first wrong one.

    Raises:
      UserError: ranks that are no ranking; a shown order, gold ranks or Likert scores
        that do not fit the answers; a time that is none; two rows with an id and
        different numbers of answers; the same ranking twice, not marked as a repeat; a
        labeler in two groups; or no row.
    """
    found = list(rows)
    if not found:
        raise UserError("no rankings; give the rows of finished tasks")
    sizes: dict[str, int] = {}
    groups: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(found, start=1):
        where = f"ranking {number} ({row.labeler!r} on {row.id!r})"
        reason = _why_not(row)
        if reason:
            raise UserError(f"{where}: {reason}")
        if groups.setdefault(row.labeler, row.group) != row.group:
            raise UserError(
                f"{where}: in the group {row.group!r}, and in "
                f"{groups[row.labeler]!r} before; give each labeler one group"
            )
        if row.skipped:
            continue
        size = sizes.setdefault(row.id, len(row.ranks))
        if size != len(row.ranks):
            raise UserError(
                f"{where}: {len(row.ranks)} answers, and {size} in an earlier row of "
                "this id; give an id to each set of answers"
            )
        if not row.repeat and (row.id, row.labeler) in seen:
            raise UserError(
                f"{where}: ranked before by this labeler; mark the later row as a "
                "repeat"
            )
        seen.add((row.id, row.labeler))
    return found


def _why_not(row: Ranked) -> str | None:
    """What is wrong with a row by itself."""
    size = len(row.ranks)
    if not row.id or not row.labeler:
        return "has no id or no labeler"
    try:
        known_time = not row.when or math.isfinite(row.time)
    except ValueError:
        known_time = False
    if not known_time:
        return f"when is {shown(row.when)}; give a time as 2022-01-27T09:30:00Z"
    if not 0 <= row.seconds < math.inf or row.words < 0:
        return f"{row.seconds} seconds for {row.words} words; give 0 if not known"
    if row.skipped:
        return None
    if size < 2:
        return f"{size} answer; a ranking needs two or more"
    for name, ranks in (("ranks", row.ranks), ("gold", row.gold)):
        if ranks and not is_ranking(ranks):
            return f"{name} {shown(list(ranks))} are no ranking; number from 1 (best)"
    for name in ("shown", "gold", "likert"):
        given = getattr(row, name)
        if given and len(given) != size:
            return f"{name} has {len(given)} values for {size} answers"
    if row.shown and sorted(row.shown) != list(range(size)):
        order = shown(list(row.shown))
        return f"shown is {order}, no order of the answers 0 to {size - 1}"
    low, high = LIKERT
    for score in row.likert:
        if score is not None and not low <= score <= high:
            return f"a Likert score is {shown(score)}; give {low:.0f} to {high:.0f}"
    return None
