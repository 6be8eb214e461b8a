"""Runs the command line in a process that dies, or is told to stop, at a moment.

    MOMENTS='[{...}]' LEDGER=FILE python -m tests.faults.dying --config=... --workdir=W

An event is an update of the training loop, or a change of the file system below the
workdir that Python makes: a file opened to be written, a folder made, a name changed
or deleted. Each is a line of LEDGER. At the first event that one of MOMENTS names, or a
little after it, the process sends itself the signal; of SIGKILL nothing is flushed.
"""

import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructgpt import loop, main

SENT = "signal at"  # begins the ledger's line of the signal
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Audit events, and where among their arguments a path is, and what it counts from.
_CHANGES = {"os.mkdir": (0, 2), "os.rename": (1, 3), "os.remove": (0, 1)}
_CHANGES |= {"os.rmdir": (0, 1)}
# What is another in each run: a process's number, a time, letters drawn by lot.
_BY_CHANCE = re.compile(
    r"(?<=\.)\d+\.(?=partial$)|(?<=incomplete)\.\w+?(?=_\d)|(?<=tfevents)\..*"
)


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a process gets a signal.

    Attributes:
      event: A line of the ledger, such as "update sft 3" or "os.mkdir sft/checkpoints".
      delay: Seconds from it to the signal.
      number: The signal's.
    """

    event: str
    delay: float = 0.0
    number: int = signal.SIGKILL


def to_text(moments: Sequence[Moment]) -> str:
    """As the variable MOMENTS has them."""
    return json.dumps([dataclasses.asdict(moment) for moment in moments])


class _Watch:
    """Writes the ledger, and sends one signal."""

    def __init__(self, workdir: str, ledger: str, moments: Sequence[Moment]):
        self._root = os.path.abspath(workdir) + os.sep
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._moments = {moment.event: moment for moment in moments}

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """A hook of `sys.addaudithook`."""
        if event == "open":
            path, mode, flags = args
            changes = any(c in mode for c in "wax+") if mode else flags & _WRITING
            if changes:
                self._see("open", path, -1)
        elif event in _CHANGES:
            path, folder = (args[place] for place in _CHANGES[event])
            self._see(event, path, folder)

    def _see(self, kind: str, path: Any, folder: int | None) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a number of an open file
        name = os.fsdecode(path)
        if folder is not None and folder >= 0:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
        name = os.path.abspath(name)
        if name.startswith(self._root):
            path = _BY_CHANCE.sub("", name.removeprefix(self._root))
            self.note(f"{kind} {path}")

    def note(self, event: str) -> None:
        """Something has happened."""
        os.write(self._ledger, f"{event}\n".encode())
        moment = self._moments.get(event)
        if moment is not None:
            self._moments = {}
            if moment.delay:
                threading.Thread(target=self._send, args=[moment], daemon=True).start()
            else:
                self._send(moment)

    def _send(self, moment: Moment) -> None:
        time.sleep(moment.delay)
        os.write(self._ledger, f"{SENT} {moment.event}\n".encode())
        os.kill(os.getpid(), moment.number)


def _watch_updates(watch: _Watch) -> None:
    """Has the training loop tell of each update, before it is known to have ended."""
    name, begin, agree = [""], loop._Feed.__init__, loop.agree_to_stop

    def beginning(self: Any, job: Any, count: int) -> None:
        name[0] = job.name
        begin(self, job, count)

    def agreeing(asked: bool, step: int) -> bool:
        watch.note(f"update {name[0]} {step}")
        return agree(asked, step)

    loop._Feed.__init__ = beginning  # type: ignore[method-assign]
    loop.agree_to_stop = agreeing


def run() -> None:
    """The command line, watched."""
    # A shell may have started the parent so that it hears no Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    workdir = next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2]
    moments = [Moment(**m) for m in json.loads(os.environ.get("MOMENTS", "[]"))]
    ledger = os.environ["LEDGER"]
    Path(ledger).parent.mkdir(parents=True, exist_ok=True)
    watch = _Watch(workdir, ledger, moments)
    _watch_updates(watch)
    sys.addaudithook(watch.audit)
    main.entry_point()


if __name__ == "__main__":
    run()
