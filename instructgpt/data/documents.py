"""Pretraining text: documents as one array of tokens, read in windows."""

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
    """The tokens of all documents in one array, each document closed by EOS.

    Each begins with BOS if that is the tokenizer's convention.

    The tokens are computed once and kept beside the set. The file's name has a hash of
    the tokenizer and the set, and a hash of the tokens, which reveals damage. The type
    is uint16 if the vocabulary fits, else uint32, and the file is mapped, not read.

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
    """Rows of `length` consecutive tokens; an incomplete last row is left out.

    A window may hold several documents with EOS between them, and attention crosses
    their borders (GPT-3, App. B). Every token except the window's first, which has no
    context, is a prediction target.
    """

    def __init__(self, tokens: np.ndarray, length: int):
        """Makes windows over `tokens` [number of tokens].

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
        """Window number `index`, a row [length]."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index * self._length
        tokens = self._tokens[start : start + self._length].astype(np.int32)
        return TokenBatch(tokens, self._texts, self._loss_mask)
