"""Chips by name, and devices of chips that need not exist.

Numbers are from the makers' public data sheets: dense bfloat16 products, memory, and
the bandwidth of all links of a chip together in one direction. A TPU's memory is what
its compiler leaves to programs, which is less than the data sheet's number. The
compiler names it in the error for a program that needs more;
`tests/plan/test_plan.py` compares it wherever the compiler is installed.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from instructgpt.errors import UserError

GIB = 2**30


class Chip(NamedTuple):
    """Memory and peak rates of one chip or one GPU."""

    memory: float  # bytes available to programs and arrays
    flops_per_second: float  # peak rate of bfloat16 products
    bytes_per_second: float  # bandwidth of the memory
    link_bytes_per_second: float  # bandwidth to other chips


# Memory from libtpu 0.0.42 (of jax 0.10.2): "exceeds available HBM (15.75G)".
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
# Slices of each kind that can be rented, the smallest first.
SLICES = {"v4": _CUBES, "v5e": _SQUARES, "v5p": _CUBES, "v6e": _SQUARES}


class Machine(NamedTuple):
    """A kind of chip, and devices for which programs can be compiled."""

    name: str
    chip: Chip
    devices: Sequence[Any]

    @property
    def is_tpu(self) -> bool:
        """Whether the TPU's own compiler is used."""
        return self.name.split(":")[0] in TPUS


def tpu(topology: str) -> Machine:
    """A TPU slice by name, such as `v5p:4x4x8`; no TPU is needed.

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

    # Prevents a query to the metadata server of a TPU machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # JAX treats both cores of a v4 chip as one device.
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
    """A number of GPUs, for which XLA's CPU compiler is used.

    Shardings and collectives are the same as on GPUs; temporaries are similar.

    Args:
      count: Total number of GPUs.
      kind: A key of GPUS.
      memory: Memory of a GPU in GiB; 0: that of the kind.
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
