"""Texts that spoil tokenizers, and tokenizers small enough to build in a test."""

import io
import random
from collections.abc import Iterator
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

# It holds the very strings that could be learnt as pieces and should not.
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
    "<|endoftext|>",
    "the<|im_end|>\n<|im_start|>user\nthe<|eot_id|>",
    "\u2047\ufffd\ufeff\u200b\u2028",
    "e\u0301 \u00e9 \ufb01 \u00bd \u00a0 \u0130",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0010ffff",
    "العربية 日本語 हिन्दी",
]


def random_texts(number: int) -> Iterator[str]:
    """Unicode of every plane, mixed with what tokenizers treat apart."""
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

    for _ in range(number):
        yield "".join(character() for _ in range(draw.randrange(10)))


def train_pieces(**settings: Any) -> bytes:
    """A SentencePiece model of `CORPUS`, with the library's defaults."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


def train_byte_level(
    *controls: str,
    texts: list[str] = CORPUS,
    vocab_size: int = 300,
    whole_texts: bool = False,
) -> tokenizers.Tokenizer:
    """Byte pairs cut as GPT-2 does; `controls` have the ids from 0 on.

    With `whole_texts` nothing is cut, so that merges cross the borders of words.
    """
    pipeline = tokenizers.Tokenizer(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=not whole_texts
    )
    pipeline.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(controls),
        show_progress=False,
    )
    pipeline.train_from_iterator(texts, trainer)
    return pipeline
