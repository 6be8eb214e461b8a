"""One process at a time in a folder, by locks that end with the process.

A process that was killed leaves the file, and no lock.
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

LOCK = ".lock"  # the file's name

# What file systems answer that have no locks, or cannot be written.
_NONE = {
    *(errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EROFS),
}
# Seconds in which what a killed run has started may end as well.
_PATIENCE = 3.0

_held: dict[str, int] = {}  # the files that this process has locked, open


def take(path: Path, *, log: Callable[[str], None]) -> bool:
    """Locks a file until `give_back`, or until this process ends.

    A process that has the lock may take it again. Where the file system has no locks
    none is taken.

    Args:
      path: The file, which is made; its folder is there.
      log: Is told that there are no locks.

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
    with contextlib.suppress(OSError):  # it says who, and is no part of the lock
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


def give_back(path: Path) -> None:
    """Unlocks a file, if this process has locked it."""
    file = _held.pop(os.path.realpath(path), None)
    if file is not None:
        os.close(file)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Waits until no other process is in such a block with the same file.

    Where the file system has no locks, or cannot be written, none is waited for.

    Args:
      path: The file, which is made; its folder is there.

    Yields:
      Whether no other process can be in such a block.
    """
    alone = False
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(path.open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone
