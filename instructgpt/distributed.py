"""Several processes as one program: how they connect, and what one does for all.

Each host runs one process. On TPU pods, SLURM and Kubernetes JAX asks the cluster for
the process's number; elsewhere flags give it. Process 0 writes the run's files and
prints; a file that all processes read is first made by process 0.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

from instructgpt.errors import UserError

T = TypeVar("T")

# Seconds without a sign of life after which a process counts as dead and all end.
HEARTBEAT_SECONDS = 30
# Words in the errors of Gloo, NCCL and JAX's service when another process is gone.
_LOST = (
    *("Gloo", "NCCL", "Connection reset", "Connection closed", "heartbeat"),
    *("coordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
)
_JOIN_SECONDS = 300  # how long a process waits for the others when it starts


def initialize(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the other processes; must be called before anything else of JAX.

    Args:
      coordinator: "auto" to ask the cluster, HOST:PORT of process 0, or "" for a
        single process.
      num_processes: Number of processes, to be given with HOST:PORT.
      process_id: Number of this process, from 0, to be given with HOST:PORT.

    Raises:
      UserError: the arguments contradict each other, or the others do not join.
    """
    by_hand = coordinator not in ("", "auto")
    if not by_hand and (num_processes, process_id) != (0, -1):
        raise UserError(
            "--num_processes and --process_id go with --coordinator=HOST:PORT of "
            "process 0; give all three, or none"
        )
    if not coordinator:
        return
    if by_hand and not 0 <= process_id < num_processes:
        raise UserError(
            f"--coordinator={coordinator} needs --num_processes=N and --process_id "
            f"from 0 to N - 1; given are {num_processes} and {process_id}"
        )
    given: dict[str, Any] = {}
    if by_hand:
        given = dict(
            coordinator_address=coordinator,
            num_processes=num_processes,
            process_id=process_id,
        )
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            # The longest that a failed process waits at its end for the others.
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        hint = (
            f"is process 0 reachable at {coordinator}, and were all {num_processes} "
            "started?"
            if by_hand
            else "outside of a TPU pod, SLURM and Kubernetes give "
            "--coordinator=HOST:PORT, --num_processes and --process_id"
        )
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--coordinator={coordinator}: {first}; {hint}") from error


def lost_contact(error: Exception) -> str:
    """The message of an error caused by the end of another process; "" for others."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    several = jax.process_count() > 1
    return text if several and any(word in str(error) for word in _LOST) else ""


def is_first() -> bool:
    """Whether this is process 0, which writes and prints for all."""
    return jax.process_index() == 0


def on_first(make: Callable[[], Any]) -> None:
    """Calls make() on process 0 while the others wait; all processes must call this."""
    if is_first():
        make()
    if jax.process_count() > 1:
        _wait_for_all()


def first_then_others(make: Callable[[], T]) -> T:
    """Calls make() on process 0, then on the others, which find the files it wrote.

    All processes must call this. If process 0 fails, the others end too.
    """
    made: list[T] = []
    on_first(lambda: made.append(make()))
    return made[0] if made else make()


def agree_to_stop(asked: bool, step: int) -> bool:
    """Whether all processes are to stop after this step.

    Args:
      asked: Whether this process got SIGTERM; used if it is the only one.
      step: The current step, the same in all processes.
    """
    if jax.process_count() == 1:
        return asked
    # JAX itself has received the signal and agrees on a step that none has passed.
    return multihost_utils.reached_preemption_sync_point(step)


def fetch(tree: Any) -> Any:
    """The full values of global arrays as NumPy arrays, on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _wait_for_all() -> None:
    multihost_utils.sync_global_devices("instructgpt")
