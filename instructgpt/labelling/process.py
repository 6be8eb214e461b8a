"""One server of Label Studio: its settings, its process, its end.

A server holds a lock as long as it lives, so that its end is seen however it came.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from instructgpt.errors import UserError
from instructgpt.labelling import accounts
from instructgpt.labelling.environment import python_of
from instructgpt.labelling.seats import Seat
from instructgpt.locks import is_taken
from instructgpt.outputs import new_file

LOOPBACK = "127.0.0.1"
_LOCK, _LOG = ".lock", "server.log"
_DATABASE = "label_studio.sqlite3"  # as Label Studio names it
_START, _STOP = 300.0, 15.0  # seconds that a start and a stop may take


def make_account(
    program: Path, home: Path, host: str, seat: Seat, *, blank: Path
) -> str:
    """Makes the seat's account unless it exists; returns its API token.

    Args:
      program: The program `label-studio`.
      home: Folder of the server's files, which is made.
      host: Address at which the server is to listen.
      seat: The seat. Its password becomes the account's.
      blank: A database without accounts, from which a new server begins.

    Raises:
      UserError: Label Studio cannot do it.
    """
    database = home / _DATABASE
    if not database.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with new_file(database) as partial:
            shutil.copy(blank, partial)
    account = {"name": seat.labeler, "login": seat.login, "password": seat.password}
    return _ask(program, home, host, account)


def make_blank(program: Path, home: Path) -> Path:
    """Makes a database without accounts unless it is there; returns its path.

    To make one takes Label Studio longer than all else, so it is done once.

    Raises:
      UserError: Label Studio cannot do it.
    """
    done = home / "blank.sqlite3"
    if not done.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, mode=0o700)
        _ask(program, home, LOOPBACK, None)
        (home / _DATABASE).rename(done)
    return done


def _ask(program: Path, home: Path, host: str, account: dict[str, str] | None) -> str:
    """What the program `accounts` gives for an account."""
    done = subprocess.run(
        [str(python_of(program)), accounts.__file__],
        input=json.dumps(account),  # no other process can read it
        capture_output=True,
        text=True,
        env=_environment(home, host),
        cwd=home,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        raise _failure(home, done.stderr, "makes no account")
    return json.loads(lines[-1])


def run(program: Path, home: Path, host: str, address: str) -> None:
    """Starts a server, which outlives this process, and waits until it answers.

    Raises:
      UserError: it does not start.
    """
    port = str(urlsplit(address).port)
    log, lock = home / _LOG, home / _LOCK
    with _open(lock) as held, _open(log, os.O_APPEND) as output:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun = subprocess.run(
            [
                # The shell leaves at once, so that the server is nobody's child.
                *("/bin/sh", "-c", '"$0" "$@" </dev/null >&2 & echo $!'),
                *(str(program), "start", "--no-browser"),
                *("--internal-host", host, "--port", port),
            ],
            stdout=subprocess.PIPE,
            stderr=output,
            env=_environment(home, host),
            cwd=home,
            pass_fds=[held],  # the lock lives as long as the server
            start_new_session=True,
            check=True,
        )
        os.ftruncate(held, 0)
        owner = {"process": int(begun.stdout), "address": address}
        os.pwrite(held, json.dumps(owner).encode(), 0)
    end = time.monotonic() + _START
    while not _answers(address):
        if not is_taken(lock):
            said = log.read_text(errors="replace")
            raise _failure(home, said, "does not start")
        if time.monotonic() > end:
            stop(home)
            raise UserError(
                f"{log}: Label Studio did not answer at {address} within {_START:.0f} "
                "seconds; see there for the reason, and start the same line again"
            )
        time.sleep(0.3)


def running_at(home: Path) -> str | None:
    """The address of the folder's server if it answers, else None."""
    address = str(_owner(home).get("address", ""))
    return address if is_taken(home / _LOCK) and _answers(address) else None


def stop(home: Path) -> bool:
    """Ends the folder's server; returns whether there was one.

    Raises:
      UserError: it does not end.
    """
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


@contextlib.contextmanager
def _open(path: Path, flags: int = 0) -> Iterator[int]:
    """A file that only its owner can read, opened to be written on."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _failure(home: Path, said: str, what: str) -> UserError:
    """The error of a call of Label Studio, with the last line of what it said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it gives no reason"
    return UserError(
        f"{home}: Label Studio {what}: {last}; mend that, and start the same line again"
    )


def _owner(home: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((home / _LOCK).read_text())
    return {}


def _answers(address: str) -> bool:
    # A proxy that the machine has is not asked for the machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/health", timeout=10) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False
