"""Order, sharding, padding and exact resumption of batches."""

import itertools
import json

import numpy as np
import pytest

from instructgpt.batches import ComparisonBatch, PromptBatch, TokenBatch
from instructgpt.data.even_batches import even_batches
from instructgpt.data.loader import (
    eval_batches,
    make_loader,
    make_mixed_loader,
    zip_loaders,
)
from instructgpt.data.rows import Rows
from instructgpt.errors import UserError


def encode(record: int) -> TokenBatch:
    """A row that tells which record it came from."""
    on = np.ones(3, np.int32)
    return TokenBatch(np.full(3, record, np.int32), on, on > 0)


def encode_prompt(record: int) -> PromptBatch:
    return PromptBatch(np.full(2, record, np.int32), np.ones(2, bool), np.int32(-1))


def records(batch: TokenBatch | PromptBatch) -> list[int]:
    return batch.tokens[:, 0].tolist()


def take(loader, count: int) -> list[list[int]]:
    return [records(batch) for batch in itertools.islice(loader, count)]


def joined(lists) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def loader_of(num: int = 10, **changes):
    arguments = {"batch_size": 4, "seed": 0, **changes}
    return make_loader(range(num), encode, **arguments)


def test_each_epoch_shows_each_row_at_most_once_in_an_order_of_its_own():
    loader = loader_of(12)
    assert loader.steps_per_epoch == 3
    epochs = [joined(take(loader, 3)) for _ in range(4)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != list(range(12))


def test_batches_are_stacked_rows():
    batch = next(loader_of())
    assert isinstance(batch, TokenBatch)
    assert batch.tokens.shape == batch.valid.shape == batch.loss_mask.shape == (4, 3)
    assert batch.tokens.dtype == np.int32


def test_seed_sets_the_order():
    assert take(loader_of(seed=1), 6) == take(loader_of(seed=1), 6)
    assert take(loader_of(seed=1), 6) != take(loader_of(seed=2), 6)
    # Not the same orders one epoch later either.
    assert take(loader_of(12, seed=1), 6)[3:] != take(loader_of(12, seed=2), 3)


def test_without_shuffle_the_order_is_the_sources():
    loader = loader_of(shuffle=False, num_epochs=2)
    assert take(loader, 9) == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2
    assert len(loader) == loader.num_steps == 4


def test_a_loader_without_end_has_no_length():
    loader = loader_of()
    assert loader.num_steps is None
    with pytest.raises(TypeError):
        len(loader)


@pytest.mark.parametrize("drop_remainder", [True, False])
@pytest.mark.parametrize("consumed", [0, 1, 2, 3, 5, 6, 7])
def test_resume_is_exact_within_and_across_epochs(consumed, drop_remainder):
    arguments = {"drop_remainder": drop_remainder, "num_epochs": 4}
    whole = list(loader_of(**arguments))
    first = loader_of(**arguments)
    assert len(take(first, consumed)) == consumed
    state = json.loads(json.dumps(first.get_state()))
    next(first)  # the state is a copy of the position, not the position
    second = loader_of(**arguments)
    next(second)  # nor does it matter where the other loader stood
    second.set_state(state)
    rest = list(second)
    assert len(rest) == len(whole) - consumed
    for expected, batch in zip(whole[consumed:], rest, strict=True):
        for expected_field, field in zip(expected, batch, strict=True):
            np.testing.assert_array_equal(expected_field, field)


def test_resume_at_the_end_is_the_end():
    loader = loader_of(num_epochs=1)
    list(loader)
    again = loader_of(num_epochs=1)
    again.set_state(loader.get_state())
    assert list(again) == []


@pytest.mark.parametrize(
    "change", [{"batch_size": 2}, {"seed": 1}, {"num": 11}, {"shuffle": False}]
)
def test_a_position_in_another_order_is_refused(change):
    state = loader_of().get_state()
    with pytest.raises(UserError, match="the saved data position belongs to"):
        loader_of(**change).set_state(state)


def test_even_batches_by_hand():
    # Strata 1 2, 3 4, 5 6, 7 8: the smallest with the largest, 3 with 6.
    batches = even_batches([8, 7, 6, 5, 4, 3, 2, 1], 4, seed=0)
    assert batches.tolist() == [[7, 0, 5, 2], [6, 1, 4, 3]]
    # The middle one of three strata has no partner.
    assert even_batches([1, 2, 3], 3, seed=0).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("batch_size", [3, 4])
def test_even_batches_have_totals_alike(batch_size, rng):
    sizes = rng.integers(1, 9, 410).tolist()
    batches = even_batches(sizes, batch_size, seed=0)
    assert batches.shape == (410 // batch_size, batch_size)
    assert len(set(joined(batches.tolist()))) == batches.size
    even, drawn = (
        np.array(sizes)[rows].sum(axis=1)
        for rows in (batches, np.arange(batches.size).reshape(batches.shape))
    )
    assert np.ptp(even) < np.ptp(drawn) / 2


def test_batches_by_size_are_even_in_every_epoch():
    loader = loader_of(8, sizes=range(8))
    epochs = [take(loader, 2) for _ in range(6)]
    assert all(sum(batch) == 14 for epoch in epochs for batch in epoch)
    assert len({str(epoch) for epoch in epochs}) == 2
    with pytest.raises(UserError, match="the saved data position belongs to even"):
        loader_of(8).set_state(loader.get_state())


@pytest.mark.parametrize(
    "change, words",
    [({"shuffle": False}, "sizes go with shuffle"), ({"num": 7}, "8 sizes of 7 rows")],
)
def test_sizes_that_have_no_meaning_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        loader_of(**{"num": 8, "sizes": range(8), **change})


@pytest.mark.parametrize("drop_remainder", [True, False])
def test_shards_put_together_are_the_global_batch(drop_remainder):
    arguments = {"num_epochs": 3, "drop_remainder": drop_remainder}
    whole = take(loader_of(**arguments), 99)
    shards = [
        take(loader_of(**arguments, process_index=p, process_count=4), 99)
        for p in range(4)
    ]
    assert [joined(parts) for parts in zip(*shards, strict=True)] == whole
    assert all(len(local) == 1 for shard in shards for local in shard)


def test_a_run_may_resume_on_another_number_of_processes():
    two = loader_of(process_index=1, process_count=2)
    take(two, 3)
    one = loader_of()
    one.set_state(two.get_state())
    assert take(one, 2) == take(loader_of(), 5)[3:]


def test_kept_rows_and_prompts_carry_their_number_in_the_source():
    source = [10, 11, 12, 13, 14]
    loader = make_loader(
        Rows(source, encode_prompt, np.array([4, 0, 2])),
        None,
        batch_size=3,
        seed=0,
        num_epochs=1,
    )
    (batch,) = loader
    assert sorted(zip(records(batch), batch.index, strict=True)) == [
        (10, 0),
        (12, 2),
        (14, 4),
    ]
    assert batch.index.dtype == np.int32


def test_rows_are_encoded_once():
    calls = []

    def counted(record):
        calls.append(record)
        return encode(record)

    loader = make_loader(range(4), counted, batch_size=2, seed=0, num_epochs=5)
    assert len(list(loader)) == 10
    assert set(calls) == set(range(4))
    assert len(calls) <= 5  # one more for the shape of a row


def test_eval_covers_every_row_and_blank_rows_count_for_nothing():
    batches = eval_batches(range(10), encode, batch_size=4)
    assert len(batches) == 3
    passes = [list(batches), list(batches)]
    for one in passes:
        real = [
            record
            for batch in one
            for record, valid in zip(records(batch), batch.valid[:, 0], strict=True)
            if valid
        ]
        assert real == list(range(10))
        assert one[-1].loss_mask.any(axis=1).tolist() == [True, True, False, False]
        assert all(batch.tokens.shape == (4, 3) for batch in one)


def test_eval_on_several_processes_ends_with_whole_blank_batches():
    shards = [
        list(
            eval_batches(
                range(5), encode, batch_size=4, process_index=p, process_count=2
            )
        )
        for p in range(2)
    ]
    assert [len(shard) for shard in shards] == [2, 2]
    assert shards[0][1].valid[:, 0].tolist() == [True, False]
    assert not shards[1][1].valid.any()


def test_blank_prompts_and_comparisons():
    (batch,) = eval_batches(range(2), encode_prompt, batch_size=3)
    assert batch.index.tolist() == [0, 1, -1]
    assert batch.valid.any(axis=1).tolist() == [True, True, False]

    def encode_comparison(record):
        return ComparisonBatch(
            prompt=np.ones(2, np.int32),
            prompt_valid=np.ones(2, bool),
            responses=np.ones((3, 4), np.int32),
            response_valid=np.ones((3, 4), bool),
            ranks=np.ones(3, np.int32),
            present=np.ones(3, bool),
            wording=np.arange(3, dtype=np.int32),
            packed_row=np.arange(3, dtype=np.int32),
        )

    (batch,) = eval_batches(range(1), encode_comparison, batch_size=2)
    assert batch.responses.shape == (2, 3, 4)
    for mask in (batch.prompt_valid, batch.response_valid, batch.present):
        assert mask[0].all()
        assert not mask[1].any()


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(UserError, match="batch_size=4 cannot be shared equally by 3"):
        loader_of(process_count=3)
    with pytest.raises(UserError, match="has 3 rows, fewer than the 4 of one batch"):
        loader_of(3)
    with pytest.raises(UserError, match="no rows"):
        eval_batches([], encode, batch_size=4)
    with pytest.raises(UserError, match="process_index=2 of process_count=2"):
        loader_of(process_index=2, process_count=2)
    with pytest.raises(UserError, match="num_epochs=0"):
        loader_of(num_epochs=0)


def test_an_error_in_a_record_reaches_the_user_as_it_is():
    def bad(record):
        if record == 7:
            raise UserError("record 7: too long")
        return encode(record)

    loader = make_loader(range(10), bad, batch_size=5, seed=0, num_epochs=1)
    with pytest.raises(UserError, match=r"^record 7: too long"):
        list(loader)


WINDOWS = np.arange(1000, 1000 + 3 * 7 + 2, dtype=np.uint16)  # 7 windows and a rest


def mixed(**changes):
    arguments = {"fraction": 0.1, "batch_size": 32, "seed": 0, **changes}
    return make_mixed_loader(Rows(range(60), encode), WINDOWS, **arguments)


def is_window(batch: TokenBatch) -> np.ndarray:
    return batch.tokens[:, 0] >= 1000


def test_mixed_batches_have_the_same_number_of_pretraining_rows():
    loader = mixed(num_epochs=2)
    batches = list(loader)
    assert len(batches) == len(loader) == 2 * (60 // 29)
    for batch in batches:
        assert batch.tokens.shape == (32, 3)
        assert is_window(batch).sum() == 3
        windows = batch.tokens[is_window(batch)]
        assert ((windows - windows[:, :1]) == [0, 1, 2]).all()
        assert ((windows[:, 0] - 1000) % 3 == 0).all()
        assert batch.loss_mask[is_window(batch)].tolist() == [[False, True, True]] * 3
        assert batch.loss_mask[~is_window(batch)].all()
    epoch = [record for batch in batches[:2] for record in records(batch)]
    assert len(set(epoch)) == len(epoch) == 64


def test_mixed_batches_draw_windows_in_an_order_of_their_own():
    tokens = np.arange(1000, 1000 + 3 * 60)
    arguments = {"fraction": 0.5, "batch_size": 60, "seed": 0}
    batch = next(make_mixed_loader(Rows(range(60), encode), tokens, **arguments))
    demonstrations, windows = records(batch)[:30], records(batch)[30:]
    assert demonstrations != [(window - 1000) // 3 for window in windows]


@pytest.mark.parametrize("consumed", [1, 2, 3])
def test_mixed_batches_resume_exactly(consumed):
    whole = take(mixed(), 6)
    first = mixed()
    take(first, consumed)
    second = mixed()
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert take(second, 6 - consumed) == whole[consumed:]
    with pytest.raises(UserError, match="pretraining_rows=3"):
        mixed(fraction=0.2).set_state(first.get_state())


def test_mixed_shards_put_together_are_the_global_batch():
    shards = [take(mixed(process_index=p, process_count=4), 5) for p in range(4)]
    assert [joined(parts) for parts in zip(*shards, strict=True)] == take(mixed(), 5)


def test_mixed_batches_need_both_kinds():
    for fraction in (0.0, 0.01, 1.0):
        with pytest.raises(UserError, match=f"fraction={fraction} of batch_size=32"):
            mixed(fraction=fraction)
    with pytest.raises(UserError, match="the pretraining text has 7 rows, fewer than"):
        mixed(fraction=0.5)
    with pytest.raises(UserError, match="the demonstrations' source has 60 rows"):
        mixed(batch_size=70)


def test_zipped_loaders_resume_together():
    def make():
        return zip_loaders(
            demonstrations=loader_of(10), pretraining=loader_of(7, batch_size=3)
        )

    def values(zipped, count):
        return [
            {name: records(batch) for name, batch in batches.items()}
            for batches in itertools.islice(zipped, count)
        ]

    whole = values(make(), 8)
    assert whole[0].keys() == {"demonstrations", "pretraining"}
    first = make()
    values(first, 3)
    second = make()
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert values(second, 5) == whole[3:]
