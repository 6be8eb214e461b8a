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

PFS_DAY = 1e15 * 86400  # operations
# What the programs themselves and the allocator's gaps may take of a chip.
_RESERVED = 0.02


class Compiled(NamedTuple):
    """What the compiler says of one function; bytes are of one device."""

    arguments: float
    outputs: float  # those that take no argument's place
    temporaries: float
    collectives: dict[str, float]  # received, by kind
    seconds: float  # that it took to compile
    gathered: frozenset[tuple[int, ...]] = frozenset()  # shapes that all-gathers make
    # Why there is no program: the compiler found that it needs more than a device has.
    error: str = ""


class Bound(NamedTuple):
    """The least time of one call, and by what."""

    seconds: float
    by: str  # products, memory or links


class Estimate(NamedTuple):
    """The plan of a stage."""

    machine: Machine
    mesh: dict[str, int]
    work: Work
    held: dict[str, float]  # bytes of a device, by part
    compiled: dict[str, Compiled]
    bounds: dict[str, Bound]

    @property
    def peak(self) -> float:
        """Bytes of a device at the worst moment."""
        passing = (
            passing_bytes(self.work.programs[name], self.work, compiled)
            for name, compiled in self.compiled.items()
        )
        return sum(self.held.values()) + max(passing, default=0.0)

    @property
    def headroom(self) -> float:
        """Bytes of a device that are left, negative where it does not fit."""
        return self.machine.chip.memory * (1 - _RESERVED) - self.peak

    @property
    def fits(self) -> bool:
        """Whether every function compiled and the worst moment has room."""
        return self.headroom >= 0 and not any(c.error for c in self.compiled.values())

    @property
    def iteration_seconds(self) -> float:
        """At best."""
        programs = self.work.programs
        return sum(programs[k].calls * b.seconds for k, b in self.bounds.items())

    @property
    def iteration_flops(self) -> float:
        """Of all devices."""
        return sum(p.calls * cost_of(p).flops for p in self.work.programs.values())


def device_bytes(tree: Any) -> float:
    """Bytes that one device holds of abstract arrays with shardings."""

    def one(x: Any) -> float:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return 8.0
        return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize

    return sum(map(one, jax.tree.leaves(tree)))


def cost_of(program: Program) -> Cost:
    """What is counted of a call, 0 where nothing is."""
    return program.cost or Cost()


def passing_bytes(program: Program, work: Work, compiled: Compiled) -> float:
    """Bytes that a call takes besides what the stage holds."""
    held = {id(leaf) for leaf in jax.tree.leaves(list(work.held.values()))}
    own = [x for x in jax.tree.leaves(program.arguments) if id(x) not in held]
    own += jax.tree.leaves(program.beside)
    return compiled.temporaries + compiled.outputs + device_bytes(own)


def _needed(message: str, arguments: float) -> float | None:
    """Bytes of temporaries that a compiler was refused; None: it says none."""
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
    """Lowers and compiles for the devices of its arguments' mesh."""
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
    """The slowest of products, memory and links, each at the chip's best.

    Each device reads the weights as far as `tensor` cuts them; the rest is cut over all
    devices.
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
    """Compiles the programs (all, or those named) and adds up.

    Args:
      work: Described under this mesh.
      machine: Whose devices the mesh has.
      mesh: See `make_mesh`.
      phases: Names; empty for all.
      until_full: Whether to compile none if what is held is too much, and no more after
        one that does not fit.
      log: Told what is being done, as compiling may take minutes.

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
        names.sort(key=lambda name: name != work.update)  # mostly needs the most
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
