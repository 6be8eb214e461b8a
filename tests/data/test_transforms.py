"""Rows of token ids, compared with rows written by hand."""

import functools

import numpy as np
import pytest

from instructgpt.data.documents import TokenWindows, document_tokens
from instructgpt.data.rows import Rows
from instructgpt.data.sources import build, open_source
from instructgpt.data.templates import PromptFormat
from instructgpt.data.transforms import (
    count_cut,
    encode_comparison,
    encode_demonstration,
    encode_prompt,
)
from instructgpt.errors import UserError
from instructgpt.tokenizer import train_tokenizer

PAD, BOS, EOS, NEWLINE, A = 0, 1, 2, 10, ord("a")


class Letters:
    """A tokenizer that a reader can follow: one token a character, its code."""

    pad_id, bos_id, eos_id, vocab_size, fingerprint = PAD, BOS, EOS, 128, "letters"
    start_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


class BegunLetters(Letters):
    """BOS stands before every text."""

    start_ids, fingerprint = (BOS,), "begun letters"


LETTERS = PromptFormat(Letters())
BEGUN = PromptFormat(BegunLetters())


def demonstration(prompt="ab", response="c") -> dict:
    return {"id": "d1", "prompt": prompt, "response": response}


def test_demonstration_row_by_hand():
    row = encode_demonstration(demonstration(), LETTERS, max_prompt=5, max_response=4)
    assert row.tokens.tolist() == [PAD, PAD, A, A + 1, NEWLINE, A + 2, EOS, PAD, PAD]
    assert row.valid.tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert row.loss_mask.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert [field.dtype for field in row] == [np.int32, np.int32, bool]


def test_demonstration_loss_on_all_leaves_out_the_token_without_context():
    row = encode_demonstration(
        demonstration(), LETTERS, max_prompt=5, max_response=4, loss_on="all"
    )
    assert row.loss_mask.tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    full = encode_demonstration(
        demonstration(), LETTERS, max_prompt=3, max_response=2, loss_on="all"
    )
    assert full.loss_mask.tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(UserError, match="loss_on='prompt'"):
        encode_demonstration(
            demonstration(), LETTERS, max_prompt=5, max_response=4, loss_on="prompt"
        )


def test_lengths_count_the_newline_and_eos():
    full = encode_demonstration(demonstration(), LETTERS, max_prompt=3, max_response=2)
    assert full.valid.all()
    with pytest.raises(
        UserError, match="record 'd1': the prompt has 3 tokens, the limit is 2; raise"
    ):
        encode_demonstration(demonstration(), LETTERS, max_prompt=2, max_response=2)
    with pytest.raises(
        UserError, match="record 'd1': the response has 2 tokens, the limit is 1; raise"
    ):
        encode_demonstration(demonstration(), LETTERS, max_prompt=3, max_response=1)


def test_prompt_row_by_hand():
    row = encode_prompt({"id": "p1", "prompt": "ab"}, LETTERS, max_prompt=4)
    assert row.tokens.tolist() == [PAD, A, A + 1, NEWLINE]
    assert row.valid.tolist() == [0, 1, 1, 1]
    assert row.index == -1
    with pytest.raises(UserError, match="record 'p1': the prompt has 3 tokens"):
        encode_prompt({"id": "p1", "prompt": "ab"}, LETTERS, max_prompt=2)


def test_bos_begins_each_prompt_and_no_response():
    sizes = {"max_prompt": 5, "max_response": 3}
    row = encode_demonstration(demonstration(), BEGUN, **sizes)
    assert row.tokens.tolist() == [PAD, BOS, A, A + 1, NEWLINE, A + 2, EOS, PAD]
    assert row.valid.tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
    assert row.loss_mask.tolist() == [0, 0, 0, 0, 0, 1, 1, 0]
    row = encode_demonstration(demonstration(), BEGUN, **sizes, loss_on="all")
    assert row.loss_mask.tolist() == [0, 0, 1, 1, 1, 1, 1, 0]  # BOS has no context
    prompt = encode_prompt({"id": "p1", "prompt": "ab"}, BEGUN, max_prompt=5)
    assert prompt.tokens.tolist() == [PAD, BOS, A, A + 1, NEWLINE]
    raw = encode_prompt({"id": "p1", "prompt": "ab"}, BEGUN, max_prompt=3, raw=True)
    assert raw.tokens.tolist() == [BOS, A, A + 1]
    assert raw.valid.all()
    record = {"id": "c1", "prompt": "a", "responses": ["b", ""], "ranks": [1, 2]}
    ranked = encode_comparison(record, BEGUN, **sizes, max_responses=2)
    assert ranked.prompt.tolist() == [PAD, PAD, BOS, A, NEWLINE]
    assert ranked.responses.tolist() == [[A + 1, EOS, PAD], [EOS, PAD, PAD]]


def test_bos_counts_towards_the_limit():
    with pytest.raises(UserError, match="the prompt has 4 tokens, the limit is 3"):
        encode_prompt({"id": "p1", "prompt": "ab"}, BEGUN, max_prompt=3)
    source = [demonstration("a" * n, "b") for n in (1, 2)]
    for form, kept in ((LETTERS, [0, 1]), (BEGUN, [0])):
        encode = functools.partial(encode_prompt, prompt_format=form, max_prompt=3)
        assert Rows.that_fit(source, encode, otherwise="none").indices == kept


def test_a_row_holds_the_dialogue_before_its_prompt():
    record = demonstration() | {"history": ["a", "b"]}
    row = encode_demonstration(record, BEGUN, max_prompt=8, max_response=2)
    earlier = [BOS, A, NEWLINE, A + 1, EOS]
    assert row.tokens.tolist() == [*earlier, A, A + 1, NEWLINE, A + 2, EOS]
    assert row.loss_mask.tolist() == [0] * 8 + [1, 1]  # earlier responses are context


def test_comparison_row_by_hand():
    record = {
        "id": "c1",
        "prompt": "a",
        "responses": ["b", "", "bbb", "bb"],
        "ranks": [2, 3, 1, 2],
    }
    sizes = {"max_prompt": 3, "max_response": 3}
    row = encode_comparison(record, LETTERS, **sizes, max_responses=5)
    b = A + 1
    assert row.prompt.tolist() == [PAD, A, NEWLINE]
    assert row.prompt_valid.tolist() == [0, 1, 1]
    assert row.responses.tolist() == [
        [b, EOS, PAD],
        [EOS, PAD, PAD],
        [b, b, b],  # cut at the limit, so without EOS
        [b, b, EOS],
        [PAD, PAD, PAD],
    ]
    assert row.response_valid.sum(axis=1).tolist() == [2, 1, 3, 3, 0]
    assert row.response_valid[:, 0].tolist() == [1, 1, 1, 1, 0]
    assert row.ranks.tolist() == [2, 3, 1, 2, 0]
    assert row.present.tolist() == [1, 1, 1, 1, 0]
    assert len({*row.wording[:4].tolist()}) == 4
    assert count_cut(row, EOS) == 1
    with pytest.raises(UserError, match="record 'c1': 4 responses, the limit is 3"):
        encode_comparison(record, LETTERS, **sizes, max_responses=3)
    with pytest.raises(UserError, match="record 'c1': the prompt has 2 tokens"):
        encode_comparison(
            record, LETTERS, max_prompt=1, max_response=3, max_responses=5
        )


def test_responses_that_are_the_same_after_the_cut_have_one_wording():
    texts = ["abc", "abd", "ab", "abda", "ab"]
    record = {"id": "c", "prompt": "a", "responses": texts, "ranks": [1, 2, 3, 4, 5]}
    wordings = {
        3: [0, 1, 2, 1, 2],  # abc abd ab. abd ab.
        2: [0, 0, 0, 0, 0],
    }
    for limit, expected in wordings.items():
        row = encode_comparison(
            record, LETTERS, max_prompt=3, max_response=limit, max_responses=5
        )
        assert row.wording.tolist() == expected
        assert count_cut(row, EOS) == {3: 3, 2: 5}[limit]


def test_rows_that_fit_are_encoded_once_and_keep_their_numbers():
    asked = []

    def encode(record):
        asked.append(record["prompt"])
        return encode_prompt(record, LETTERS, max_prompt=4)

    source = [demonstration("a" * n, "b") for n in (1, 9, 2, 3)]
    rows = Rows.that_fit(source, encode, otherwise="none fits")
    assert rows.indices == [0, 2, 3]
    assert rows.record(1) is source[2]
    assert [int(rows[row].index) for row in range(len(rows))] == [0, 2, 3]
    first = rows.first(2)
    assert [int(first[row].index) for row in range(len(first))] == [0, 2]
    assert len(rows.first(9)) == 3
    assert asked == [record["prompt"] for record in source]
    with pytest.raises(UserError, match="none fits"):
        Rows.that_fit(source[1:2], encode, otherwise="none fits")


def test_a_response_that_is_too_long_is_left_out_with_its_prompt():
    source = [demonstration("a" * n, "b" * m) for n, m in [(1, 1), (9, 1), (2, 9)]]
    encode = functools.partial(
        encode_demonstration, prompt_format=LETTERS, max_prompt=4, max_response=4
    )
    assert Rows.that_fit(source, encode, otherwise="none").indices == [0]


def test_if_none_fits_it_is_said_how_long_they_are_and_what_to_raise():
    sizes = [(9, 1), (1, 7), (11, 1), (1, 8), (30, 1), (1, 9)]
    source = [demonstration("a" * n, "b" * m) for n, m in sizes]
    encode = functools.partial(
        encode_demonstration, prompt_format=LETTERS, max_prompt=4, max_response=4
    )
    lengths = [len(LETTERS.prompt_ids(record)) for record in source[::2]]
    with pytest.raises(UserError) as error:
        Rows.that_fit(source, encode, otherwise="none of 6 fits")
    message = str(error.value)
    assert message.startswith("none of 6 fits; 3 prompts are too long (half have up to")
    assert f"half have up to {lengths[1]}, 90 % up to {lengths[2]} and the" in message
    assert "in tokens): raise config.data.max_prompt; 3 responses are too" in message
    assert message.endswith("raise config.data.max_response; or give shorter ones")


def documents(tmp_path, texts, name="mine"):
    build("documents", name, tmp_path, {"train": lambda: [{"text": t} for t in texts]})
    return open_source("documents", name, tmp_path, "train")


def test_document_tokens_are_joined_by_eos_and_kept_beside_the_set(tmp_path):
    source = documents(tmp_path, ["ab", "c\nd"])
    tokens = document_tokens(source, LETTERS.tokenizer)
    expected = [A, A + 1, EOS, A + 2, NEWLINE, A + 3, EOS]
    assert tokens.tolist() == expected
    assert tokens.dtype == np.uint16
    (file,) = source.directory.glob("tokens-*")
    before = file.stat().st_mtime_ns
    assert document_tokens(source, LETTERS.tokenizer).tolist() == expected
    assert file.stat().st_mtime_ns == before
    assert len(list(source.directory.glob("tokens-*"))) == 1


def test_bos_begins_each_document(tmp_path):
    tokens = document_tokens(documents(tmp_path, ["ab", "c"]), BEGUN.tokenizer)
    assert tokens.tolist() == [BOS, A, A + 1, EOS, BOS, A + 2, EOS]


def test_document_tokens_are_written_again_for_another_tokenizer_or_text(tmp_path):
    source = documents(tmp_path, ["ab"])
    document_tokens(source, LETTERS.tokenizer)

    class Wide(Letters):
        vocab_size, eos_id, fingerprint = 100_000, 70_000, "wide"

    wide = document_tokens(source, Wide())
    assert wide.tolist() == [A, A + 1, 70_000]
    assert wide.dtype == np.uint32
    assert len(list(source.directory.glob("tokens-*"))) == 2
    other = document_tokens(documents(tmp_path, ["b"], name="other"), LETTERS.tokenizer)
    assert other.tolist() == [A + 1, EOS]


def test_document_tokens_are_written_again_when_the_set_is_replaced(tmp_path):
    source = documents(tmp_path, ["ab"])
    document_tokens(source, LETTERS.tokenizer)
    (replacement,) = documents(tmp_path, ["ba"], name="other").files
    source.files[0].write_bytes(replacement.read_bytes())
    replaced = open_source("documents", "mine", tmp_path, "train")
    assert document_tokens(replaced, LETTERS.tokenizer).tolist() == [A + 1, A, EOS]


def test_damaged_document_tokens_are_named(tmp_path):
    source = documents(tmp_path, ["ab"])
    document_tokens(source, LETTERS.tokenizer)
    (file,) = source.directory.glob("tokens-*")
    whole = file.read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    for damaged in (whole[:-1], flipped, whole.replace(b"<u2", b"<i2"), b"", b"x"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"tokens-[\w-]+\.npy: damaged"):
            document_tokens(source, LETTERS.tokenizer)


def test_a_real_tokenizer_gives_back_the_documents(tmp_path):
    texts = ["the cat sat.\n", "the ▁ dog </s> ran"]
    tokenizer = train_tokenizer(texts * 9, tmp_path / "model", vocab_size=290)
    tokens = document_tokens(documents(tmp_path, texts), tokenizer)
    cuts = np.flatnonzero(tokens == tokenizer.eos_id)
    assert len(cuts) == 2
    parts = [tokens[: cuts[0]], tokens[cuts[0] + 1 : cuts[1]]]
    assert [tokenizer.decode(part) for part in parts] == texts


def test_windows_cover_the_tokens_in_order():
    tokens = np.arange(11, dtype=np.uint16)
    windows = TokenWindows(tokens, 4)
    assert len(windows) == 2
    assert [window.tokens.tolist() for window in windows] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert windows[1].tokens.dtype == np.int32
    assert windows[1].valid.tolist() == [1, 1, 1, 1]
    assert windows[1].loss_mask.tolist() == [0, 1, 1, 1]
    with pytest.raises(IndexError):
        windows[2]
    with pytest.raises(UserError, match="11 tokens, fewer than one window of 12"):
        TokenWindows(tokens, 12)
