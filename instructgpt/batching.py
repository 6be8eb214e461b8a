"""Sizes of batches: they divide over a mesh, and take few values."""

from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from instructgpt.data.loader import EvalBatches, eval_batches
from instructgpt.sharding import batch_share, round_up

_USUAL = 256  # tokens of a row of which a batch has its full number


def mesh_batches(
    source: Any,
    encode: Callable[[Any], Any] | None,
    *,
    batch_size: int,
    mesh: Mesh,
    whole: bool = False,
) -> EvalBatches:
    """All rows in order, in batches whose size is rounded up to divide over the mesh.

    Blank rows fill up the last batch and have no weight (see `eval_batches`), so that
    results do not depend on the mesh.

    Args:
      source: Records, or rows if `encode` is None.
      encode: Turns a record into a row.
      batch_size: Number of rows of a batch before rounding; 1 or more.
      mesh: The mesh that computes on the batches.
      whole: Whether every process reads all rows of a batch, for `put_whole_batch`,
        or only its own rows, for `put_batch`.

    Raises:
      UserError: there are no rows.
    """
    share = {} if whole else batch_share(mesh)._asdict()
    return eval_batches(source, encode, batch_size=round_up(batch_size, mesh), **share)


def rows_of_width(batch_size: int, width: int) -> int:
    """Rows of a batch of long rows, so that it takes no more memory than a usual one.

    Args:
      batch_size: Rows of a batch of up to 256 tokens each.
      width: Tokens of a row.
    """
    return max(1, batch_size * _USUAL // max(width, _USUAL))


def power_of_two(number: int) -> int:
    """The smallest power of two >= the number; 1 for 0.

    Sizes rounded up to it take few values, and each size is compiled once.
    """
    return 1 << max(number - 1, 0).bit_length()
