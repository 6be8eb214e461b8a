"""Seats on a server that runs already, with the labelers' tokens from a file."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from instructgpt.data.origins.tables import table_rows
from instructgpt.errors import UserError
from instructgpt.labelling.seats import Seat

# What is said of seats at one address.
SHARED = (
    "labelers share a server: Label Studio's community edition lets every account read "
    "and change the others' tasks, also those of another organisation; to keep them "
    "apart, give each labeler an `address` of their own in the file of --tokens"
)


def given_seats(path: Path, groups: Mapping[str, str], *, address: str) -> list[Seat]:
    """The seat of each labeler.

    Args:
      path: Rows with `labeler` and `token`, and perhaps `address` and `login`.
      groups: The labelers' groups, by name.
      address: The server of rows without one.

    Raises:
      UserError: "PATH:LINE: what is wrong; what to do"; or a labeler has no token.
    """
    seats: dict[str, Seat] = {}
    with closing(table_rows(path)) as rows:
        for where, _, row in rows:
            texts = isinstance(row, dict) and all(
                isinstance(row.get(name), str) and row[name]
                for name in ("labeler", "token")
            )
            if not texts:
                raise UserError(f"{where}: give a labeler and the token of the account")
            name = row["labeler"]
            if name not in groups or name in seats:
                what = "has two rows" if name in seats else "is not among the labelers"
                raise UserError(f"{where}: {name!r} {what}; take the row out")
            seats[name] = Seat(
                labeler=name,
                group=groups[name],
                address=str(row.get("address") or address).rstrip("/"),
                login=str(row.get("login") or ""),
                password="",
                token=row["token"],
            )
    missing = groups.keys() - seats.keys()
    if missing:
        raise UserError(f"{path}: labeler {min(missing)!r} has no token; add a row")
    return [seats[name] for name in groups]
