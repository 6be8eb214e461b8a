"""Messages about records that are left out, and the schedule of the loop."""

from types import SimpleNamespace

import pytest

from instructgpt.errors import UserError
from instructgpt.loop import LoopConfig
from instructgpt.stages.common import TrainConfig
from instructgpt.stages.inputs import has_valid, keep_short


class Letters:
    """A token a letter."""

    def prompt_ids(self, record):
        return list(record["prompt"])

    def response_ids(self, text):
        return [*text, "EOS"]


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


def test_prompts_that_are_too_long_are_told_in_one_line(capsys):
    assert keep_short(CONTEXT, RECORDS, "test prompts").tolist() == [0, 2, 3]
    assert capsys.readouterr().out == (
        "tune: 1 of 4 test prompts have more than 3 tokens (config.data.max_prompt) and"
        " are left out; raise the limit to keep them\n"
    )
    what = "train demonstrations"
    assert keep_short(CONTEXT, RECORDS, what, responses=True).tolist() == [0, 3]
    out = capsys.readouterr().out
    assert "tune: 2 of 4 train demonstrations have prompts of more than 3" in out
    assert "responses of more than 2 (config.data.max_response)" in out
    assert out.count("\n") == 1


def test_nothing_is_said_of_prompts_that_all_fit(capsys):
    assert keep_short(CONTEXT, RECORDS[2:], "train prompts").tolist() == [0, 1]
    assert not capsys.readouterr().out


def test_prompts_that_are_all_too_long_are_an_error():
    with pytest.raises(UserError, match=r"none of 1 test prompts fits config\.data\."):
        keep_short(CONTEXT, RECORDS[1:2], "test prompts")


def test_what_is_left_out_without_a_valid_split_is_told(capsys):
    assert has_valid(CONTEXT, "prompts", "samples")
    assert not capsys.readouterr().out
    assert not has_valid(CONTEXT, "documents", "loss")
    out = capsys.readouterr().out
    assert "tune: the data have no valid documents, so there is no loss; add " in out


@pytest.mark.parametrize("key", ["log_every", "eval_every", "checkpoint_every"])
def test_every_epoch_is_so_many_steps(key):
    config = TrainConfig(batch_size=8, num_epochs=3, **{key: -1}).loop(
        5, verify="files"
    )
    expected = {"num_steps": 15, key: 5}
    assert config == LoopConfig(**expected)
