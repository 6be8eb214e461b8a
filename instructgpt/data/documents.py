"""Pretraining text: documents as one long array of tokens, read in windows."""

import array
import hashlib
from pathlib import Path

import numpy as np

from instructgpt.batches import TokenBatch
from instructgpt.data.sources import Records, file_hash
from instructgpt.errors import UserError
from instructgpt.outputs import new_file
from instructgpt.tokenizer import Tokenizer


def document_tokens(documents: Records, tokenizer: Tokenizer) -> np.ndarray:
    """The documents' tokens end to end, each closed by EOS.

    Where the tokenizer's convention begins a text with BOS, each begins with it.

    They are computed once and kept beside the set, in a file whose name carries a
    hash of the tokenizer and of the set, and one of the tokens, by which damage is
    seen. They are uint16 if the vocabulary fits,
    else uint32, and mapped from disk rather than read.

    Returns:
      A read-only array [number of tokens].

    Raises:
      UserError: the file is damaged.
    """
    key = f"{tokenizer.fingerprint} {file_hash(documents.files)}"
    fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
    start = f"tokens-{fingerprint}-"
    found = [p for p in documents.directory.iterdir() if p.name.startswith(start)]
    if not found:
        return np.load(_write_tokens(start, documents, tokenizer), mmap_mode="r")
    path = found[0]
    try:
        tokens = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(path) from error
    if path.stem != f"{start}{_checksum(tokens)}":
        raise _damaged(path)
    return tokens


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: damaged; delete it, and it is written again.")


def _checksum(tokens: np.ndarray) -> str:
    digest = hashlib.sha256(f"{tokens.dtype} {tokens.shape}".encode())
    digest.update(tokens.data)
    return digest.hexdigest()[:16]


def _write_tokens(start: str, documents: Records, tokenizer: Tokenizer) -> Path:
    ids = array.array("H" if tokenizer.vocab_size <= 1 << 16 else "I")
    for document in documents:
        ids.extend(tokenizer.start_ids)
        ids.extend(tokenizer.encode(document["text"]))
        ids.append(tokenizer.eos_id)
    tokens = np.frombuffer(ids, dtype=ids.typecode)
    path = documents.directory / f"{start}{_checksum(tokens)}.npy"
    with new_file(path) as partial, partial.open("wb") as file:
        np.save(file, tokens)
    return path


class TokenWindows:
    """Rows of `length` consecutive tokens; the rest at the end is left out.

    A window may hold several documents with EOS between them, and attention crosses
    their borders (GPT-3, App. B). Every token is a prediction target but the window's
    first, which has nothing before it.
    """

    def __init__(self, tokens: np.ndarray, length: int):
        """Windows over `tokens` [number of tokens].

        Raises:
          UserError: there are fewer tokens than one window holds.
        """
        if len(tokens) < length:
            raise UserError(
                f"the documents have {len(tokens)} tokens, fewer than one window of"
                f" {length}; give more text or shorten the window."
            )
        self._tokens = tokens
        self._length = length
        self._texts = np.ones(length, np.int32)
        self._loss_mask = np.arange(length) > 0

    def __len__(self) -> int:
        return len(self._tokens) // self._length

    def __getitem__(self, index: int) -> TokenBatch:
        """Window `index`, a row [length]."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index * self._length
        tokens = self._tokens[start : start + self._length].astype(np.int32)
        return TokenBatch(tokens, self._texts, self._loss_mask)
