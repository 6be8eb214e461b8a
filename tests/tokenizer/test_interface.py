"""A tokenizer that would train a model wrongly is refused."""

from types import SimpleNamespace

import pytest

from instructgpt.errors import UserError
from instructgpt.tokenizer import check_tokenizer


def check(pad, bos, eos, *, rows=10, padded_rows=10, num_ids=10):
    """With a vocabulary of 10."""
    tokenizer = SimpleNamespace(
        **dict(pad_id=pad, bos_id=bos, eos_id=eos, vocab_size=10, num_ids=num_ids),
    )
    check_tokenizer(tokenizer, vocab_size=rows, padded_vocab_size=padded_rows)


def test_check_lets_whole_tokenizers_through():
    check(0, 1, 2)
    check(10, 1, 1, padded_rows=11)  # GPT-2: BOS is EOS, and padding is added
    check(0, None, 1)


def test_check_refuses_what_would_train_wrongly():
    with pytest.raises(UserError, match="10 pieces but the model predicts 9"):
        check(0, 1, 2, rows=9)
    with pytest.raises(UserError, match="pads with EOS"):
        check(2, 1, 2)
    with pytest.raises(UserError, match="padding and BOS share an id"):
        check(1, 1, 2)
    with pytest.raises(UserError, match="outside the vocabulary"):
        check(0, 1, 10)
    with pytest.raises(UserError, match="id 10 but the embedding has 10 rows"):
        check(10, 1, 2)
    with pytest.raises(UserError, match=r"up to the id 12 but .* 11 rows"):
        check(10, 1, 2, num_ids=13, padded_rows=11)
