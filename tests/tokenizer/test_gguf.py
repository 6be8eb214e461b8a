"""The tokenizer in a GGUF file's metadata gives the ids of the original one."""

import json
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import pre_tokenizers

from instructgpt.errors import UserError
from instructgpt.tokenizer import Tokenizer, load_tokenizer
from instructgpt.tokenizer.gguf import write_gguf_tokenizer
from tests.shared_data import shared_data
from tests.tokenizer.samples import (
    AWKWARD,
    random_texts,
    train_byte_level,
    train_pieces,
)

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
BYTE_LEVEL = ("gpt-2", "smollm", "llama-bpe", "qwen2")
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|file|>")
# Where the kinds cut differently, or nearly so.
TEXTS = [
    "I'll DON'Ts we'vex it'ss ''s",
    "in 1984, 12345 or 7; x2y ½ ٣٤٥٦",
    "a\n\n b\r\n\tc   d  ",
    "don't!!! (yes) — no?\n\n  \n",
    "naïve é e\u0301 …",
    " \u00a0the_cat.sat/on",
]


@pytest.fixture(scope="module")
def trained() -> tokenizers.Tokenizer:
    """Its merges would join the parts of each of `TEXTS` if nothing cut them."""
    texts = [text[i:] for text in TEXTS for i in range(len(text))]
    return train_byte_level(*CONTROLS, texts=texts, vocab_size=800, whole_texts=True)


def vocabulary(pipeline: tokenizers.Tokenizer) -> tuple[dict[str, int], list[Any]]:
    """Ids of the tokens, and the pairs to merge."""
    model = json.loads(pipeline.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def byte_level(pipeline: tokenizers.Tokenizer, pre: str, **changes) -> dict[str, Any]:
    """Metadata with the ids and merges of `pipeline`."""
    ids, merges = vocabulary(pipeline)
    tokens = sorted(ids, key=ids.__getitem__)
    types = [CONTROL if token in CONTROLS else NORMAL for token in tokens]
    metadata = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": types,
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
    }
    return {f"tokenizer.ggml.{k}": v for k, v in (metadata | changes).items()}


def read(metadata: dict[str, Any], folder) -> Tokenizer:
    write_gguf_tokenizer(metadata, folder, where="model.gguf")
    return load_tokenizer(folder)


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_ids_are_the_order_of_the_metadata(trained, pre, tmp_path):
    metadata = byte_level(trained, pre)
    tokenizer = read(metadata, tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert tokenizer.vocab_size == len(tokens)
    for token in CONTROLS:
        assert tokenizer.control_id(token) == tokens.index(token)
        ids = tokenizer.encode(f"the{token}\n")
        assert all(i >= len(CONTROLS) for i in ids)
        assert tokenizer.decode([*ids, tokens.index(token)]) == f"the{token}\n"
    for text in [*AWKWARD, *TEXTS, *random_texts(200)]:
        ids = tokenizer.encode(text)
        if pre != "qwen2":  # whose text is normalised
            assert tokenizer.decode(ids) == text
        assert all(len(CONTROLS) <= i < len(tokens) for i in ids)


@pytest.mark.parametrize(
    ("pre", "digits", "contraction", "word"),
    [
        ("gpt-2", "1234 5", "' Ts", "a b c"),
        ("smollm", "1 2 3 4 5", "' Ts", "a b c"),
        ("llama-bpe", "123 4 5", "' T s", "abc"),
        ("qwen2", "1 2 3 4 5", "' T s", "a b c"),
    ],
)
def test_cuts_by_hand(pre, digits, contraction, word, tmp_path):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # No merge leads to "abc", which Llama 3 finds as a whole.
    tokens = [*CONTROLS, *letters, "12", "123", "1234", "Ts", "abc"]
    metadata = byte_level(
        train_byte_level(),
        pre,
        tokens=tokens,
        token_type=[CONTROL] * 4 + [NORMAL] * (len(tokens) - 4),
        merges=["1 2", "12 3", "123 4", "T s"],
    )
    tokenizer = read(metadata, tmp_path)
    for text, cut in [("12345", digits), ("'Ts", contraction), ("abc", word)]:
        assert [tokens[i] for i in tokenizer.encode(text)] == cut.split()


def original(pre: str, pipeline: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same vocabulary, cut and normalised by `transformers`."""
    transformers = pytest.importorskip("transformers")
    ids, merges = vocabulary(pipeline)
    if pre == "gpt-2":
        built = transformers.GPT2Tokenizer(ids, merges).backend_tokenizer
    elif pre == "qwen2":
        built = transformers.Qwen2Tokenizer(ids, merges).backend_tokenizer
    else:
        from transformers.convert_slow_tokenizer import TikTokenConverter

        class Converter(TikTokenConverter):
            """Llama 3's, with this vocabulary rather than one read from a file."""

            def extract_vocab_merges_from_model(self, _):
                return ids, merges

        built = Converter().converted()
    built.encode_special_tokens = True  # leaves control tokens in a text as they are
    return built


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_ids_are_those_of_transformers(trained, pre, tmp_path):
    tokenizer = read(byte_level(trained, pre), tmp_path)
    expected = original(pre, trained)
    for text in [*AWKWARD, *TEXTS, *random_texts(500)]:
        ids = expected.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == ids


def test_a_file_older_than_the_key_is_cut_as_gpt2_does(trained, tmp_path):
    metadata = byte_level(trained, "gpt-2")
    expected = read(metadata, tmp_path / "new").fingerprint
    del metadata["tokenizer.ggml.pre"]
    assert read(metadata, tmp_path / "old").fingerprint == expected


def test_the_recorded_ids_of_smollm2(tmp_path):
    folder = shared_data("tok_smollm2")
    metadata = json.loads((folder / "gguf_metadata.json").read_text())
    ids = json.loads((folder / "vocab.json").read_text())
    tokens = sorted(ids, key=ids.__getitem__)
    metadata["tokenizer.ggml.tokens"] = tokens
    metadata["tokenizer.ggml.token_type"] = [CONTROL] * 17 + [NORMAL] * 49135
    version, *merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert version.startswith("#version")
    metadata["tokenizer.ggml.merges"] = merges
    tokenizer = read(metadata, tmp_path)
    for case in json.loads((folder / "golden.json").read_text())["cases"]:
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["text"]
    # Padding would be EOS, and gets an id of its own.
    assert (tokenizer.eos_id, tokenizer.pad_id) == (2, 49152)
    assert (tokenizer.bos_id, tokenizer.start_ids) == (1, ())
    assert tokenizer.control_id("<|im_start|>") == 1
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == metadata["tokenizer.chat_template"]


@pytest.mark.parametrize(
    ("pre", "changes", "start_ids"),
    [
        ("llama-bpe", {}, (1,)),
        ("llama-bpe", {"add_bos_token": False}, ()),
        ("qwen2", {}, ()),
        ("qwen2", {"add_bos_token": True}, (1,)),
    ],
)
def test_bos_comes_first_where_the_file_or_its_kind_says_so(
    trained, pre, changes, start_ids, tmp_path
):
    tokenizer = read(byte_level(trained, pre, **changes), tmp_path)
    assert tokenizer.start_ids == start_ids


def test_user_defined_tokens_are_text(trained, tmp_path):
    metadata = byte_level(trained, "qwen2")
    metadata["tokenizer.ggml.tokens"] += ["<tool>"]
    metadata["tokenizer.ggml.token_type"] += [USER_DEFINED]
    tokenizer = read(metadata, tmp_path)
    last = tokenizer.vocab_size - 1
    assert tokenizer.token_id("<tool>") == last
    assert tokenizer.decode([last]) == "<tool>"


def pieces(model: bytes, **changes) -> dict[str, Any]:
    """Metadata with the pieces of a SentencePiece model."""
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(original.get_piece_size())
    proto = sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(model)
    metadata = {
        "model": "llama",
        "tokens": [original.id_to_piece(i) for i in ids],
        "scores": [original.get_score(i) for i in ids],
        "token_type": [piece.type for piece in proto.pieces],
        "unknown_token_id": original.unk_id(),
        "bos_token_id": original.bos_id(),
        "eos_token_id": original.eos_id(),
    }
    return {f"tokenizer.ggml.{k}": v for k, v in (metadata | changes).items()}


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize(
    ("add_dummy_prefix", "changes"),
    [(True, {}), (False, {"add_space_prefix": False})],
    ids=["prefix", "no prefix"],
)
def test_ids_are_those_of_sentencepiece(
    add_dummy_prefix, changes, byte_fallback, tmp_path
):
    model = train_pieces(
        model_type="bpe",
        vocab_size=320,
        byte_fallback=byte_fallback,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=add_dummy_prefix,
        control_symbols=["<|im_start|>"],
        user_defined_symbols=["\n"],
    )
    expected = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = read(pieces(model, **changes), tmp_path)
    assert tokenizer.vocab_size == expected.get_piece_size()
    for text in [*AWKWARD, *TEXTS, *random_texts(500)]:
        # Where it would lose the space mark, text is cut around it.
        if "▁" not in text:
            ids = expected.encode(text)
            assert tokenizer.encode(text) == ids
            assert tokenizer.decode(ids) == expected.decode(ids)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.pad_id == tokenizer.vocab_size
    assert tokenizer.control_id("<|im_start|>") == 3
    assert tokenizer.start_ids == (1,)


def test_padding_and_bos_of_a_sentencepiece_file(tmp_path):
    model = train_pieces(model_type="bpe", vocab_size=60, pad_id=3)
    padded = read(pieces(model, padding_token_id=3), tmp_path / "own")
    assert padded.pad_id == 3
    changes = dict(padding_token_id=2, add_bos_token=False)
    shared = read(pieces(model, **changes), tmp_path / "shared")
    assert (shared.eos_id, shared.pad_id) == (2, shared.vocab_size)
    assert shared.start_ids == ()


def test_unknown_kinds_and_half_tokenizers_are_named(trained, tmp_path):
    def refused(metadata, message):
        with pytest.raises(UserError, match=rf"model\.gguf: {message}"):
            write_gguf_tokenizer(metadata, tmp_path / "new", where="model.gguf")
        assert not list(tmp_path.iterdir())

    refused({}, "tokenizer None is not supported; known: gpt2, llama")
    refused({"tokenizer.ggml.model": "bert"}, "tokenizer 'bert' is not supported")
    for pre in ["default", "deepseek-llm"]:
        refused(byte_level(trained, pre), f"pre-tokenizer '{pre}' is not supported")
    whole = byte_level(trained, "gpt-2")
    for part in ["tokens", "token_type", "merges"]:
        half = {k: v for k, v in whole.items() if not k.endswith(part)}
        refused(half, f"the tokenizer has no {part}; download")
    refused(
        byte_level(trained, "gpt-2", merges=["a bb"]), "the tokenizer's merges do not"
    )
    half = pieces(train_pieces(vocab_size=60))
    del half["tokenizer.ggml.scores"]
    refused(half, "the tokenizer has no scores; download")
