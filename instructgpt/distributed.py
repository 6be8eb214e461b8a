"""Several processes as one program: who they are, and what one of them does alone.

One process a host. TPU pods, SLURM and Kubernetes tell their processes who they are,
and JAX asks them; elsewhere flags do. What belongs to the whole run (its files, what
it prints) is done by process 0; what all need from a file is made by process 0 first.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

from instructgpt.errors import UserError

T = TypeVar("T")

# A process that is not heard of for so long takes the others down with it.
HEARTBEAT_SECONDS = 30
# What Gloo, NCCL and JAX's own service say when the other end is gone.
_LOST = (
    *("Gloo", "NCCL", "Connection reset", "Connection closed", "heartbeat"),
    *("coordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
)
_JOIN_SECONDS = 300  # that a process waits for the others when it starts


def initialize(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the other processes. Call before anything else of JAX.

    Args:
      coordinator: "auto" where the cluster knows, HOST:PORT of process 0, or "" for
        a process on its own.
      num_processes: How many there are, with HOST:PORT.
      process_id: Which one this is, from 0, with HOST:PORT.

    Raises:
      UserError: what is given does not go together, or the others do not come.
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
            # One that ends by a mistake waits no longer for the others to end as well.
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
    """What a computation says that failed as another process ended; "" otherwise."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    several = jax.process_count() > 1
    return text if several and any(word in str(error) for word in _LOST) else ""


def is_first() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def on_first(make: Callable[[], Any]) -> None:
    """make() on process 0 alone; the others wait for it. All must call this."""
    if is_first():
        make()
    if jax.process_count() > 1:
        _wait_for_all()


def first_then_others(make: Callable[[], T]) -> T:
    """make() on process 0, and then on the others, which find the files it wrote.

    All must call this. If process 0 fails, the others end as when a process dies.
    """
    made: list[T] = []
    on_first(lambda: made.append(make()))
    return made[0] if made else make()


def agree_to_stop(asked: bool, step: int) -> bool:
    """Whether all processes are to stop after this step.

    Args:
      asked: Whether this process has got SIGTERM, where it is on its own.
      step: The one that is being made, the same in all.
    """
    if jax.process_count() == 1:
        return asked
    # JAX has seen the signal itself, and names a step that none has passed.
    return multihost_utils.reached_preemption_sync_point(step)


def fetch(tree: Any) -> Any:
    """The whole values of global arrays, on every process, as NumPy arrays."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _wait_for_all() -> None:
    multihost_utils.sync_global_devices("instructgpt")
