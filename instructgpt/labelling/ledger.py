"""The ledger: what every task that was sent was made of. It never leaves the workdir.

A task's key says nothing, and its answers are shuffled. The ledger knows the record,
the order in which the answers are shown, and the model that wrote each, where that is
known. A line is written before its task is sent, and each line holds its checksum, so
that a program that is killed at any point can go on where it stopped.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from instructgpt.errors import UserError
from instructgpt.evals.preference import HELD_OUT
from instructgpt.labelling.interface import Page, Task
from instructgpt.manifest import value_checksum
from instructgpt.outputs import writing

GOLD = "gold"  # the split of items whose right answer is known
_SUM = "sum"  # field of a line that holds its checksum
_DIGITS = 16  # of the checksum, hexadecimal
_T = TypeVar("_T")


def sealed(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its checksum."""
    return {**row, _SUM: value_checksum(row)[:_DIGITS]}


def unsealed(row: dict[str, Any]) -> dict[str, Any]:
    """The row of `sealed`.

    Raises:
      ValueError: it has been changed since.
    """
    found = {k: v for k, v in row.items() if k != _SUM}
    if sealed(found) != row:
        raise ValueError("another checksum")
    return found


class Entry(NamedTuple):
    """A task that was sent.

    Attributes:
      key: Names the task; it says nothing about the rest.
      page: The kind of task.
      labeler: Whom it was sent to.
      group: The labeler's group.
      split: Of the record: train, valid, test; or gold.
      round: Number of the round of sampling and labelling, from 1.
      item: Names what is asked within page, split and round; mostly the record's id.
      record: The prompt's record, with `responses` where there are any.
      order: The answer shown at place i is `record["responses"][order[i]]`.
      models: The model that wrote each of the record's responses; empty if not known.
      gold: The right ranks of the record's responses; empty if not known.
      repeat_of: Key of the task that is asked the same labeler a second time here.
      instead_of: Key of the task that another labeler skipped.
    """

    key: str
    page: Page
    labeler: str
    group: str
    split: str
    round: int
    item: str
    record: dict[str, Any]
    order: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    repeat_of: str = ""
    instead_of: str = ""

    @property
    def place(self) -> tuple[str, int, str, str]:
        """What is asked: page, round, split and item."""
        return self.page, self.round, self.split, self.item

    @property
    def task(self) -> Task:
        """What the labeler is shown."""
        answers = self.record.get("responses", ())
        return Task(
            key=self.key,
            page=self.page,
            history=tuple(self.record.get("history") or ()),
            prompt=self.record["prompt"],
            answers=tuple(answers[i] for i in self.order),
        )

    def in_order(self, shown: Sequence[_T]) -> list[_T]:
        """What was given for the answers as shown, in the order of the record's."""
        out = list(shown)
        for place, value in zip(self.order, shown, strict=True):
            out[place] = value
        return out


class Ledger:
    """All tasks that were sent, and which of them lie on their labeler's desk.

    Attributes:
      entries: The tasks by key, in the order in which they were entered.
      placed: Keys of the tasks that were put on a desk.
    """

    def __init__(self, path: Path):
        """Reads the file, if there is one.

        Raises:
          UserError: a line is damaged.
        """
        self.entries: dict[str, Entry] = {}
        self.placed: set[str] = set()
        self._path = path
        self._whole = 0  # bytes of whole lines; a killed program may leave half a one
        if path.exists():
            self._read(path.read_bytes())

    def _read(self, content: bytes) -> None:
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                return
            try:
                self._take(unsealed(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{self._path}:{number}: damaged, or changed by hand; put back a "
                    "copy, as only the ledger knows what was sent to whom"
                ) from error
            self._whole += len(line)

    def _take(self, value: dict[str, Any]) -> None:
        if "placed" in value:
            self.placed.update(value["placed"])
            return
        sent = value["sent"]
        for name in ("order", "models", "gold"):
            sent[name] = tuple(sent.get(name, ()))
        entry = Entry(**sent)
        self.entries[entry.key] = entry

    def add(self, entries: Sequence[Entry]) -> None:
        """Enters tasks, before they are sent.

        Raises:
          UserError: a held-out labeler would make training data; or the file cannot be
            written.
        """
        for entry in entries:
            if entry.group == HELD_OUT and entry.split == "train":
                raise UserError(
                    f"{self._path}: {entry.labeler!r} is a held-out labeler and gets "
                    f"no training task; {entry.record['id']!r} is one"
                )
        usual = Entry._field_defaults
        self._append(
            {"sent": {k: v for k, v in entry._asdict().items() if v != usual.get(k)}}
            for entry in entries
        )
        self.entries.update((entry.key, entry) for entry in entries)

    def place(self, keys: Sequence[str]) -> None:
        """Notes that tasks lie on their labeler's desk."""
        if keys:
            self._append([{"placed": list(keys)}])
            self.placed.update(keys)

    def _append(self, values: Iterable[dict[str, Any]]) -> None:
        lines = []
        for value in values:
            row = sealed(json.loads(json.dumps(value)))  # tuples become lists
            lines.append(json.dumps(row).encode() + b"\n")
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.truncate(self._whole)
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
        self._whole += sum(map(len, lines))
