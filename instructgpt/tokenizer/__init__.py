"""Tokenizers: one interface for SentencePiece and byte-level BPE."""

from instructgpt.tokenizer.interface import Tokenizer, check_tokenizer
from instructgpt.tokenizer.loading import copy_tokenizer, load_tokenizer
from instructgpt.tokenizer.pieces import train_tokenizer

__all__ = [
    "Tokenizer",
    "check_tokenizer",
    "copy_tokenizer",
    "load_tokenizer",
    "train_tokenizer",
]
