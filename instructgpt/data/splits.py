"""Which split a record goes to: its set's own where there is one, else by a hash.

Records that begin with the same turn stay together, over all kinds and sets, so that
no prompt, dialogue or conversation tree lies in two splits.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from instructgpt.data.records import SPLITS, Record


class Placed(NamedTuple):
    """What decides about a record.

    Attributes:
      group: of `group_of`.
      split: its set's own split, or None.
      own: the splits that its set has; the others are cut out of `train`.
    """

    group: str
    split: str | None
    own: frozenset[str]


def group_of(record: Record) -> str:
    """What records must share to stay together: the first turn, or a whole document.

    Letter case and the number of blanks make no difference.
    """
    text = record.get("text") or [*record.get("history", ()), record["prompt"]][0]
    return " ".join(text.split()).casefold()


def split_groups(
    records: Iterable[Placed], *, shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """The split of each group.

    A group goes to the most held-out split that any of its records asks for: test
    before valid before train. So held-out files stay held out, and a set's train file
    loses what another set tests.

    Args:
      records: all of them, of all kinds.
      shares: of groups for "valid" and "test", each between 0 and 1, where a set has
        no such split of its own.
      seed: draws another split.
    """
    splits: dict[str, str] = {}
    for record in records:
        wanted = record.split or "train"
        if wanted == "train":
            wanted = _draw(record, shares, seed)
        known = splits.get(record.group, "train")
        splits[record.group] = max(known, wanted, key=SPLITS.index)
    return splits


def share_for(
    split: str, records: Sequence[Placed], *, shares: Mapping[str, float], seed: int
) -> float | None:
    """A share with which a split gets records, and train keeps some; None: none does.

    Args:
      split: "valid" or "test", which is empty with `shares`.
      records: as of `split_groups`.
      shares: of the other splits.
      seed: as of `split_groups`.
    """
    others = {name: share for name, share in shares.items() if name != split}
    for share in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        if share + sum(others.values()) < 1:
            drawn = split_groups(records, shares={**others, split: share}, seed=seed)
            if {split, "train"} <= set(drawn.values()):
                return share
    return None


def fraction(text: str, seed: int) -> float:
    """A number in [0, 1) that looks random but follows from the text and the seed."""
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _draw(record: Placed, shares: Mapping[str, float], seed: int) -> str:
    # The shares lie one after the other and do not move with `own`, so that a group
    # that several sets share is mostly drawn alike.
    number, above = fraction(record.group, seed), 0.0
    for split in ("test", "valid"):
        above += shares.get(split, 0.0)
        if number < above:
            return "train" if split in record.own else split
    return "train"
