"""The labelling room: the folder WORKDIR/labelling, and who works there.

    labelers.jsonl   who works here, with a group each: training or heldout
    seats.json       where each labeler works: address, login, token
    ledger.jsonl     every task that was sent, and what it was made of (ledger.py)
    work.jsonl       what came back, a line a task (fetching.py)
    refused.jsonl    what came back and could not be taken, and why
    records/         what the stages read: comparisons, demonstrations, judgements

Held-out labelers make no training data (§3.4): a labeler's group is fixed when the
labeler is first named, and never changes.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from instructgpt.data.draws import LABELERS
from instructgpt.data.origins.tables import table_rows
from instructgpt.errors import UserError
from instructgpt.labelling.seats import GROUPS, check_labelers
from instructgpt.locks import LOCK, take
from instructgpt.outputs import new_file, writing

FOLDER = "labelling"  # in a workdir
TRAINING, HELD_OUT = GROUPS


class Room:
    """The folder of one workdir's labelling.

    Attributes:
      folder: WORKDIR/labelling.
      groups: The group of each labeler, by name, in the order in which they came.
    """

    def __init__(self, workdir: str | Path):
        """Opens the room, which may be empty or missing.

        Raises:
          UserError: the file of labelers is damaged.
        """
        self.folder = Path(workdir) / FOLDER
        self.groups: dict[str, str] = {}
        self._read()

    def _read(self) -> None:
        path = self.folder / LABELERS
        self.groups = read_labelers(path) if path.exists() else {}

    @property
    def ledger(self) -> Path:
        """The file of the tasks that were sent."""
        return self.folder / "ledger.jsonl"

    @property
    def work(self) -> Path:
        """The file of what came back."""
        return self.folder / "work.jsonl"

    @property
    def refused(self) -> Path:
        """The file of what could not be taken."""
        return self.folder / "refused.jsonl"

    @property
    def records(self) -> Path:
        """The folder of the records that the stages read."""
        return self.folder / "records"

    @property
    def desks(self) -> Path:
        """The folder of plain files to and from labelers."""
        return self.folder / "desks"

    def of_group(self, group: str) -> list[str]:
        """The names of a group's labelers."""
        return [name for name, own in self.groups.items() if own == group]

    def need_labelers(self) -> None:
        """Raises UserError if nobody works here."""
        if not self.groups:
            raise UserError(
                f"{self.folder / LABELERS}: no labelers yet; name them, python -m "
                "instructgpt.label setup WORKDIR --training=NAME,NAME --heldout=NAME"
            )

    def lock(self, log: Any = print) -> None:
        """Keeps other processes from sending or fetching here until this one ends.

        Raises:
          UserError: another one is at work.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            take(self.folder / LOCK, log=log)
        self._read()

    def add(self, labelers: Mapping[str, str]) -> None:
        """Adds labelers with their groups; those that are here already may be named.

        Raises:
          UserError: a name or a group cannot be, or a labeler has another group here.
        """
        check_labelers(labelers.items(), "labelers")
        for name, group in labelers.items():
            own = self.groups.get(name, group)
            if own != group:
                raise UserError(
                    f"{self.folder / LABELERS}: labeler {name!r} is in the group "
                    f"{own!r} and cannot move to {group!r}, as held-out labelers make "
                    "no training data; take another labeler"
                )
        groups = {**self.groups, **labelers}
        check_labelers(groups.items(), "labelers")
        write_rows(
            self.folder / LABELERS,
            [{"name": name, "group": group} for name, group in groups.items()],
        )
        self.groups = groups


def read_labelers(path: Path) -> dict[str, str]:
    """Reads the groups of labelers by name: rows of JSON Lines or CSV.

    Raises:
      UserError: "PATH:LINE: what is wrong; what to do".
    """
    found: list[tuple[str, str]] = []
    with closing(table_rows(path)) as rows:
        for where, _, row in rows:
            if not isinstance(row, dict) or not {"name", "group"} <= row.keys():
                raise UserError(f"{where}: give a labeler's name and group")
            found.append((row["name"], row["group"]))
            check_labelers(found[-1:], where)
    check_labelers(found, str(path))
    return dict(found)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file of JSON Lines, whole or not at all; no rows: no file."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not text:
        with writing(path):
            path.unlink(missing_ok=True)
        return
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
