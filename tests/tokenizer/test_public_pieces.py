"""SentencePiece models of others encode and decode as SentencePiece itself does."""

import json

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from instructgpt.errors import UserError
from instructgpt.tokenizer import Tokenizer, load_tokenizer
from tests.shared_data import shared_data
from tests.tokenizer.samples import AWKWARD, random_texts, train_pieces

# What a model must have to keep every text.
KEEPS = dict(
    byte_fallback=True,
    normalization_rule_name="identity",
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
)


def saved(folder, model: bytes, **settings) -> Tokenizer:
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(folder)


def assert_same_as_sentencepiece(tokenizer: Tokenizer, model: bytes) -> None:
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in [*AWKWARD, *random_texts(500)]:
        ids = tokenizer.encode(text)
        assert ids == original.encode(text)
        assert tokenizer.decode(ids) == original.decode(ids)
    assert tokenizer.vocab_size == original.get_piece_size()


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_model_that_changes_text_is_used_as_it_is(model_type, tmp_path):
    model = train_pieces(model_type=model_type, vocab_size=60)
    tokenizer = saved(tmp_path, model)
    assert_same_as_sentencepiece(tokenizer, model)
    assert tokenizer.decode(tokenizer.encode(" the  cat ")) == "the cat"


def test_the_model_of_sentencepiece_itself_is_used_as_it_is():
    path = shared_data("sentencepiece_test") / "test_model.model"
    tokenizer = load_tokenizer(path)
    assert_same_as_sentencepiece(tokenizer, path.read_bytes())
    # The ids that its README prints for this text.
    text = "This is a test"
    assert tokenizer.encode(text) == [284, 47, 11, 4, 15, 400]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 1000)


@pytest.mark.parametrize(
    "change",
    [
        {},
        dict(normalization_rule_name="nfkc"),
        dict(normalization_rule_name="nfkc_cf"),
        dict(add_dummy_prefix=True),
        dict(remove_extra_whitespaces=True),
        dict(byte_fallback=False),
    ],
    ids=str,
)
def test_only_a_model_that_keeps_every_text_cuts_it_at_the_space_mark(change, tmp_path):
    model = train_pieces(model_type="bpe", vocab_size=320, **KEEPS | change)
    tokenizer = saved(tmp_path, model)
    if change:
        assert_same_as_sentencepiece(tokenizer, model)
        return
    for text in [*AWKWARD, *random_texts(500)]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_padding_never_shares_the_id_of_eos(tmp_path):
    none = saved(tmp_path, train_pieces(vocab_size=60, pad_id=-1))
    assert none.pad_id == none.vocab_size
    own = train_pieces(vocab_size=60, eos_id=2, pad_id=3)
    assert saved(tmp_path, own).pad_id == 3
    # SentencePiece refuses to train a model so, but not to read one.
    proto = sentencepiece_model_pb2.ModelProto.FromString(own)
    proto.trainer_spec.pad_piece = "</s>"
    shared = saved(tmp_path, proto.SerializeToString())
    assert (shared.eos_id, shared.pad_id) == (2, shared.vocab_size)


def test_decode_drops_controls_and_ids_beyond_the_vocabulary(tmp_path):
    tokenizer = saved(tmp_path, train_pieces(vocab_size=60, bos_id=1, eos_id=2))
    ids = tokenizer.encode("the cat")
    framed = [1, *ids, 2, tokenizer.pad_id, tokenizer.pad_id + 7]
    assert tokenizer.decode(framed) == "the cat"


def test_the_settings_beside_a_model_say_whether_bos_comes_first(tmp_path):
    model = train_pieces(vocab_size=60, bos_id=1)
    without = saved(tmp_path, model)
    assert (without.bos_id, without.start_ids) == (1, ())
    assert saved(tmp_path, model, add_bos_token=False).start_ids == ()
    with_bos = saved(tmp_path, model, add_bos_token=True)
    assert with_bos.start_ids == (1,)
    assert with_bos.fingerprint != without.fingerprint
    assert with_bos.encode("the cat") == without.encode("the cat")


def test_a_model_without_eos_or_the_bos_it_should_add_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.model: has no EOS piece; use"):
        saved(tmp_path, train_pieces(vocab_size=60, eos_id=-1))
    model = train_pieces(vocab_size=60, bos_id=-1)
    assert saved(tmp_path, model).bos_id is None
    with pytest.raises(UserError, match=r"tokenizer\.model: has no BOS piece; use"):
        saved(tmp_path, model, add_bos_token=True)


def test_control_tokens_are_found_by_name_and_never_in_text(tmp_path):
    model = train_pieces(vocab_size=60, control_symbols=["<|im_end|>"])
    tokenizer = saved(tmp_path, model)
    token = tokenizer.control_id("<|im_end|>")
    assert token not in tokenizer.encode("the cat<|im_end|>")
    assert tokenizer.decode([*tokenizer.encode("the cat"), token]) == "the cat"
    for name in ["<s/>", "▁the"]:
        with pytest.raises(UserError, match=f"no control piece '{name}'"):
            tokenizer.control_id(name)
