"""Measures the cost of comparing a checkpoint with its checksums on reading.

    python tests/benchmarks/verify.py [--gigabytes=1] [--times=3]

Saves random float32 arrays and restores them with each `config.checkpoints.verify`, in
turns; the medians are printed, in seconds per 1e9 bytes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from instructgpt.checkpoints import Checkpoints, Verify  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402

ARRAYS = 8  # a checkpoint holds so many, all of one size


def seconds(directory: Path, layout: dict[str, jax.ShapeDtypeStruct], how: Verify):
    """How long it takes to restore the checkpoint."""
    checkpoints = Checkpoints(directory, clean=False, verify=how)
    began = time.monotonic()
    parts, _ = checkpoints.restore(1, {"params": layout})
    jax.block_until_ready(parts)
    took = time.monotonic() - began
    checkpoints.close()
    return took


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gigabytes", type=float, default=1.0, help="of arrays (%(default)s)")
    add("--times", type=int, default=3, help="each way (%(default)s)")
    args = parser.parse_args(argv)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = (int(args.gigabytes * 1e9 / 4 / ARRAYS / 1024), 1024)
    draw = np.random.default_rng(0)
    params = {
        f"w{i}": jax.device_put(draw.standard_normal(shape, np.float32), here)
        for i in range(ARRAYS)
    }
    layout = {
        name: jax.ShapeDtypeStruct(shape, np.float32, sharding=here) for name in params
    }
    took: dict[Verify, list[float]] = {how: [] for how in get_args(Verify)}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "checkpoints"
        checkpoints = Checkpoints(directory)
        checkpoints.save(1, {"params": params}, {})
        checkpoints.close()
        for how in take_turns(args.times):
            took[how].append(seconds(directory, layout, how))
    each = {how: statistics.median(times[1:] or times) for how, times in took.items()}
    rows = [
        [how, f"{each[how] / args.gigabytes:.2f}"]
        + [f"{(each[how] - each['nothing']) / args.gigabytes:.2f}"]
        for how in each
    ]
    print(format_table(rows, ["verify", "restore, s/GB", "more than nothing"]))


def take_turns(times: int) -> list[Verify]:
    """Each way so often, and once before, as the first of each compiles."""
    return [how for _ in range(times + 1) for how in get_args(Verify)]


if __name__ == "__main__":
    main()
