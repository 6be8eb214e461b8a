"""Tokenizers from the files of public models, as they lie on disk."""

import json
import shutil

import pytest
import tokenizers
from tokenizers import processors

from instructgpt.errors import UserError
from instructgpt.tokenizer import copy_tokenizer, load_tokenizer
from tests.shared_data import shared_data
from tests.tokenizer.samples import (
    AWKWARD,
    random_texts,
    train_byte_level,
    train_pieces,
)

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>")
IM_START, IM_END, PAD = 1, 2, 3


@pytest.fixture(scope="module")
def pipeline() -> tokenizers.Tokenizer:
    """Begins texts with <|im_start|>, as a Llama 3 file does with its BOS."""
    pipeline = train_byte_level(*CONTROLS)
    pipeline.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", IM_START)]
    )
    return pipeline


@pytest.fixture
def folder(pipeline, tmp_path):
    pipeline.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_tokenizer_json_alone_ends_texts_with_endoftext(folder):
    for path in [folder, folder / "tokenizer.json"]:
        tokenizer = load_tokenizer(path)
        assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
        assert (tokenizer.eos_id, tokenizer.bos_id) == (0, None)
        assert tokenizer.pad_id == tokenizer.vocab_size == 300
        assert tokenizer.start_ids == ()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("spelt", [str, lambda token: {"content": token}])
def test_control_tokens_are_those_of_the_settings(folder, name, spelt):
    settings = {"eos_token": spelt("<|im_end|>"), "bos_token": spelt("<|im_start|>")}
    write(folder / name, settings | {"pad_token": spelt("<pad>"), "unk_token": None})
    tokenizer = load_tokenizer(folder)
    ids = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert ids == (IM_START, IM_END, PAD)
    assert tokenizer.start_ids == (IM_START,)
    assert not {*ids} & {*tokenizer.encode("<|im_start|>the<|im_end|><pad>")}


def test_the_map_overrules_an_older_config_but_where_it_is_null(folder):
    config = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    write(folder / "tokenizer_config.json", config)
    given = {"eos_token": "<|endoftext|>", "pad_token": "<pad>", "bos_token": None}
    write(folder / "special_tokens_map.json", given)
    tokenizer = load_tokenizer(folder)
    ids = (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id)
    assert ids == (0, IM_START, PAD)
    # A config that lists the added tokens is of a time when the map says no more.
    decoder = {"2": {"content": "<|im_end|>", "special": True}}
    write(folder / "tokenizer_config.json", config | {"added_tokens_decoder": decoder})
    tokenizer = load_tokenizer(folder)
    ids = (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id)
    assert ids == (IM_END, IM_START, tokenizer.vocab_size)


def test_add_bos_token_of_the_config_overrules_the_post_processor(folder):
    settings = {"bos_token": "<|im_start|>", "add_bos_token": False}
    write(folder / "tokenizer_config.json", settings)
    assert load_tokenizer(folder).start_ids == ()


def test_a_folder_with_several_tokenizers_is_read_as_transformers_does(folder):
    (folder / "tokenizer.model").write_bytes(
        train_pieces(model_type="bpe", vocab_size=60)
    )
    write(folder / "vocab.json", {"<|endoftext|>": 0, "a": 1})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert load_tokenizer(folder).vocab_size == 300
    (folder / "tokenizer.json").unlink()
    assert load_tokenizer(folder).vocab_size == 60
    (folder / "tokenizer.model").unlink()
    assert load_tokenizer(folder).vocab_size == 2


@pytest.mark.parametrize(
    "names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")], ids=str
)
def test_vocabulary_and_merges_are_cut_as_gpt2_does(pipeline, tmp_path, names):
    for path, name in zip(pipeline.model.save(str(tmp_path)), names, strict=True):
        shutil.move(path, tmp_path / name)
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 300)
    assert tokenizer.start_ids == ()
    whole = tokenizers.Tokenizer.from_str(pipeline.to_str())
    whole.encode_special_tokens = True  # leaves control tokens in a text as they are
    for text in AWKWARD:
        ids = tokenizer.encode(text)
        assert ids == whole.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    # OPT: such files, and settings.
    settings = {"eos_token": {"content": "<|im_end|>"}, "add_bos_token": True}
    write(tmp_path / "tokenizer_config.json", settings | {"pad_token": "<pad>"})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.start_ids, tokenizer.eos_id) == ((IM_END,), IM_END)
    assert tokenizer.pad_id == PAD


def test_gpt2():
    tokenizer = load_tokenizer(shared_data("tok_gpt2"))
    assert tokenizer.vocab_size == tokenizer.pad_id == 50257
    assert tokenizer.bos_id == tokenizer.eos_id == 50256
    assert tokenizer.start_ids == ()
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.token_id("\n") == 198
    for text in [*AWKWARD, *random_texts(1000)]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.eos_id for i in ids)


def refused(path, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        load_tokenizer(path)
    for part in parts:
        assert part in str(error.value)


def test_what_is_missing_is_named(folder):
    empty = folder / "empty"
    empty.mkdir()
    refused(empty, f"{empty}: no tokenizer; it needs tokenizer.json")
    refused(folder / "away.json", "away.json: cannot read", "correct the path")
    write(empty / "encoder.json", {})
    refused(empty, "vocab.bpe: missing, but encoder.json is there; copy both")
    (empty / "vocab.bpe").write_text("#version: 0.2\n")
    refused(empty, "encoder.json: the vocabulary has no token '<|endoftext|>'")
    state = (folder / "tokenizer.json").read_text(encoding="utf-8")
    without = state.replace("<|endoftext|>", "<|end_of_text|>")
    (folder / "tokenizer.json").write_text(without, encoding="utf-8")
    refused(folder, "tokenizer.json: nothing says which token ends", "tokenizer_config")


def test_what_is_damaged_is_named(folder):
    write(folder / "tokenizer_config.json", ["eos_token"])
    refused(folder, "tokenizer_config.json: not valid JSON, or", "copy it again")
    (folder / "tokenizer_config.json").write_bytes(b'{"eos_token": "\xff"')
    refused(folder, "tokenizer_config.json: not valid JSON, or", "copy it again")
    content = (folder / "tokenizer.json").read_bytes()
    for damaged in [b"", content[: len(content) // 2], b"{}", b"\xff" + content]:
        (folder / "tokenizer.json").write_bytes(damaged)
        refused(folder, "tokenizer.json: not a tokenizer.json", "copy it again")


@pytest.mark.parametrize("damaged", ["vocab.json", "merges.txt"])
def test_damaged_vocabulary_and_merges_are_named(pipeline, tmp_path, damaged):
    pipeline.model.save(str(tmp_path))
    path = tmp_path / damaged
    path.write_text(path.read_text(encoding="utf-8")[:-2], encoding="utf-8")
    refused(tmp_path, "vocab.json: cannot be read with merges.txt", "copy both again")


def test_a_copy_is_the_same_tokenizer(folder):
    write(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    (folder / "weights.bin").write_bytes(b"")
    copy = folder / "a" / "copy"
    assert copy_tokenizer(folder, copy)
    assert {path.name for path in copy.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert load_tokenizer(copy).fingerprint == load_tokenizer(folder).fingerprint
    (folder / "mine.model").write_bytes(train_pieces(model_type="bpe", vocab_size=60))
    assert copy_tokenizer(folder / "mine.model", folder / "b")
    assert load_tokenizer(folder / "b").vocab_size == 60
    empty = folder / "empty"
    empty.mkdir()
    assert not copy_tokenizer(empty, folder / "c")
    assert not (folder / "c").exists()
