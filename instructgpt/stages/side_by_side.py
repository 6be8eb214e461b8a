"""Several calls at once on one CPU: a process each, with its share of the cores.

The steps of a small model keep one core busy and gain little from the next, so two
stages that do not need each other end sooner together than one after the other.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
from absl import logging

from instructgpt.cli import keep_memory
from instructgpt.errors import UserError

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a module's function, its arguments


def shares(number: int) -> list[list[int]]:
    """The cores of this process in `number` equal shares; [] if it is not for us.

    Only a CPU is shared: an accelerator belongs to one process.
    """
    if jax.default_backend() != "cpu" or jax.process_count() > 1:
        return []
    if not hasattr(os, "sched_getaffinity"):  # not on macOS
        return []
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // number
    return [cores[i * each : (i + 1) * each] for i in range(number)] if each else []


def run(calls: Mapping[str, Call], cores: Sequence[Sequence[int]]) -> None:
    """Makes all calls, each in a new process on its own cores, and waits for them.

    If one fails, the others are asked to stop, which saves what they have.

    Raises:
      UserError: one of them raised it.
      RuntimeError: one of them ended otherwise; its traceback has been printed.
    """
    context = multiprocessing.get_context("spawn")
    running = {}
    for (name, call), share in zip(calls.items(), cores, strict=True):
        receiver, sender = context.Pipe(duplex=False)
        verbosity = logging.get_verbosity()
        arguments = (share, verbosity, sender, *call)
        child = context.Process(target=_child, args=arguments, name=name)
        child.start()
        sender.close()
        running[name] = child, receiver
    before = _forward_sigterm([child for child, _ in running.values()])
    try:
        _wait([child for child, _ in running.values()])
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    for name, (child, receiver) in running.items():
        try:
            raise UserError(receiver.recv())
        except EOFError:  # it had nothing to say
            pass
        if child.exitcode not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
            raise RuntimeError(f"{name} ended with exit code {child.exitcode}")
    if any(child.exitcode for child, _ in running.values()):
        sys.exit(128 + signal.SIGTERM)


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


def _forward_sigterm(children: list[Any]) -> Any:
    """Sends the children what we are sent; returns the handler that was there."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.terminate()

    return signal.signal(signal.SIGTERM, forward)


def _child(
    cores: Sequence[int],
    verbosity: int,
    sender: Any,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.sched_setaffinity(0, cores)  # before JAX counts them
    keep_memory()
    logging.set_verbosity(verbosity)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(*arguments)
    except UserError as error:
        sender.send(str(error))
        sys.exit(1)


def _end_with_parent() -> None:
    """A parent that was killed leaves nobody behind to write in its workdir."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
