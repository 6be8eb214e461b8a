"""Runs several calls at once on one CPU, each in a process with its own cores.

The steps of a small model gain little from more than one core, so two independent
stages end sooner at the same time than one after the other.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
from absl import logging

from instructgpt.cli import keep_memory
from instructgpt.errors import UserError
from instructgpt.outputs import in_one_line

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # module-level function, arguments


def shares(number: int) -> list[list[int]]:
    """The cores of this process in `number` equal shares; [] if they cannot be shared.

    Only a CPU's cores are shared, because an accelerator belongs to one process.
    """
    if jax.default_backend() != "cpu" or jax.process_count() > 1:
        return []
    if not hasattr(os, "sched_getaffinity"):  # macOS does not have it
        return []
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // number
    return [cores[i * each : (i + 1) * each] for i in range(number)] if each else []


def run(calls: Mapping[str, Call], cores: Sequence[Sequence[int]]) -> None:
    """Runs all calls, each in a new process on its own cores, and waits for them.

    If one fails, the others are asked to stop and save. SIGTERM and SIGINT (Ctrl-C) ask
    all to stop; a second SIGINT ends them at once.

    Raises:
      UserError: a call raised it.
      RuntimeError: a call failed otherwise; its traceback has been printed.
      SystemExit: a signal asked to stop, and all have ended; exit code 143 or 130.
    """
    context = multiprocessing.get_context("spawn")
    running = {}
    with _Forwarding() as forwarding:
        for (name, call), share in zip(calls.items(), cores, strict=True):
            receiver, sender = context.Pipe(duplex=False)
            verbosity = logging.get_verbosity()
            arguments = (share, verbosity, sender, *call)
            child = context.Process(target=_child, args=arguments, name=name)
            with _not_hearing_ctrl_c():
                child.start()
            forwarding.add(child)
            sender.close()
            running[name] = child, receiver
        _wait(forwarding.children)
    for name, (child, receiver) in running.items():
        try:
            raise UserError(receiver.recv())
        except EOFError:  # the child sent no message
            pass
        if forwarding.asked:
            continue
        if child.exitcode not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
            raise RuntimeError(f"{name} ended with exit code {child.exitcode}")
    if forwarding.asked or any(child.exitcode for child, _ in running.values()):
        print(f"{' and '.join(calls)}: stopped; start the same line again to go on")
        sys.exit(128 + (forwarding.asked or signal.SIGTERM))


def _wait(children: list[Any]) -> None:
    left = list(children)
    while left:
        multiprocessing.connection.wait([child.sentinel for child in left])
        for child in [c for c in left if not c.is_alive()]:
            child.join()
            left.remove(child)
            if child.exitcode:
                for other in left:
                    other.terminate()


class _Forwarding:
    """Forwards signals to the child processes, in the main thread only."""

    def __init__(self) -> None:
        self.asked = 0  # number of the signal received; 0: none
        self.children: list[Any] = []
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "_Forwarding":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._old[number] = signal.signal(number, self._forward)
        return self

    def add(self, child: Any) -> None:
        """Adds a child; if a signal came before, the child is asked to stop too."""
        self.children.append(child)
        if self.asked:
            child.terminate()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        again = self.asked == number == signal.SIGINT
        self.asked = number
        for child in self.children:
            child.kill() if again else child.terminate()

    def __exit__(self, *_: Any) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _not_hearing_ctrl_c() -> Iterator[None]:
    """Starts children that ignore SIGINT, as the parent forwards Ctrl-C to them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _child(
    cores: Sequence[int],
    verbosity: int,
    sender: Any,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sends SIGTERM instead
    os.sched_setaffinity(0, cores)  # before JAX counts the cores
    keep_memory()
    logging.set_verbosity(verbosity)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(*arguments)
    except UserError as error:
        sender.send(str(error))
        sys.exit(1)
    except OSError as error:
        sender.send(in_one_line(error, "a file"))
        sys.exit(1)


def _end_with_parent() -> None:
    """Makes this process end when its parent does, also if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
