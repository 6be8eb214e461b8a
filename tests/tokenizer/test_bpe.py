"""Byte-level BPE: any text survives, and none of it becomes a control token."""

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from instructgpt.errors import UserError
from instructgpt.tokenizer.bpe import BPETokenizer
from tests.tokenizer.samples import AWKWARD, random_texts, train_byte_level

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|bos|>", "<pad>")


def copied(pipeline: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(pipeline.to_str())


@pytest.fixture(scope="module")
def trained() -> tokenizers.Tokenizer:
    return train_byte_level(*CONTROLS)


@pytest.fixture
def pipeline(trained) -> tokenizers.Tokenizer:
    """For a test to change."""
    return copied(trained)


@pytest.fixture(scope="module")
def tokenizer(trained) -> BPETokenizer:
    return BPETokenizer(copied(trained), eos="<|endoftext|>", pad="<pad>")


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_survives_and_is_never_a_control_token(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(i >= len(CONTROLS) for i in ids)


def test_random_unicode_survives_and_is_never_a_control_token(tokenizer):
    for text in random_texts(2000):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(len(CONTROLS) <= i < tokenizer.vocab_size for i in ids)


def test_frequent_words_are_single_tokens(tokenizer):
    assert len(tokenizer.encode(" the cat")) == 2
    assert tokenizer.decode([tokenizer.token_id(" the")]) == " the"
    with pytest.raises(UserError, match="'zzz' is 3 tokens, not one"):
        tokenizer.token_id("zzz")


def test_decode_drops_what_is_no_text_and_marks_broken_utf8(tokenizer):
    ids = tokenizer.encode("the cat")
    beyond = tokenizer.vocab_size
    framed = [tokenizer.eos_id, 1, *ids, 2, tokenizer.pad_id, beyond, beyond + 7]
    assert tokenizer.decode(framed) == "the cat"
    assert tokenizer.decode(tokenizer.encode("\u00e9")[:1]) == "\ufffd"


def test_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(UserError, match="not valid Unicode"):
        tokenizer.encode("a\ud800b")


def test_control_tokens_have_the_ids_of_their_names(pipeline):
    tokenizer = BPETokenizer(
        pipeline, eos="<|im_end|>", bos="<|bos|>", pad="<pad>", name="mine"
    )
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (2, 3, 4)
    assert tokenizer.vocab_size == 300
    assert tokenizer.control_id("<|im_start|>") == 1
    with pytest.raises(UserError, match="mine: the vocabulary has no token '<s>'"):
        tokenizer.control_id("<s>")
    with pytest.raises(UserError, match="mine: 'the' is no control token"):
        tokenizer.control_id("the")


@pytest.mark.parametrize("pad", [None, "<|endoftext|>", "<missing>"])
def test_padding_gets_an_id_of_its_own(pipeline, pad):
    tokenizer = BPETokenizer(pipeline, eos="<|endoftext|>", pad=pad)
    assert tokenizer.pad_id == tokenizer.vocab_size == 300


def test_the_vocabulary_ends_with_its_largest_id():
    vocabulary = {"<eos>": 0, "a": 1, "b": 5}
    tokenizer = BPETokenizer(
        tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[])), eos="<eos>"
    )
    assert tokenizer.vocab_size == tokenizer.pad_id == 6


def test_missing_control_tokens_are_refused(pipeline):
    with pytest.raises(UserError, match="no token '</s>'"):
        BPETokenizer(copied(pipeline), eos="</s>")
    with pytest.raises(UserError, match="no token '<s>'"):
        BPETokenizer(copied(pipeline), eos="<|endoftext|>", bos="<s>")
    with pytest.raises(UserError, match="mine: has no BOS token; use"):
        BPETokenizer(pipeline, eos="<|endoftext|>", add_bos=True, name="mine")


def test_a_named_token_that_the_file_does_not_mark_is_still_no_text():
    pipeline = train_byte_level("<|endoftext|>")
    pipeline.add_tokens(["<|im_end|>"])  # as text
    tokenizer = BPETokenizer(pipeline, eos="<|im_end|>")
    ids = tokenizer.encode("the<|im_end|>")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode([*ids, tokenizer.eos_id]) == "the<|im_end|>"
    # Only in the vocabulary.
    model = models.BPE(vocab={"<eos>": 0, "a": 1}, merges=[])
    tokenizer = BPETokenizer(tokenizers.Tokenizer(model), eos="<eos>")
    assert tokenizer.decode([1, 0]) == "a"


def test_a_control_token_that_text_can_spell_is_refused():
    # Such models find their control tokens in text as any other piece.
    model = models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("<", -3.0)], 0)
    with pytest.raises(UserError, match="'</s>' is no control token"):
        BPETokenizer(tokenizers.Tokenizer(model), eos="</s>")
    pipeline = train_byte_level("<|endoftext|>")
    pipeline.add_tokens(["<|im_start|>"])
    tokenizer = BPETokenizer(pipeline, eos="<|endoftext|>")
    with pytest.raises(UserError, match="mark it as special in tokenizer"):
        tokenizer.control_id("<|im_start|>")


def begin_with(pipeline, frame: str) -> None:
    pipeline.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=frame, special_tokens=[("<|endoftext|>", 0), ("<|bos|>", 3)]
            ),
        ]
    )


def test_start_ids_are_those_of_the_post_processor(pipeline):
    begin_with(pipeline, "<|bos|> $A")
    tokens = dict(eos="<|endoftext|>", bos="<|bos|>")
    tokenizer = BPETokenizer(copied(pipeline), **tokens)
    assert tokenizer.start_ids == (3,)
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
    assert 3 not in tokenizer.encode("the cat")
    assert BPETokenizer(copied(pipeline), eos="<|endoftext|>").start_ids == ()
    assert BPETokenizer(pipeline, **tokens, add_bos=False).start_ids == ()


def test_a_post_processor_that_ends_texts_begins_none(pipeline):
    begin_with(pipeline, "$A <|endoftext|>")
    tokenizer = BPETokenizer(pipeline, eos="<|endoftext|>", bos="<|endoftext|>")
    assert tokenizer.start_ids == ()


def test_start_ids_without_a_post_processor_are_those_asked_for(pipeline):
    tokens = dict(eos="<|endoftext|>", bos="<|bos|>")
    assert BPETokenizer(copied(pipeline), **tokens).start_ids == ()
    assert BPETokenizer(pipeline, **tokens, add_bos=True).start_ids == (3,)


def test_length_limits_left_in_a_file_are_ignored(pipeline, tokenizer):
    pipeline.enable_truncation(2)
    pipeline.enable_padding(length=4)
    limited = BPETokenizer(pipeline, eos="<|endoftext|>", pad="<pad>")
    for text in ["the", "the cat sat on the mat"]:
        assert limited.encode(text) == tokenizer.encode(text)


def test_the_fingerprint_follows_what_encode_gives(trained):
    tokens = dict(eos="<|endoftext|>", bos="<|bos|>")
    same = [BPETokenizer(copied(trained), **tokens).fingerprint for _ in range(2)]
    assert same[0] == same[1]
    assert len(same[0]) == 16
    cut_otherwise = copied(trained)
    cut_otherwise.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), trained.pre_tokenizer]
    )
    others = [
        BPETokenizer(train_byte_level(*CONTROLS, vocab_size=290), **tokens),
        BPETokenizer(cut_otherwise, **tokens),
        BPETokenizer(copied(trained), eos="<|im_end|>", bos="<|bos|>"),
        BPETokenizer(copied(trained), **tokens, add_bos=True),
    ]
    assert len({same[0], *(other.fingerprint for other in others)}) == 5
