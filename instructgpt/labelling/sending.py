"""Sends tasks to labelers: spread evenly, shuffled, blinded, and nothing twice.

What is to be asked is compared with the ledger, and only what is new is entered there
and put on desks. So a program that was killed in the middle is started again with the
same arguments, and does the rest.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from instructgpt.errors import UserError, about
from instructgpt.labelling.interface import Desk, Page
from instructgpt.labelling.items import Item, check_items
from instructgpt.labelling.ledger import GOLD, Entry, Ledger
from instructgpt.labelling.room import Room
from instructgpt.labelling.spreading import digest, least_busy, name_draw

AT_ONCE = 1000  # tasks that are put on a desk in one call
MAX_HANDED_ON = 2  # how often a task may go on to another labeler after a skip
_Place = tuple[str, int, str, str]


class Plan(NamedTuple):
    """What is to be sent, and what cannot be."""

    entries: list[Entry]
    handed_on: list[Entry]  # those of `entries` that somebody else skipped
    given_up: list[Entry]  # tasks that were skipped, and go to nobody else


def plan(
    items: Sequence[Item],
    room: Room,
    ledger: Ledger,
    *,
    seed: int = 0,
    round_number: int = 1,
    repeats: float = 0.0,
    skipped: Iterable[str] = (),
) -> Plan:
    """Decides who is asked what that is not in the ledger yet.

    Args:
      items: What is to be asked.
      room: Who works here.
      ledger: What was sent before.
      seed: Seed of who is asked, of the order of answers and of keys.
      round_number: Number of the round, from 1.
      repeats: Share of the tasks that the same labeler is asked a second time.
      skipped: Keys of the tasks that were skipped; each goes to another labeler, at
        most twice in a row.

    Raises:
      UserError: an item cannot be asked, or is not what was sent before.
    """
    if not 0 <= repeats <= 1:
        raise UserError(f"--repeats={repeats:g}: give a share from 0 to 1")
    check_items(items, room)
    made = _Planner(room, ledger, seed, round_number, frozenset(skipped))
    for item in items:
        made.ask(item)
    made.repeat(repeats)
    return Plan(made.entries, made.handed_on, made.given_up)


class _Planner:
    def __init__(
        self,
        room: Room,
        ledger: Ledger,
        seed: int,
        round_number: int,
        skipped: frozenset[str],
    ):
        self._room, self._ledger = room, ledger
        self._seed, self._round, self._skipped = seed, round_number, skipped
        self.entries: list[Entry] = []
        self.handed_on: list[Entry] = []
        self.given_up: list[Entry] = []
        self._asked: dict[_Place, list[Entry]] = defaultdict(list)
        # Tasks by labeler, of each page, round, split and group.
        self._busy: dict[tuple[str, int, str, str], Counter[str]]
        self._busy = defaultdict(Counter)
        self._known: set[str] = set()
        for entry in ledger.entries.values():
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        self._known.add(entry.key)
        if entry.repeat_of:
            return
        self._asked[entry.place].append(entry)
        pool = (entry.page, entry.round, entry.split, entry.group)
        self._busy[pool][entry.labeler] += 1

    def ask(self, item: Item) -> None:
        """Adds the tasks that this item still needs."""
        place = (item.page, self._round, item.split, item.name)
        for group, each in item.each.items():
            before = [one for one in self._asked[place] if one.group == group]
            if before and _question(before[0].record) != _question(item.record):
                raise UserError(
                    f"{item.split} {item.page} {item.name!r}: its prompt or answers "
                    f"are not those that were sent in round {self._round}; give "
                    f"--round={self._round + 1} for new answers"
                )
            first = sum(not one.instead_of for one in before)
            for name in self._free(item, group, each - first):
                self._enter(item, name, group)
            for one in before:
                if one.key in self._skipped:
                    self._hand_on(item, one)

    def _free(self, item: Item, group: str, number: int) -> list[str]:
        """Labelers of the group who were not asked this yet, the least busy ones."""
        if number <= 0:
            return []
        place = (item.page, self._round, item.split, item.name)
        asked = {one.labeler for one in self._asked[place]}
        draw = name_draw(self._seed, split=item.split, group=group, item=item.name)
        return least_busy(
            [name for name in self._room.of_group(group) if name not in asked],
            self._busy[item.page, self._round, item.split, group],
            number,
            draw=draw,
        )

    def _hand_on(self, item: Item, entry: Entry) -> None:
        """Gives a skipped task to another labeler, if it was not handed on too often.

        Everybody is asked a gold item, so that has nobody to be handed on to.
        """
        place = self._asked[entry.place]
        if item.split == GOLD or any(x.instead_of == entry.key for x in place):
            return
        before, turns = {one.key: one for one in place}, 0
        last = entry
        while last.instead_of:
            last, turns = before[last.instead_of], turns + 1
        free = self._free(item, entry.group, 1) if turns < MAX_HANDED_ON else []
        for name in free:
            self._enter(item, name, entry.group, instead_of=entry.key)
            self.handed_on.append(self.entries[-1])
        if not free:
            self.given_up.append(entry)

    def _enter(
        self, item: Item, labeler: str, group: str, *, instead_of: str = ""
    ) -> None:
        parts = (item.page, self._round, item.split, item.name, labeler)
        entry = Entry(
            key=digest("task", self._seed, *parts)[:16],
            page=item.page,
            labeler=labeler,
            group=group,
            split=item.split,
            round=self._round,
            item=item.name,
            record=item.record,
            models=item.models,
            gold=item.gold,
            instead_of=instead_of,
        )
        self._add(entry)

    def _add(self, entry: Entry) -> None:
        order = list(range(len(entry.record.get("responses", ()))))
        random.Random(f"order {self._seed} {entry.key}").shuffle(order)
        entry = entry._replace(order=tuple(order))
        self.entries.append(entry)
        self._note(entry)

    def repeat(self, share: float) -> None:
        """Asks a share of the round's tasks a second time."""
        everything = [*self._ledger.entries.values(), *self.entries]
        for entry in everything:
            key = digest("again", entry.key)[:16]
            drawn = int(digest("repeat", self._seed, entry.key)[:8], 16) / 2**32
            if (
                drawn < share
                and entry.round == self._round
                and entry.page != "demonstration"
                and entry.split != GOLD
                and not (entry.repeat_of or entry.instead_of)
                and key not in self._known
            ):
                self._add(entry._replace(key=key, repeat_of=entry.key, instead_of=""))


def _question(record: Mapping[str, object]) -> list[object]:
    """What labelers see of a record."""
    return [
        list(record.get("history") or ()),  # type: ignore[call-overload]
        record["prompt"],
        list(record.get("responses") or ()),  # type: ignore[call-overload]
    ]


class Delivered(NamedTuple):
    """What was put on desks now.

    Attributes:
      counts: Number of tasks, by labeler and page.
      failed: For each labeler whose desk failed, what it said.
    """

    counts: Counter[tuple[str, Page]]
    failed: dict[str, str]


def deliver(ledger: Ledger, desks: Mapping[str, Desk]) -> Delivered:
    """Puts all tasks on desks that are not there yet, in an order that says nothing.

    Args:
      ledger: What is to be sent; it notes what lies on a desk.
      desks: By labeler.

    Returns:
      What was put there. A desk that fails keeps no other waiting.

    Raises:
      UserError: a labeler has no desk.
    """
    waiting: dict[tuple[str, Page], list[Entry]] = defaultdict(list)
    for entry in ledger.entries.values():
        if entry.key not in ledger.placed:
            waiting[entry.labeler, entry.page].append(entry)
    for labeler, _ in waiting:
        if labeler not in desks:
            raise UserError(
                f"labeler {labeler!r} has tasks and no desk; run python -m "
                "instructgpt.label setup WORKDIR again"
            )
    failed: dict[str, str] = {}
    counts: Counter[tuple[str, Page]] = Counter()
    for (labeler, page), entries in waiting.items():
        # A second look at a task comes late. Keys are in no order that has a meaning.
        entries.sort(key=lambda one: (bool(one.repeat_of), one.key))
        for start in range(0, len(entries), AT_ONCE):
            part = entries[start : start + AT_ONCE]
            if labeler in failed:
                break
            try:
                with about(f"desk of {labeler}"):
                    desks[labeler].put(part[0].page, [one.task for one in part])
            except UserError as error:
                failed[labeler] = str(error)
            else:
                ledger.place([one.key for one in part])
                counts[labeler, page] += len(part)
    return Delivered(counts, failed)
