"""Any text survives the pieces trained here, and none becomes a control token."""

import pytest

from instructgpt.errors import UserError
from instructgpt.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.tokenizer.samples import AWKWARD, CORPUS, random_texts


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
    for text in random_texts(5000):
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
