"""Who is asked: work is spread evenly over labelers, the same way for the same seed."""

import hashlib
from collections import Counter
from collections.abc import Sequence


def digest(*parts: object) -> str:
    """SHA-256 of the parts, 64 hexadecimal digits."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def least_busy(
    labelers: Sequence[str], busy: Counter[str], number: int, *, draw: str
) -> list[str]:
    """The labelers who have been given least; a draw decides among equals.

    Args:
      labelers: Names of those who may be asked.
      busy: How much each has been given.
      number: How many are asked; all, if there are fewer.
      draw: Names the draw, such as the prompt's.
    """
    return sorted(labelers, key=lambda one: (busy[one], digest(draw, one)))[:number]


def name_draw(seed: int, *, split: str, group: str, item: str) -> str:
    """The name of the draw of who is asked about an item."""
    return digest(seed, split, group, item)


def spread(
    ids: Sequence[str],
    labelers: Sequence[str],
    *,
    each: int,
    seed: int,
    split: str,
    group: str,
) -> list[list[str]]:
    """Assigns labelers to prompts evenly, so that nobody gets two more than another.

    Args:
      ids: Ids of N prompts.
      labelers: Names of the group's labelers.
      each: Number of labelers of a prompt; all, if there are fewer.
      seed: Seed of the draws.
      split: The prompts' split.
      group: The labelers' group.

    Returns:
      The names [N][each]. The first names do not depend on later prompts.
    """
    busy: Counter[str] = Counter()
    out = []
    for one in ids:
        draw = name_draw(seed, split=split, group=group, item=one)
        chosen = least_busy(labelers, busy, each, draw=draw)
        busy.update(chosen)
        out.append(chosen)
    return out
