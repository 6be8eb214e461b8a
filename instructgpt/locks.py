"""Locks that let one process at a time work in a folder, and end with the process.

A killed process leaves the lock file but no lock.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from instructgpt.errors import UserError

LOCK = ".lock"  # name of the lock file

# Errors of file systems that have no locks or are read-only.
_NONE = {
    *(errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EROFS),
}
# Seconds to wait for the child processes of a killed run, which may hold its lock.
_PATIENCE = 3.0

_held: dict[str, int] = {}  # path -> file descriptor of locks that this process has


def take(path: Path, *, log: Callable[[str], None]) -> bool:
    """Locks a file until `give_back`, or until this process ends.

    A process that has the lock may take it again. On a file system without locks
    nothing is locked.

    Args:
      path: The lock file, which is created; its folder must exist.
      log: Called with a message if the file system has no locks.

    Returns:
      Whether this process has the lock.

    Raises:
      UserError: another process has the lock.
      OSError: the file cannot be opened.
    """
    key = os.path.realpath(path)
    if key in _held:
        return True
    file = None
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        _lock(file, path)
    except BaseException as error:
        if file is not None:
            os.close(file)
        if not isinstance(error, OSError) or error.errno not in _NONE:
            raise
        log(
            f"{path.parent}: its file system has no locks, so see to it that no second "
            "run is started there"
        )
        return False
    with contextlib.suppress(OSError):  # names the owner, for the other's message only
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[key] = file
    return True


def _lock(file: int, path: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < end:
                time.sleep(0.1)
                continue
            who = os.pread(file, 200, 0).decode(errors="replace").strip()
            raise UserError(
                f"{path.parent}: another run is at work in this workdir"
                f"{f' ({who})' * bool(who)}; wait for its end or stop it, or give "
                "another --workdir"
            ) from error


def is_taken(path: Path) -> bool:
    """Whether a process has the lock; False if the file system has no locks."""
    with contextlib.suppress(FileNotFoundError, PermissionError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def give_back(path: Path) -> None:
    """Unlocks a file if this process has locked it."""
    file = _held.pop(os.path.realpath(path), None)
    if file is not None:
        os.close(file)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Runs a block after all other processes have left theirs for the same file.

    On a file system that has no locks or is read-only, it does not wait.

    Args:
      path: The lock file, which is created; its folder must exist.

    Yields:
      Whether the lock was taken, so that no other process can be in such a block.
    """
    alone = False
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(path.open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone
