"""Evaluation batches work on any mesh."""

from pathlib import Path

import numpy as np
import pytest

import instructgpt
from instructgpt.batches import PromptBatch
from instructgpt.batching import mesh_batches, rows_of_width
from instructgpt.data.rows import Rows
from tests import tiny

PACKAGE = Path(instructgpt.__path__[0])


@pytest.mark.parametrize(("mesh", "size"), [((1,), 4), ((3,), 6), ((3, 2), 6)])
@pytest.mark.parametrize("whole", [True, False])
def test_batches_are_rounded_up_and_filled_with_blank_rows(mesh, size, whole):
    def encode(number):
        return PromptBatch(
            np.full(2, number, np.int32), np.ones(2, bool), np.int32(number)
        )

    batches = mesh_batches(
        Rows(range(7), encode, [0, 1, 2, 4, 6]),
        None,
        batch_size=4,
        mesh=tiny.mesh_of(*mesh),
        whole=whole,
    )
    index = np.concatenate([batch.index for batch in batches])
    assert {len(batch.index) for batch in batches} == {size}
    assert [int(i) for i in index if i >= 0] == [0, 1, 2, 4, 6]
    assert len(index) % size == 0


def test_long_rows_are_fewer():
    """A batch has about as many tokens as one of usual rows, and at least a row."""
    widths = {16: 64, 256: 64, 512: 32, 2048: 8, 1 << 20: 1}
    assert {width: rows_of_width(64, width) for width in widths} == widths


def test_nobody_else_makes_evaluation_batches():
    """Else a batch of some stage would be one that the mesh does not divide."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "eval_batches(" in path.read_text()
    }
    assert users == {"data/loader.py", "batching.py"}
