"""Control tokens and added tokens come from the files that lie beside a tokenizer."""

import json
import shutil

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from instructgpt.errors import UserError
from instructgpt.tokenizer import load_tokenizer
from tests.tokenizer.samples import AWKWARD, train_byte_level, train_pieces

SIZE = 60
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write(folder, **files):
    """NAME=content as NAME.json."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def pieces(tmp_path):
    """A SentencePiece model: 0 unknown, 1 <s>, 2 </s>, 3 <|a|>, 4 <tool> in texts."""
    model = train_pieces(
        model_type="bpe",
        vocab_size=SIZE,
        control_symbols=["<|a|>"],
        user_defined_symbols=["<tool>"],
    )
    (tmp_path / "tokenizer.model").write_bytes(model)
    return tmp_path


@pytest.fixture
def merges(tmp_path):
    """GPT-2's two files, with 300 tokens."""
    pipeline = train_byte_level(*CONTROLS)
    pipeline.model.save(str(tmp_path))
    return tmp_path


def refused(folder, *parts):
    with pytest.raises(UserError) as error:
        load_tokenizer(folder)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize(
    ("eos", "token"), [("<|a|>", 3), ({"content": "<s>"}, 1), ("<tool>", 4)]
)
def test_eos_of_a_sentencepiece_model_is_the_piece_that_is_named(
    pieces, file, eos, token
):
    write(pieces, **{file: {"eos_token": eos}})
    tokenizer = load_tokenizer(pieces)
    assert tokenizer.eos_id == token
    # It is a control token now, which no text has.
    name = eos if isinstance(eos, str) else eos["content"]
    assert token not in tokenizer.encode(f"the{name} cat")
    assert tokenizer.control_id(name) == token
    assert tokenizer.control_name(token) == name
    assert tokenizer.decode([*tokenizer.encode("the cat"), token]) == "the cat"


def test_added_tokens_of_a_sentencepiece_model_follow_its_pieces(pieces):
    plain = load_tokenizer(pieces)
    write(
        pieces,
        added_tokens={"<|end|>": SIZE, "<|pad|>": SIZE + 1, "<|begin|>": SIZE + 3},
        special_tokens_map={"eos_token": "<|end|>", "pad_token": "<|pad|>"},
    )
    tokenizer = load_tokenizer(pieces)
    assert (tokenizer.eos_id, tokenizer.pad_id) == (SIZE, SIZE + 1)
    # What no text can have is not predicted, but has an id.
    assert (tokenizer.vocab_size, tokenizer.num_ids) == (SIZE + 1, SIZE + 4)
    assert tokenizer.control_id("<|begin|>") == SIZE + 3
    assert tokenizer.encode("the<|end|>") == plain.encode("the<|end|>")
    assert tokenizer.decode([SIZE, *plain.encode("the"), SIZE + 3]) == "the"
    assert tokenizer.fingerprint != plain.fingerprint


def test_added_tokens_that_are_text_are_found_in_texts(pieces):
    decoder = {str(SIZE): {"content": "<call>", "special": False}}
    decoder["3"] = {"content": "<|other name|>", "special": True}
    write(pieces, tokenizer_config={"added_tokens_decoder": decoder})
    tokenizer = load_tokenizer(pieces)
    ids = tokenizer.encode("the cat<call>the")
    assert ids.count(SIZE) == 1
    assert tokenizer.decode(ids) == "the cat<call>the"
    assert tokenizer.token_id("<call>") == SIZE
    assert tokenizer.vocab_size == tokenizer.pad_id == SIZE + 1
    assert tokenizer.control_id("<|other name|>") == 3


@pytest.mark.parametrize(
    ("settings", "start_ids"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, (1,)),
        ({"tokenizer_class": "LlamaTokenizerFast"}, (1,)),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": None}, (1,)),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, ()),
        ({"tokenizer_class": "CodeLlamaTokenizer", "bos_token": "<|a|>"}, (3,)),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, ()),
        ({}, ()),
    ],
)
def test_a_class_that_begins_texts_with_bos_does_so(pieces, settings, start_ids):
    write(pieces, tokenizer_config=settings)
    assert load_tokenizer(pieces).start_ids == start_ids


def test_added_tokens_of_vocabulary_and_merges(merges):
    write(
        merges,
        added_tokens={"<|eot|>": 301, "<|bot|>": 300},
        tokenizer_config={"eos_token": "<|eot|>", "bos_token": "<|bot|>"},
    )
    tokenizer = load_tokenizer(merges)
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (301, 300, 302)
    for text in AWKWARD:
        ids = tokenizer.encode(f"{text}<|eot|>")
        assert max(ids) < 300
        assert tokenizer.decode([*ids, 301]) == f"{text}<|eot|>"


def test_padding_beyond_all_texts_is_no_token_to_predict(tmp_path):
    pipeline = train_byte_level(*CONTROLS)
    pipeline.add_special_tokens(["<pad>", "<|file|>"])
    pipeline.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, tokenizer_config={"eos_token": "<|im_end|>", "pad_token": "<pad>"})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.num_ids) == (
        300,
        300,
        302,
    )
    pipeline.add_tokens(["<tool>"])  # which text can spell
    pipeline.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).vocab_size == 303


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (
            {"tokenizer_config": {"eos_token": "<|im_end|>"}},
            ("tokenizer_config.json: eos_token is '<|im_end|>', which is no", "added"),
        ),
        (
            {"special_tokens_map": {"bos_token": {"content": "<b>"}}},
            ("special_tokens_map.json: bos_token is '<b>', which is no piece",),
        ),
        ({"tokenizer_config": {"eos_token": 7}}, ("eos_token is 7, not the text",)),
        ({"tokenizer_config": {"pad_token": ["<s>"]}}, ('pad_token is ["<s>"], not',)),
        ({"tokenizer_config": {"eos_token": "\ud800"}}, ("eos_token is", "correct it")),
        (
            {"tokenizer_config": {"add_bos_token": "yes"}},
            ('add_bos_token is "yes"; make it true or false',),
        ),
        ({"added_tokens": {"<a>": 2**31}}, ("added_tokens.json: '<a>' has the id",)),
        ({"added_tokens": {"<a>": -1}}, ("'<a>' has the id \"-1\"; ids are whole",)),
        ({"added_tokens": {"<a>": None}}, ("'<a>' has the id",)),
        ({"added_tokens": {"<a>": 9}}, ("gives '<a>' the id 9", "which is", "copy")),
        (
            {"tokenizer_config": {"added_tokens_decoder": ["<a>"]}},
            ("added_tokens_decoder is",),
        ),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"60": {"special": True}}}},
            ("added_tokens_decoder.60 is",),
        ),
    ],
    ids=str,
)
def test_settings_that_cannot_be_followed_are_named(pieces, files, parts):
    write(pieces, **files)
    refused(pieces, *parts)


@pytest.mark.parametrize("number", [2**31, 2**32 - 1, 1 << 24])
def test_ids_that_nothing_could_count_up_to_are_named(merges, number):
    vocabulary = json.loads((merges / "vocab.json").read_text())
    write(merges, vocab={**vocabulary, "far": number})
    refused(merges, f"vocab.json: token 'far' has the id {number}; ids are below")
    pipeline = json.loads(train_byte_level(*CONTROLS).to_str())
    pipeline["model"]["vocab"]["far"] = number
    write(merges, tokenizer=pipeline)
    refused(merges, f"tokenizer.json: token 'far' has the id {number}")


def test_an_added_token_that_gets_another_id_is_named(merges):
    write(merges, added_tokens={"<|eot|>": 305})
    refused(merges, "added_tokens.json gives '<|eot|>' the id 305, but with", "is 300")


@pytest.mark.parametrize(
    "name",
    ["tokenizer.model", "tokenizer_config.json", "added_tokens.json", "tokenizer.json"],
)
def test_git_lfs_pointers_are_named(pieces, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (pieces / name).write_text(pointer)
    refused(pieces, f"{name}: is a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("prefix", [True, False])
def test_line_breaks_survive_where_there_is_a_piece_for_their_byte(prefix, tmp_path):
    model = train_pieces(
        model_type="bpe", vocab_size=320, byte_fallback=True, add_dummy_prefix=prefix
    )
    (tmp_path / "tokenizer.model").write_bytes(model)
    tokenizer = load_tokenizer(tmp_path)
    for text in ["the cat\nthe dog", "\n\nthe\n", "a\n b"]:
        squeezed = "\n".join(line.strip() for line in text.split("\n"))
        assert tokenizer.decode(tokenizer.encode(text)) == squeezed
    assert tokenizer.encode("the cat\n") != tokenizer.encode("the cat")


def test_what_the_library_cannot_encode_is_named(tmp_path):
    model = models.WordLevel({"a": 0, "<end>": 1}, unk_token="<unk>")
    pipeline = tokenizers.Tokenizer(model)
    pipeline.pre_tokenizer = pre_tokenizers.Whitespace()
    pipeline.normalizer = normalizers.NFC()
    pipeline.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, tokenizer_config={"eos_token": "<end>"})
    refused(tmp_path, "tokenizer.json: cannot encode", "use another tokenizer")
    shutil.rmtree(tmp_path)
