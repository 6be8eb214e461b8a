"""Chips by name, and meshes of chips that need not be there.

Figures are those of the makers' public data sheets: dense bfloat16 products, memory,
and what a chip sends over all of its links together, in one direction. The memory of
TPUs is what their compiler leaves to programs, which is less than the data sheets say:
it names that number when it refuses a program that needs more, and
`tests/plan/test_plan.py` asks it again wherever the compiler is installed.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from instructgpt.errors import UserError

GIB = 2**30


class Chip(NamedTuple):
    """What one chip (with the GPU kinds, one GPU) has and does at best."""

    memory: float  # bytes that programs and what they hold may take
    flops_per_second: float  # bfloat16
    bytes_per_second: float  # of its memory
    link_bytes_per_second: float  # to other chips


# Memory as libtpu 0.0.42 (of jax 0.10.2) says: "exceeds available HBM (15.75G)".
TPUS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.228e12, 300e9),
    "v5e": Chip(15.75 * GIB, 197e12, 0.819e12, 200e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2.765e12, 600e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1.64e12, 448e9),
}
GPUS = {
    "a100": Chip(80 * GIB, 312e12, 2.039e12, 300e9),
    "h100": Chip(80 * GIB, 989e12, 3.35e12, 450e9),
    "h200": Chip(141 * GIB, 989e12, 4.8e12, 450e9),
}


_SQUARES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES: tuple[str, ...] = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8")
_CUBES += ("4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
# Of each kind, those that are rented, the smallest first.
SLICES = {"v4": _CUBES, "v5e": _SQUARES, "v5p": _CUBES, "v6e": _SQUARES}


class Machine(NamedTuple):
    """Chips of one kind, and devices that programs can be compiled for."""

    name: str
    chip: Chip
    devices: Sequence[Any]

    @property
    def is_tpu(self) -> bool:
        """Whether the TPU's own compiler is at work."""
        return self.name.split(":")[0] in TPUS


def tpu(topology: str) -> Machine:
    """A TPU slice by name, such as `v5p:4x4x8`, of which none need be here.

    Raises:
      UserError: there is no such slice, or no TPU compiler is installed.
    """
    kind, _, shape = topology.partition(":")
    if kind not in TPUS or not shape:
        raise UserError(
            f"--topology={topology}: write KIND:SHAPE, such as v5p:4x4x8; known kinds: "
            f"{', '.join(TPUS)}"
        )
    from jax.experimental import topologies

    # There is no machine to ask what it is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Both cores of a v4 chip as one device, as JAX has it on a real one.
    options = {"chip_config_name": "megacore"} if kind == "v4" else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition(": ")[2].splitlines()[0]
        raise UserError(f"--topology={topology}: {reason}") from error
    except (NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"--topology={topology}: no TPU compiler is installed ({error}); run "
            "`pip install 'jax[tpu]'`, which needs no TPU, or plan for GPUs with "
            "--devices and --memory"
        ) from error
    return Machine(topology, TPUS[kind], found.devices)


def gpus(count: int, *, kind: str, memory: float = 0.0) -> Machine:
    """So many GPUs, for which XLA's CPU compiler stands in.

    How arrays and collectives are cut over devices is the same; temporaries are close.

    Args:
      count: GPUs in all.
      kind: See GPUS.
      memory: GiB of each; 0: what the kind has.
    """
    if kind not in GPUS:
        raise UserError(f"--gpu={kind}: known kinds: {', '.join(GPUS)}")
    if count < 1 or memory < 0:
        raise UserError(f"--devices={count} --memory={memory}: must be positive")
    if len(jax.devices()) != count:
        raise UserError(
            f"--devices={count}: JAX has started with {len(jax.devices())} devices; "
            f"set JAX_NUM_CPU_DEVICES={count}"
        )
    chip = GPUS[kind]
    if memory:
        chip = chip._replace(memory=memory * GIB)
    return Machine(f"{kind}:{count}", chip, jax.devices())
