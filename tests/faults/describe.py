"""Prints what an imported checkpoint holds: python -m tests.faults.describe WORKDIR."""

import sys
import warnings
from pathlib import Path

import numpy as np
from orbax.checkpoint import v1 as ocp

from instructgpt.checkpoints import open_checkpoint

SHOWN = ("vocab_size", "tied_head", "rotary_scaling", "rotary_factor", "rotary_base")


def main(workdir: str) -> None:
    """One line of its config, and one of the mean of its embedding."""
    checkpoints, step = open_checkpoint(workdir)
    meta = checkpoints.meta(step)
    checkpoints.close()
    shown = " ".join(f"{key}={meta['model'][key]}" for key in SHOWN)
    print(f"holds a {meta['kind']} model: {shown}")
    warnings.simplefilter("ignore")  # that it is read as it was saved
    folder = Path(workdir) / "checkpoints" / str(step)
    params = ocp.load_checkpointables(folder, {"params": None})["params"]
    trunk = params.get("trunk", params)
    table = np.asarray(trunk["token_embedding"])[: meta["model"]["vocab_size"]]
    print(f"embedding mean {table.mean():.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
