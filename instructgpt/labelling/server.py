"""The servers of Label Studio for the labelers of one workdir.

The community edition does not keep accounts apart: with another organisation's ids, an
account can read its tasks, change its annotations and delete both. So every labeler has
a server, with a port, an SQLite file and keys of its own. The servers listen at this
machine alone unless told otherwise, and keep everything in labelling/server/ of the
workdir. A server takes some 300 MB of memory.
"""

import functools
import os
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from instructgpt.errors import UserError
from instructgpt.labelling import process
from instructgpt.labelling.environment import label_studio
from instructgpt.labelling.process import LOOPBACK
from instructgpt.labelling.seats import (
    SEATS,
    Seat,
    check_labelers,
    read_seats,
    write_seats,
)
from instructgpt.locks import one_at_a_time


def start(
    folder: str | Path,
    labelers: Mapping[str, str],
    *,
    host: str = LOOPBACK,
    port: int = 0,
) -> list[Seat]:
    """Starts a server for each labeler, unless it runs, with an account on it.

    Args:
      folder: The folder `labelling` of a workdir; the databases lie in server/ there
        and the secrets in seats.json.
      labelers: Name -> group (training or heldout). Earlier labelers keep their seats.
      host: Address to listen at.
      port: Port of the first labeler, whom the others follow; 0 takes the ports of
        last time, and free ones for new labelers.

    Returns:
      The seats of all labelers, also of earlier ones.

    Raises:
      UserError: Label Studio cannot be found or installed, or does not start; or a
        labeler has moved to another group.
    """
    folder = Path(folder).absolute()
    check_labelers(labelers.items(), "labelers")
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / ".start.lock"):
        known = read_seats(folder) if _has_seats(folder) else []
        seats = _seats(known, labelers)
        program = label_studio()
        seats = _addressed(folder, seats, host, port)
        # The secrets are kept before they count, so that a killed start loses none.
        write_seats(folder, seats)
        blank = process.make_blank(program, folder / "server" / ".blank")
        serve = functools.partial(_serve, program, folder, host, blank)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            seats = list(pool.map(serve, seats))
        write_seats(folder, seats)
    return seats


def is_running(folder: str | Path) -> bool:
    """Whether the folder has servers of its own, and all of them answer."""
    folder = Path(folder).absolute()
    return has_own(folder) and all(
        process.running_at(_home(folder, seat))
        for seat in read_seats(folder)
        if seat.login
    )


def has_own(folder: str | Path) -> bool:
    """Whether the folder has seats on servers of its own."""
    folder = Path(folder)
    return _has_seats(folder) and any(seat.login for seat in read_seats(folder))


def stop(folder: str | Path) -> bool:
    """Stops the folder's servers; returns whether any ran.

    Raises:
      UserError: one does not stop.
    """
    homes = sorted((Path(folder).absolute() / "server").glob("*/"))
    stopped = [process.stop(home) for home in homes]
    return any(stopped)


def _has_seats(folder: Path) -> bool:
    return (folder / SEATS).exists()


def _home(folder: Path, seat: Seat) -> Path:
    """The folder of a labeler's server."""
    return folder / "server" / seat.login.partition("@")[0]


def _seats(known: Iterable[Seat], labelers: Mapping[str, str]) -> list[Seat]:
    """The seats of earlier labelers, and new ones with new secrets."""
    seats = {seat.labeler: seat for seat in known}
    for name, group in labelers.items():
        if name not in seats:
            taken = {seat.login for seat in seats.values()}
            password = secrets.token_urlsafe(12)
            seats[name] = Seat(name, group, "", _login(name, taken), password, "")
        elif seats[name].group != group:
            raise UserError(
                f"labeler {name!r} is in the group {seats[name].group!r} and cannot "
                f"become one of {group!r}; give the labeler another name"
            )
    return list(seats.values())


def _login(name: str, taken: set[str]) -> str:
    """An e-mail that no other labeler has; nothing is ever sent there."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "labeler"
    numbers = (f"{slug}{number or ''}@localhost" for number in range(len(taken) + 1))
    return next(login for login in numbers if login not in taken)


def _addressed(folder: Path, seats: list[Seat], host: str, port: int) -> list[Seat]:
    """The seats with the addresses that their servers have or will have.

    Raises:
      UserError: a port that was asked for is taken, or a server runs at another one.
    """
    asked = iter(range(port, port + len(seats)))
    placed: list[Seat] = []
    with Ports(host) as ports:
        for seat in seats:
            if not seat.login:  # on a server that is not ours
                placed.append(seat)
                continue
            wanted = next(asked) if port else 0
            address = process.running_at(_home(folder, seat))
            if address and wanted and urlsplit(address).port != wanted:
                raise UserError(
                    f"{folder}: the server of {seat.labeler!r} runs at {address}; stop "
                    f"the servers to move it to port {wanted}"
                )
            if not address:
                last = urlsplit(seat.address).port or 0
                address = f"http://{_in_url(host)}:{ports.take(wanted, last)}"
            placed.append(seat._replace(address=address))
    return placed


def _serve(program: Path, folder: Path, host: str, blank: Path, seat: Seat) -> Seat:
    """Sees to it that the seat's server runs and has its account."""
    if not seat.login:
        return seat
    home = _home(folder, seat)
    running = process.running_at(home)
    if not running:
        process.stop(home)  # one that lives and does not answer
    if not running or not seat.token:
        token = process.make_account(program, home, host, seat, blank=blank)
        seat = seat._replace(token=token)
    if not running:
        process.run(program, home, host, seat.address)
    return seat


def _in_url(host: str) -> str:
    """The host at which this machine itself reaches a server that listens at `host`."""
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


class Ports:
    """Free ports of an address, each given once; they are held until the block ends."""

    def __init__(self, host: str):
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._held: list[socket.socket] = []

    def __enter__(self) -> "Ports":
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._held:
            probe.close()

    def take(self, wanted: int, last: int) -> int:
        """The wanted port; or, if that is 0, the last one if it is free, or any.

        Raises:
          UserError: the wanted port is taken.
        """
        for candidate in (wanted,) if wanted else (last, 0):
            probe = socket.socket(self._family)
            self._held.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, candidate))
            except OSError as error:
                reason = error.strerror
                continue
            return probe.getsockname()[1]
        raise UserError(
            f"port {wanted} of {self._host} cannot be listened at ({reason}); give "
            "another one"
        )
