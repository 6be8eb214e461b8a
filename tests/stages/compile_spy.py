"""Counts what is compiled in each update of a training loop."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from instructgpt import loop

_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_seen: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: _seen.append(event) if event == _EVENT else None
)


def compiled_so_far() -> int:
    """Programs that this process has compiled since this module was imported."""
    return len(_seen)


@contextlib.contextmanager
def compilations() -> Iterator[dict[str, list[int]]]:
    """Counts the programs that each update compiles, by the name of the job."""
    counts: dict[str, list[int]] = {}
    steps = loop._steps

    def counting(job: loop.Job, *args: Any) -> Any:
        def update(*inputs: Any) -> Any:
            before = compiled_so_far()
            out = job.update(*inputs)
            counts.setdefault(job.name, []).append(compiled_so_far() - before)
            return out

        return steps(dataclasses.replace(job, update=update), *args)

    loop._steps = counting
    try:
        yield counts
    finally:
        loop._steps = steps
