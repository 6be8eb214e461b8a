"""Assigns records to splits: the split of the published set, else one by a hash.

Records of all kinds and sets that begin with the same turn stay together, so that no
prompt, dialogue or conversation tree is in two splits.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from instructgpt.data.records import SPLITS, Record


class Placed(NamedTuple):
    """The facts that decide about a record's split.

    Attributes:
      group: the result of `group_of`.
      split: the record's split in the published set, or None.
      own: the splits of the published set; other splits are taken from `train`.
    """

    group: str
    split: str | None
    own: frozenset[str]


def group_of(record: Record) -> str:
    """The key that records in the same split share: first turn, or whole document.

    Letter case and the number of blanks are ignored.
    """
    text = record.get("text") or [*record.get("history", ()), record["prompt"]][0]
    return " ".join(text.split()).casefold()


def join_customers(records: Sequence[Placed], customers: Sequence[str]) -> list[Placed]:
    """Joins the groups of a customer's records, so that a split has all or none (§3.2).

    Args:
      records: N records of all kinds.
      customers: The customer of each record; "" if there is none, or if the records
        keep the splits of a published set.

    Returns:
      The N records; a joined group is named by the first of its groups.
    """
    parents: dict[str, str] = {}

    def root(group: str) -> str:
        while (above := parents.get(group, group)) != group:
            parents[group] = parents.get(above, above)
            group = above
        return group

    first: dict[str, str] = {}  # customer -> a group of the customer's
    for record, customer in zip(records, customers, strict=True):
        if customer:
            one = root(first.setdefault(customer, record.group))
            other = root(record.group)
            parents[max(one, other)] = min(one, other)
    return [record._replace(group=root(record.group)) for record in records]


def split_groups(
    records: Iterable[Placed], *, shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Assigns a split to each group.

    A group goes to the most held-out split of its records: test before valid before
    train. So held-out files stay held out, and records of a train file that another set
    has in test are not trained on.

    Args:
      records: all records of all kinds.
      shares: shares of groups for "valid" and "test", each between 0 and 1, for sets
        that have no such split.
      seed: seed of the hash.
    """
    splits: dict[str, str] = {}
    for record in records:
        wanted = record.split or "train"
        if wanted == "train":
            wanted = _draw(record, shares, seed)
        known = splits.get(record.group, "train")
        splits[record.group] = max(known, wanted, key=SPLITS.index)
    return splits


def with_training(
    splits: Mapping[str, str], kinds: Iterable[Sequence[Placed]]
) -> dict[str, str]:
    """The splits, with something to train on of each kind.

    A kind whose few groups were all drawn for validation and test gets them for
    training. Groups that a published set holds out stay held out.

    Args:
      splits: the result of `split_groups`.
      kinds: the records of each kind.
    """
    out = dict(splits)
    for placed in kinds:
        if "train" not in {out[item.group] for item in placed}:
            kept = {x.group for x in placed if x.split not in (None, "train")}
            drawn = {x.group for x in placed} - kept
            out.update(dict.fromkeys(drawn, "train"))
    return out


def share_for(
    split: str, records: Sequence[Placed], *, shares: Mapping[str, float], seed: int
) -> float | None:
    """A share with which a split gets records and train keeps some; None: no share.

    Args:
      split: "valid" or "test", which is empty with `shares`.
      records: see `split_groups`.
      shares: shares of the other splits.
      seed: see `split_groups`.
    """
    others = {name: share for name, share in shares.items() if name != split}
    for share in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        if share + sum(others.values()) < 1:
            drawn = split_groups(records, shares={**others, split: share}, seed=seed)
            if {split, "train"} <= set(drawn.values()):
                return share
    return None


def fraction(text: str, seed: int) -> float:
    """A pseudo-random number in [0, 1), determined by the text and the seed."""
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _draw(record: Placed, shares: Mapping[str, float], seed: int) -> str:
    # Each split has a fixed interval that does not depend on `own`, so that a group
    # shared by several sets mostly gets the same split in all.
    number, above = fraction(record.group, seed), 0.0
    for split in ("test", "valid"):
        above += shares.get(split, 0.0)
        if number < above:
            return "train" if split in record.own else split
    return "train"
