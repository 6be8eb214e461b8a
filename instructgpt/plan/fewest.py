"""Finds the smallest slice of a kind of TPU that a stage fits on."""

from collections.abc import Callable
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.plan.estimate import Estimate, passing_bytes
from instructgpt.plan.machines import GIB, SLICES


class Smallest(NamedTuple):
    """The smallest slice that is large enough."""

    plan: Estimate
    tried: list[dict[str, Any]]  # smaller slices, and why they do not fit
    table: str


def fewest(
    kind: str, run: Callable[[str], Estimate], *, log: Callable[[str], None]
) -> Smallest:
    """Plans for slices of a kind in ascending size until one is large enough.

    Args:
      kind: A key of SLICES.
      run: Plans for a topology; may stop at the first function that does not fit.
      log: Called with a message on each slice.

    Raises:
      UserError: the stage fits on no slice.
    """
    tried: list[dict[str, Any]] = []
    for topology in (f"{kind}:{shape}" for shape in SLICES[kind]):
        log(topology)
        try:
            plan = run(topology)
        except UserError as error:  # for example, rows do not divide over the devices
            tried.append({"topology": topology, "reason": str(error)})
            continue
        if plan.fits:
            lines = [f"not {row['topology']}: {row['reason']}" for row in tried]
            count = len(plan.machine.devices)
            lines.append(f"fewest chips at these settings: {count}, {topology}")
            return Smallest(plan, tried, "\n".join(lines))
        tried.append({"topology": topology, "reason": _reason(plan)})
    rows = "; ".join(f"{row['topology']}: {row['reason']}" for row in tried)
    raise UserError(f"--topology={kind}: the stage fits on no slice: {rows}")


def _reason(plan: Estimate) -> str:
    memory = f"of {plan.machine.chip.memory / GIB:.4g} GiB a chip"
    held = sum(plan.held.values()) / GIB
    if not plan.compiled:
        return f"what is held takes {held:.1f} {memory}"
    name, last = list(plan.compiled.items())[-1]
    size = passing_bytes(plan.work.programs[name], plan.work, last) / GIB
    return f"{name} takes {size:.1f} beside {held:.1f} {memory}"
