"""Compiles a stage's functions for a machine, and adds up bytes and seconds."""

import math
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from instructgpt.errors import UserError
from instructgpt.models.costs import Cost
from instructgpt.plan.hlo import collective_bytes, gathered_shapes
from instructgpt.plan.machines import GIB, Machine
from instructgpt.plan.work import Work
from instructgpt.stages.programs import Program

# Share of a chip's memory for the programs themselves and the allocator's gaps.
_RESERVED = 0.02


class Compiled(NamedTuple):
    """The compiler's numbers for one function; bytes are per device."""

    arguments: float
    outputs: float  # bytes of outputs that do not reuse an argument's memory
    temporaries: float
    collectives: dict[str, float]  # bytes received, by kind of collective
    seconds: float  # time of compilation
    gathered: frozenset[tuple[int, ...]] = frozenset()  # shapes made by all-gathers
    # The compiler's message if the program needs more memory than a device has.
    error: str = ""


class Bound(NamedTuple):
    """The least time of one call, and the resource that bounds it."""

    seconds: float
    by: str  # products, memory or links


class Estimate(NamedTuple):
    """The plan of a stage on a machine."""

    machine: Machine
    mesh: dict[str, int]
    work: Work
    held: dict[str, float]  # bytes per device that are always held, by part
    compiled: dict[str, Compiled]
    bounds: dict[str, Bound]

    @property
    def peak(self) -> float:
        """Largest number of bytes in use on a device at any time."""
        passing = (
            passing_bytes(self.work.programs[name], self.work, compiled)
            for name, compiled in self.compiled.items()
        )
        return sum(self.held.values()) + max(passing, default=0.0)

    @property
    def headroom(self) -> float:
        """Bytes per device that are left; negative if the stage does not fit."""
        return self.machine.chip.memory * (1 - _RESERVED) - self.peak

    @property
    def fits(self) -> bool:
        """Whether every function compiled and the peak fits the memory."""
        return self.headroom >= 0 and not any(c.error for c in self.compiled.values())

    @property
    def iteration_seconds(self) -> float:
        """Least time of an iteration in seconds."""
        programs = self.work.programs
        return sum(programs[k].calls * b.seconds for k, b in self.bounds.items())

    @property
    def iteration_flops(self) -> float:
        """Operations of an iteration over all devices."""
        return sum(p.calls * cost_of(p).flops for p in self.work.programs.values())


def device_bytes(tree: Any) -> float:
    """Bytes per device of abstract arrays with shardings."""

    def one(x: Any) -> float:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return 8.0
        return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize

    return sum(map(one, jax.tree.leaves(tree)))


def cost_of(program: Program) -> Cost:
    """The counted cost of a call; 0 if nothing is counted."""
    return program.cost or Cost()


def passing_bytes(program: Program, work: Work, compiled: Compiled) -> float:
    """Bytes that a call needs in addition to what the stage holds."""
    held = {id(leaf) for leaf in jax.tree.leaves(list(work.held.values()))}
    own = [x for x in jax.tree.leaves(program.arguments) if id(x) not in held]
    own += jax.tree.leaves(program.beside)
    return compiled.temporaries + compiled.outputs + device_bytes(own)


def _needed(message: str, arguments: float) -> float | None:
    """Bytes of temporaries named in a compiler's out-of-memory error; None if none."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    whole = re.search(r"Used ([\d.]+)([GM]) of", message)
    alone = re.search(r"temporaries \(([\d.]+)([GM])\) exceeds", message)
    found = whole or alone
    if not found:
        return None
    size = float(found[1]) * (GIB if found[2] == "G" else 2**20)
    return max(size - arguments, 0.0) if whole else size


def compile_program(program: Program) -> Compiled:
    """Lowers and compiles a program for the devices of its arguments' mesh."""
    began = time.monotonic()
    lowered = program.jitted.lower(*program.arguments)
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        own, seconds = device_bytes(program.arguments), time.monotonic() - began
        size = _needed(str(error), own)
        if size is None:
            raise
        return Compiled(own, 0.0, size, {}, seconds, error="out of memory")
    memory, text = executable.memory_analysis(), executable.as_text()
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        collectives=collective_bytes(text, trips=program.trips),
        seconds=time.monotonic() - began,
        gathered=frozenset(gathered_shapes(text)),
    )


def bound_of(
    program: Program,
    compiled: Compiled,
    machine: Machine,
    mesh: Mesh,
    less: Compiled | None,
) -> Bound:
    """The slowest of products, memory and links, each at the chip's peak rate.

    Each device reads its `tensor` shard of the weights; all other bytes are divided
    over all devices.
    """
    chip, count = machine.chip, mesh.size
    cost = cost_of(program)
    weights = cost.bytes if program.weights is None else program.weights
    read = weights / mesh.shape["tensor"] + (cost.bytes - weights) / count
    sent = sum(compiled.collectives.values())
    if less is not None:
        sent = max(sent - sum(less.collectives.values()), 0.0)
    times = {
        "products": cost.flops / count / chip.flops_per_second,
        "memory": read / chip.bytes_per_second,
        "links": sent / chip.link_bytes_per_second,
    }
    slowest = max(times, key=lambda k: times[k])
    return Bound(times[slowest], slowest)


def estimate(
    work: Work,
    machine: Machine,
    mesh: Mesh,
    *,
    phases: tuple[str, ...] = (),
    until_full: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> Estimate:
    """Compiles the programs (all, or those named) and adds up bytes and seconds.

    Args:
      work: The stage's work, described under this mesh.
      machine: The machine of the mesh's devices.
      mesh: The mesh, from `make_mesh`.
      phases: Names of the programs; empty for all.
      until_full: Whether to stop as soon as the held arrays or a program do not fit.
      log: Called with a message on each step, as compiling may take minutes.

    Raises:
      UserError: the stage has no such program.
    """
    unknown = sorted(set(phases) - work.programs.keys())
    if unknown:
        raise UserError(
            f"--phases: the stage has no {', '.join(unknown)}; known: "
            f"{', '.join(work.programs)}"
        )
    held = {name: device_bytes(tree) for name, tree in work.held.items()}
    plan = Estimate(machine, dict(mesh.shape), work, held, {}, {})
    names = list(phases or work.programs)
    if until_full:
        names.sort(key=lambda name: name != work.update)  # it usually needs the most
    for name in names:
        if until_full and not plan.fits:
            break
        log(f"compiling {name} for {mesh.size} devices ...")
        program = work.programs[name]
        compiled = compile_program(program)
        less = plan.compiled.get(program.without)
        plan.compiled[name] = compiled
        plan.bounds[name] = bound_of(program, compiled, machine, mesh, less)
        size = passing_bytes(program, work, compiled) / GIB
        log(f"{name} takes {size:.2f} GiB a chip; compiled in {compiled.seconds:.0f} s")
    return plan
