"""Saves or restores a large checkpoint in a process of its own, and says what it took.

    python -m tests.checkpoint_process save|restore DIRECTORY [COORDINATOR COUNT NUMBER]

A matrix of MIB is cut over all devices by rows. Prints JSON: the sum of this process's
rows, their bytes, and by how much memory peaked above what was there before.
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from instructgpt import distributed
from instructgpt.checkpoints import Checkpoints

MIB = 256
SHAPE = 1024, MIB * 256


def peak_bytes() -> int:
    """The most that has been resident since the last reset."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) * 1024


def reset_peak() -> int:
    """What is resident now, from where the peak is counted again."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def main(action: str, directory: str, *process: str) -> None:
    if process:
        coordinator, count, number = process
        distributed.initialize(coordinator, int(count), int(number))
    mesh = Mesh(jax.devices(), ("rows",))
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    layout = jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=sharding)
    checkpoints = Checkpoints(directory)
    before = reset_peak()
    if action == "save":

        def make() -> jax.Array:
            rows = jax.lax.broadcasted_iota(jnp.float32, SHAPE, 0)
            return rows + jax.lax.broadcasted_iota(jnp.float32, SHAPE, 1) % 7

        matrix = jax.jit(make, out_shardings=sharding)()
        checkpoints.save(1, {"params": {"matrix": matrix}}, {"rows": SHAPE[0]})
        checkpoints.wait()
    else:
        parts, _ = checkpoints.restore(1, {"params": {"matrix": layout}})
        matrix = parts["params"]["matrix"]
    pieces = [s.data for s in matrix.addressable_shards]
    peak = peak_bytes() - before
    report = {
        "sum": sum(float(jnp.sum(p[:, :1000])) for p in pieces),
        "bytes": sum(p.nbytes for p in pieces),
        "peak": peak,
    }
    checkpoints.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
