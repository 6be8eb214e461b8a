"""A server of Label Studio for the labelers of one workdir.

It listens at this machine alone unless told otherwise, keeps everything in
labelling/server/ of the workdir, and sends nothing elsewhere. Every labeler has an
account in an organisation of their own, which hides everything from the others. The
server holds a lock as long as it lives, so that its end is seen however it came.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from instructgpt.errors import UserError
from instructgpt.labelling import accounts
from instructgpt.labelling.environment import label_studio, python_of
from instructgpt.labelling.seats import (
    SEATS,
    Seat,
    check_labelers,
    read_seats,
    write_seats,
)
from instructgpt.locks import is_taken, one_at_a_time

LOOPBACK = "127.0.0.1"
_LOCK, _LOG = ".lock", "server.log"
_START, _STOP = 180.0, 15.0  # seconds that a start and a stop may take


def start(
    folder: str | Path,
    labelers: Mapping[str, str],
    *,
    host: str = LOOPBACK,
    port: int = 0,
) -> list[Seat]:
    """Starts the folder's server unless it runs, and sees to a seat for each labeler.

    Args:
      folder: The folder `labelling` of a workdir; the server keeps its database in
        server/ there and the secrets go to seats.json.
      labelers: Name -> group (training or heldout). Earlier labelers keep their seats.
      host: Address to listen at.
      port: Port to listen at; 0 takes the one of last time, or a free one.

    Returns:
      The seats of all labelers, also of earlier ones.

    Raises:
      UserError: Label Studio cannot be found or installed, or does not start; or a
        labeler has moved to another group.
    """
    folder = Path(folder).absolute()
    check_labelers(labelers, where="labelers")
    home = folder / "server"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with one_at_a_time(folder / ".start.lock"):
        known = read_seats(folder) if (folder / SEATS).exists() else []
        seats = _seats(known, labelers)
        program = label_studio()
        running = is_running(folder)
        if running:
            address = _address(home)
            if port and urlsplit(address).port != port:
                raise UserError(
                    f"{folder}: the server runs at {address}; stop it to move it to "
                    f"port {port}"
                )
        else:
            stop(folder)  # one that holds the lock and does not answer
            address = f"http://{_in_url(host)}:{_port(host, port, known)}"
        # The secrets are kept before they count, so that a killed start loses none.
        seats = [seat._replace(address=address) for seat in seats]
        write_seats(folder, seats)
        tokens = _make_accounts(program, home, host, seats)
        seats = [seat._replace(token=tokens[seat.login]) for seat in seats]
        write_seats(folder, seats)
        if not running:
            _run(program, home, host, address)
    return seats


def is_running(folder: str | Path) -> bool:
    """Whether the folder's own server answers."""
    home = Path(folder).absolute() / "server"
    return is_taken(home / _LOCK) and _answers(_address(home))


def stop(folder: str | Path) -> bool:
    """Stops the folder's server; returns whether it ran.

    Raises:
      UserError: it does not stop.
    """
    home = Path(folder).absolute() / "server"
    lock = home / _LOCK
    if not is_taken(lock):
        return False
    process = int(_owner(home).get("process", 0))
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            if process > 1:
                os.kill(process, number)
        end = time.monotonic() + _STOP
        while time.monotonic() < end:
            if not is_taken(lock):
                return True
            time.sleep(0.1)
    raise UserError(f"{home}: the server (process {process}) does not stop; end it")


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


def _environment(home: Path, host: str) -> dict[str, str]:
    """Variables of the server; those of this process do not count, but for the path."""
    settings = {
        "BASE_DATA_DIR": str(home),
        "DJANGO_DB": "sqlite",
        # Nothing is sent to Label Studio's makers, and no update is looked for.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "FEATURE_FLAGS_OFFLINE": "true",
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "ALLOW_ORGANIZATION_CREATION": "false",
        # No labeler can have the server read files of this machine.
        "LOCAL_FILES_SERVING_ENABLED": "false",
        "CORS_ALLOW_ALL_ORIGINS": "false",
        "LOG_LEVEL": "WARNING",
    }
    if host in (LOOPBACK, "localhost", "::1"):
        settings["ALLOWED_HOSTS"] = "127.0.0.1,localhost,[::1]"
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL") if k in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        **{f"LABEL_STUDIO_{name}": value for name, value in settings.items()},
    }


def _make_accounts(
    program: Path, home: Path, host: str, seats: list[Seat]
) -> dict[str, str]:
    """Login -> token of accounts, which are made if they are missing."""
    wanted = [
        {"name": seat.labeler, "login": seat.login, "password": seat.password}
        for seat in seats
    ]
    done = subprocess.run(
        [str(python_of(program)), accounts.__file__],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        env=_environment(home, host),
        cwd=home,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        raise _failure(home, done.stderr.splitlines(), "makes no accounts")
    return json.loads(lines[-1])


def _run(program: Path, home: Path, host: str, address: str) -> None:
    """Starts the server and waits until it answers."""
    url = urlsplit(address)
    log, lock = home / _LOG, home / _LOCK
    with _open(lock) as held, _open(log) as output:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = subprocess.Popen(
            [
                *(str(program), "start", "--no-browser"),
                *("--internal-host", host, "--port", str(url.port)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(home, host),
            cwd=home,
            pass_fds=[held],  # the lock lives as long as the server
            start_new_session=True,
        )
        os.ftruncate(held, 0)
        owner = {"process": process.pid, "address": address}
        os.pwrite(held, json.dumps(owner).encode(), 0)
    end = time.monotonic() + _START
    while not _answers(address):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()
            raise _failure(home, lines, "does not start")
        if time.monotonic() > end:
            process.kill()
            process.wait()
            raise UserError(
                f"{log}: Label Studio did not answer at {address} within {_START:.0f} "
                "seconds; see there for the reason, and start the same line again"
            )
        time.sleep(0.3)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    """A file that only its owner can read, opened at its end to be written on."""
    flags = os.O_RDWR | os.O_CREAT | (os.O_APPEND if path.name == _LOG else 0)
    file = os.open(path, flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _failure(home: Path, lines: list[str], what: str) -> UserError:
    said = [line.strip() for line in lines if line.strip()] or ["it gives no reason"]
    return UserError(f"{home}: Label Studio {what}: {said[-1]}; see {home / _LOG}")


def _owner(home: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((home / _LOCK).read_text())
    return {}


def _address(home: Path) -> str:
    return str(_owner(home).get("address", ""))


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def _in_url(host: str) -> str:
    """The host at which this machine itself reaches a server that listens at `host`."""
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _port(host: str, port: int, known: Iterable[Seat]) -> int:
    """A free port: the one asked for, the last one, or any.

    Raises:
      UserError: the port asked for is taken.
    """
    last = next((urlsplit(s.address).port for s in known if s.address), None)
    for candidate in (port,) if port else (last or 0, 0):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error.strerror
                continue
            return probe.getsockname()[1]
    raise UserError(
        f"port {port} of {host} cannot be listened at ({reason}); give another one"
    )
