"""Rows that hold several texts: the assignment of texts, and their content."""

import numpy as np
import pytest

from instructgpt.batches import ComparisonBatch, TokenBatch
from instructgpt.data.packing import (
    ComparisonPacker,
    PackedRows,
    pack,
    rows_needed,
)
from instructgpt.errors import UserError
from tests import tiny


def row(*tokens: int, targets: int = 1) -> TokenBatch:
    """A left-padded row of 6 whose last tokens are targets."""
    ids = np.array([0] * (6 - len(tokens)) + list(tokens), np.int32)
    loss_mask = np.arange(6) >= 6 - targets
    return TokenBatch(ids, (ids > 0).astype(np.int32), loss_mask)


def test_best_fit_decreasing_by_hand():
    assert pack([3, 5, 2, 4, 1], 6) == [[1, 4], [3, 2], [0]]
    assert pack([2, 2, 2], 6) == [[0, 1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_every_item_is_in_one_bin_that_holds_it(seed):
    lengths = np.random.default_rng(seed).integers(1, 60, 200).tolist()
    bins = pack(lengths, 64)
    assert sorted(item for items in bins for item in items) == list(range(200))
    loads = [sum(lengths[i] for i in items) for items in bins]
    assert max(loads) <= 64
    assert len(bins) <= 11 / 9 * sum(lengths) / 64 + 1  # near the least possible


def test_an_item_longer_than_a_bin_is_refused():
    with pytest.raises(ValueError, match="item 1: 7 do not fit in 6"):
        pack([1, 7], 6)


def test_packed_row_by_hand():
    rows = PackedRows([row(5, 6), row(7, 8, 9, targets=2), row(4)], 6)
    assert len(rows) == 1
    packed = rows[0]
    assert packed.tokens.tolist() == [7, 8, 9, 5, 6, 4]
    assert packed.segment_ids.tolist() == [1, 1, 1, 2, 2, 3]
    assert packed.loss_mask.tolist() == [0, 1, 1, 0, 1, 1]
    assert [field.dtype for field in packed] == [np.int32, np.int32, bool]


def test_what_is_left_of_a_row_is_padding():
    packed = PackedRows([row(5, 6), row(7, 8, 9)], 8)[0]
    assert packed.segment_ids.tolist() == [1, 1, 1, 2, 2, 0, 0, 0]
    assert packed.valid.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert not packed.loss_mask[5:].any()


def test_a_text_longer_than_a_packed_row_is_named():
    with pytest.raises(
        UserError, match="row 1 has 3 tokens, more than the 2 of a pack"
    ):
        PackedRows([row(5), row(7, 8, 9)], 2)


def rankings(*lengths: list[int]) -> ComparisonBatch:
    """Prompts of one token; response k of prompt p is 10 p + k, so many times."""
    valid = np.array(lengths)[..., None] > np.arange(6)
    prompts, slots = valid.shape[:2]
    tokens = 10 * np.arange(prompts)[:, None] + np.arange(slots)
    return ComparisonBatch(
        prompt=np.ones((prompts, 1), np.int32),
        prompt_valid=np.ones((prompts, 1), bool),
        responses=np.where(valid, tokens[..., None], 0).astype(np.int32),
        response_valid=valid,
        ranks=np.ones((prompts, slots), np.int32),
        present=valid.any(axis=-1),
        wording=tokens.astype(np.int32),
        packed_row=tiny.packed_rows(valid),
    )


def test_packed_responses_by_hand():
    batch = rankings([2, 6, 3], [4, 0, 1])
    packer = ComparisonPacker([batch], groups=1)
    assert packer.rows == 3
    packed = packer(batch)
    assert packed.rows[0].tolist() == [
        [1, 1, 1, 1, 1, 1],
        [2, 2, 2, 0, 0, 0],
        [10, 10, 10, 10, 12, 0],
    ]
    assert packed.segment_ids[0].tolist() == [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 2, 2, 0],
        [1, 1, 1, 1, 2, 0],
    ]
    assert packed.prompt_index.tolist() == [[0, 0, 1]]
    assert packed.last[0].tolist() == [[10, 5, 8], [15, 0, 16]]


def test_the_rows_that_a_prompt_needs():
    batch = rankings([2, 6, 3], [4, 0, 1])
    assert batch.packed_row.tolist() == [[1, 0, 1], [0, -1, 0]]
    assert rows_needed(batch).tolist() == [2, 1]
    rows = [ComparisonBatch(*(field[p] for field in batch)) for p in range(2)]
    assert [int(rows_needed(row)) for row in rows] == [2, 1]
    # A blank row, as it fills up a batch, needs none.
    blank = ComparisonBatch(*(np.zeros_like(field) for field in rows[0]))
    assert rows_needed(blank) == 0


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_packed_batch_holds_every_response_once(groups, rng):
    batches = [tiny.comparison_batch(rng) for _ in range(3)]
    packer = ComparisonPacker(batches, groups=groups)
    fewest = 0
    for batch in batches:
        packed = packer(batch)
        assert packed.rows.shape == (groups, packer.rows, tiny.RESPONSE)
        assert packed.prompt.shape[:2] == (groups, 8 // groups)
        assert (packed.segment_ids > 0).sum() == batch.response_valid.sum()
        last = packed.last.reshape(8, -1)
        for p, k in np.argwhere(batch.response_valid.any(axis=-1)):
            row, column = divmod(last[p, k], tiny.RESPONSE)
            group, prompt = divmod(p, 8 // groups)
            segment_ids = packed.segment_ids[group, row]
            assert packed.prompt_index[group, row] == prompt
            found = packed.rows[group, row][segment_ids == segment_ids[column]]
            expected = batch.responses[p, k][batch.response_valid[p, k]]
            np.testing.assert_array_equal(found, expected)
        fewest = max(fewest, (packed.segment_ids > 0).any(axis=-1).sum(axis=-1).max())
    assert fewest == packer.rows


def test_a_batch_that_needs_more_rows_than_were_seen_is_refused():
    packer = ComparisonPacker([rankings([1, 1])], groups=1)
    with pytest.raises(ValueError, match="group 0 does not fit into 1 rows"):
        packer(rankings([6, 6]))
