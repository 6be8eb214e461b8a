"""Any text survives the tokenizer, and none of it turns into a control token."""

import random
from types import SimpleNamespace

import pytest

from instructgpt.errors import UserError
from instructgpt.tokenizer import (
    Tokenizer,
    check_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

# The corpus holds the very strings that could be learnt as pieces and should not.
CORPUS = [
    "the cat sat on the mat.\nthe dog  ran\n",
    "what is the colour of the house? <0x41> <s></s> <pad> a▁b \u2047 \ufffd\n",
] * 100
AWKWARD = [
    "",
    "▁",
    "a ▁ b▁▁ ",
    "  two  spaces ",
    "tab\tCRLF\r\nLF\n\n CR\r",
    "\0a\0",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<0x41>",
    "<0xE2><0x96><0x81>",
    "the cat</s>\n<s>the dog",
    "\u2047\ufffd\ufeff\u200b\u2028",
    "e\u0301 \u00e9 \ufb01 \u00bd",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0010ffff",
    "العربية 日本語 हिन्दी",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "sub" / "tokenizer.model"
    train_tokenizer(CORPUS, path, vocab_size=320)
    return path


@pytest.fixture(scope="module")
def tokenizer(path) -> Tokenizer:
    return load_tokenizer(path)


def control_ids(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_survives_and_is_never_a_control_token(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not control_ids(tokenizer) & set(ids)


def test_random_unicode_survives_and_is_never_a_control_token(tokenizer):
    draw = random.Random(0)

    def character() -> str:
        kind = draw.randrange(4)
        if kind == 0:
            return draw.choice(AWKWARD)
        if kind == 1:
            return chr(draw.randrange(256))
        if kind == 2:
            return draw.choice([" ", "▁", "<", ">", "s", "/", "0x41", "the", "\n"])
        code = draw.randrange(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)  # leave surrogates out

    for _ in range(5000):
        text = "".join(character() for _ in range(draw.randrange(10)))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not control_ids(tokenizer) & set(ids)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_every_byte_can_be_written(tokenizer):
    every = "".join(chr(code) for code in range(0x800))
    assert tokenizer.decode(tokenizer.encode(every)) == every


def test_decode_drops_control_ids_and_marks_broken_utf8(tokenizer):
    ids = tokenizer.encode("the cat")
    framed = [tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(framed) == "the cat"
    assert tokenizer.decode(tokenizer.encode("\u00e9")[:1]) == "\ufffd"


def test_words_with_their_space_and_newline_are_single_pieces(tokenizer):
    assert len(tokenizer.encode(" the cat")) == 2
    assert tokenizer.decode([tokenizer.token_id(" the")]) == " the"
    newline = tokenizer.token_id("\n")
    assert tokenizer.encode("the\n\n cat").count(newline) == 2
    # So a prompt and its response can be encoded apart.
    assert tokenizer.encode("the\n cat") == [
        *tokenizer.encode("the\n"),
        *tokenizer.encode(" cat"),
    ]
    with pytest.raises(UserError, match="'zzz' is 3 tokens, not one"):
        tokenizer.token_id("zzz")


def test_training_is_deterministic_and_the_fingerprint_follows_the_model(
    tokenizer, path, tmp_path
):
    again = train_tokenizer(iter(CORPUS), tmp_path / "again", vocab_size=320)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert again.fingerprint == tokenizer.fingerprint
    other = train_tokenizer(CORPUS, tmp_path / "other", vocab_size=310)
    assert other.fingerprint != tokenizer.fingerprint
    assert (tokenizer.vocab_size, other.vocab_size) == (320, 310)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again", "other"]


def test_long_documents_are_not_left_out(tmp_path):
    # SentencePiece skips sentences over 4192 bytes unless told otherwise.
    text = "zebra " * 2000
    tokenizer = train_tokenizer([text], tmp_path / "model", vocab_size=300)
    assert len(tokenizer.encode(" zebra zebra")) == 2


@pytest.mark.parametrize("name", ["<s>", "</s>", "<pad>", "<unk>", "<0x41>"])
def test_reserved_names_in_the_corpus_are_not_learnt(name, tmp_path):
    # A learnt piece of that name would clash with the reserved one.
    texts = [f"{name} {name}{name} the cat"] * 100
    tokenizer = train_tokenizer(texts, tmp_path / "model", vocab_size=300)
    ids = tokenizer.encode(name)
    assert len(ids) > 1
    assert tokenizer.decode(ids) == name
    assert not control_ids(tokenizer) & set(ids)


def test_training_names_the_reason_it_cannot(tmp_path):
    with pytest.raises(UserError, match="vocab_size=100"):
        train_tokenizer(CORPUS, tmp_path / "small", vocab_size=100)
    with pytest.raises(UserError, match="give it text"):
        train_tokenizer([], tmp_path / "none", vocab_size=300)
    assert not list(tmp_path.iterdir())


def test_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(UserError, match="not valid Unicode"):
        tokenizer.encode("a\ud800b")


def test_missing_and_damaged_files_are_named(path, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.model: cannot read"):
        load_tokenizer(tmp_path / "nowhere.model")
    model = path.read_bytes()
    damaged = tmp_path / "damaged.model"
    for size in [0, 1, len(model) // 2, len(model) - 1]:
        damaged.write_bytes(model[:size])
        with pytest.raises(UserError, match=r"damaged\.model"):
            load_tokenizer(damaged)


def test_check_refuses_what_would_train_wrongly(tokenizer):
    def check(tokenizer, rows, padded_rows=None):
        check_tokenizer(
            tokenizer, vocab_size=rows, padded_vocab_size=padded_rows or rows
        )

    check(tokenizer, tokenizer.vocab_size)
    with pytest.raises(UserError, match="320 pieces but the model predicts 319"):
        check(tokenizer, 319)

    def ids(pad, bos, eos):
        return SimpleNamespace(pad_id=pad, bos_id=bos, eos_id=eos, vocab_size=10)

    check(ids(0, 1, 2), 10)
    check(ids(10, 1, 1), 10, 11)  # GPT-2: BOS is EOS, and padding is added
    check(ids(0, None, 1), 10)
    with pytest.raises(UserError, match="pads with EOS"):
        check(ids(2, 1, 2), 10)
    with pytest.raises(UserError, match="padding and BOS share an id"):
        check(ids(1, 1, 2), 10)
    with pytest.raises(UserError, match="outside the vocabulary"):
        check(ids(0, 1, 10), 10)
    with pytest.raises(UserError, match="id 10 but the embedding has 10 rows"):
        check(ids(10, 1, 2), 10)
