"""Messages about records that are left out, and the schedule of the loop."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from instructgpt.data.documents import TokenWindows
from instructgpt.data.transforms import encode_demonstration
from instructgpt.errors import UserError
from instructgpt.loop import LoopConfig
from instructgpt.stages.common import TrainConfig
from instructgpt.stages.inputs import (
    enough_windows,
    has_valid,
    prompt_rows,
    short_rows,
)


class Letters:
    """A token a letter."""

    pad_id = 0

    def prompt_ids(self, record, raw=False):
        return [ord(letter) for letter in record["prompt"]]

    def response_ids(self, text):
        return [*map(ord, text), 1]


CONTEXT = SimpleNamespace(
    config=SimpleNamespace(name="tune"),
    data_config=SimpleNamespace(max_prompt=3, max_response=2),
    data=SimpleNamespace(
        prompt_format=Letters(), has=lambda kind, split: kind == "prompts"
    ),
)
RECORDS = [
    {"id": "0", "prompt": "ab", "response": "c"},
    {"id": "1", "prompt": "defg", "response": "h"},
    {"id": "2", "prompt": "ijk", "response": "lm"},
    {"id": "3", "prompt": "n", "response": "o"},
]


def kept(records, what):
    """Numbers of the records that fit, of prompts or demonstrations."""
    if what.endswith("prompts"):
        return prompt_rows(CONTEXT, records, what).indices
    encode = functools.partial(
        encode_demonstration, prompt_format=Letters(), max_prompt=3, max_response=2
    )
    return short_rows(CONTEXT, records, encode, what, responses=True).indices


def test_prompts_that_are_too_long_are_told_in_one_line(capsys):
    assert kept(RECORDS, "test prompts") == [0, 2, 3]
    assert capsys.readouterr().out == (
        "tune: 1 of 4 test prompts have more than 3 tokens (config.data.max_prompt) and"
        " are left out; raise the limit to keep them\n"
    )
    assert kept(RECORDS, "train demonstrations") == [0, 3]
    out = capsys.readouterr().out
    assert "tune: 2 of 4 train demonstrations have prompts of more than 3" in out
    assert "responses of more than 2 (config.data.max_response)" in out
    assert out.count("\n") == 1


def test_nothing_is_said_of_prompts_that_all_fit(capsys):
    assert kept(RECORDS[2:], "train prompts") == [0, 1]
    assert not capsys.readouterr().out


def test_prompts_that_are_all_too_long_are_an_error():
    with pytest.raises(UserError, match=r"none of 1 test prompts fits config\.data\."):
        kept(RECORDS[1:2], "test prompts")
    both = (
        r"none of 1 valid demonstrations fits .*max_prompt=3 and .*max_response=2, in"
    )
    with pytest.raises(UserError, match=both):
        kept(RECORDS[1:2], "valid demonstrations")


def test_what_is_left_out_without_a_valid_split_is_told(capsys):
    assert has_valid(CONTEXT, "prompts", "samples")
    assert not capsys.readouterr().out
    assert not has_valid(CONTEXT, "documents", "loss")
    out = capsys.readouterr().out
    assert "tune: the data have no valid documents, so there is no loss; add " in out


def test_the_windows_of_a_short_text_are_used_again(capsys):
    windows = TokenWindows(np.arange(7), 2)  # three, and a token that is left over
    assert enough_windows(CONTEXT, windows, 3) is windows
    assert not capsys.readouterr().out
    rows = enough_windows(CONTEXT, windows, 8)
    assert [int(rows[i].tokens[0]) for i in range(len(rows))] == [0, 2, 4] * 2 + [0, 2]
    out = capsys.readouterr().out
    assert "fill 3 windows of pretraining text, and an iteration takes 8" in out


@pytest.mark.parametrize("key", ["log_every", "eval_every", "checkpoint_every"])
def test_every_epoch_is_so_many_steps(key):
    config = TrainConfig(batch_size=8, num_epochs=3, **{key: -1}).loop(
        5, verify="files"
    )
    expected = {"num_steps": 15, key: 5}
    assert config == LoopConfig(**expected)
