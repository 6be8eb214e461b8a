"""Seats: where each labeler logs in, and with which secrets.

The seats of a workdir lie in labelling/seats.json, which only its owner can read. The
passwords and tokens in it are shown nowhere else.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.draws import HELD_OUT
from instructgpt.errors import UserError, shown
from instructgpt.outputs import new_file

SEATS = "seats.json"
GROUPS = ("training", HELD_OUT)
_NAME = re.compile(r"\w[\w.@+-]{0,59}", re.ASCII)
_REMEDY = (
    "run `python -m instructgpt.label start WORKDIR`, or `setup` with --address and "
    "--tokens"
)


class Seat(NamedTuple):
    """A labeler's account on a server of Label Studio.

    Attributes:
      labeler: Name of the labeler, which records carry.
      group: training or heldout (§3.4).
      address: The server, such as http://127.0.0.1:8080.
      login: E-mail with which the labeler logs in.
      password: The labeler's password.
      token: API token of the account.
    """

    labeler: str
    group: str
    address: str
    login: str
    password: str
    token: str

    def __repr__(self) -> str:
        """Leaves the secrets out, so that no log and no error can show them."""
        return f"Seat({self.labeler!r}, {self.group!r}, {self.address!r})"


def read_seats(folder: str | Path) -> list[Seat]:
    """Reads the seats of a folder.

    Args:
      folder: The folder `labelling` of a workdir.

    Raises:
      UserError: there are none, or the file is no list of seats.
    """
    path = Path(folder) / SEATS
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there are no labelers yet; {_REMEDY}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read; delete it and {_REMEDY}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: is no list of seats; delete it and {_REMEDY}")
    seats = [_seat(row, f"{path}: seat {number}") for number, row in enumerate(rows)]
    check_labelers(((seat.labeler, seat.group) for seat in seats), str(path))
    return seats


def write_seats(folder: str | Path, seats: Iterable[Seat]) -> None:
    """Writes the seats of a folder; nobody but the owner may read the file."""
    with new_file(Path(folder) / SEATS) as partial:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w", encoding="utf-8") as stream:
            json.dump([seat._asdict() for seat in seats], stream, indent=1)


def check_labelers(labelers: Iterable[tuple[Any, Any]], where: str) -> None:
    """Raises UserError, which begins with `where`, for names or groups that cannot be.

    A name is part of names of files, so two must not differ in letter case alone.
    """
    seen: set[str] = set()
    for name, group in labelers:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"{where}: the labeler's name is {shown(name)}; give up to 60 letters, "
                "digits or any of . @ + - _"
            )
        if group not in GROUPS:
            raise UserError(
                f"{where}: the group of {name!r} is {shown(group)}; give "
                f"{' or '.join(GROUPS)}"
            )
        if name.casefold() in seen:
            raise UserError(f"{where}: labeler {name!r} is named twice; leave one out")
        seen.add(name.casefold())


def _seat(row: object, where: str) -> Seat:
    fields = row if isinstance(row, dict) else {}
    missing = [name for name in Seat._fields if not isinstance(fields.get(name), str)]
    if missing:
        raise UserError(f"{where}: {missing[0]} is not given as a text")
    unknown = sorted(fields.keys() - set(Seat._fields))
    if unknown:
        raise UserError(f"{where}: unknown field {shown(unknown[0])}")
    return Seat(**fields)
