"""Batches that a mesh divides, whatever the number of rows."""

from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from instructgpt.data.loader import EvalBatches, eval_batches
from instructgpt.data.rows import Indices
from instructgpt.sharding import batch_share, round_up


def mesh_batches(
    source: Any,
    encode: Callable[[Any], Any] | None,
    *,
    batch_size: int,
    mesh: Mesh,
    keep: Indices | None = None,
    whole: bool = False,
) -> EvalBatches:
    """All rows in order, in batches that are rounded up to what the mesh divides.

    Blank rows fill the last batch up and count for nothing (see `eval_batches`), so
    that the mesh changes no number.

    Args:
      source: Records, or rows if `encode` is None.
      encode: Record to row.
      batch_size: Rows at a time; 1 or more.
      mesh: Where the batches go.
      keep: Numbers of the rows to use, None for all.
      whole: Whether every process reads all rows of a batch, for `put_whole_batch`,
        or its own, for `put_batch`.

    Raises:
      UserError: there are no rows.
    """
    share = {} if whole else batch_share(mesh)._asdict()
    return eval_batches(
        source, encode, batch_size=round_up(batch_size, mesh), keep=keep, **share
    )
