"""The tokenizer of a folder of records: one that is given, or made of its texts."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from instructgpt.data.records import Record
from instructgpt.data.templates import PromptFormat
from instructgpt.errors import UserError
from instructgpt.tokenizer import (
    Tokenizer,
    copy_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

FILE = "tokenizer.model"
NONE = "none"
_MOST_TEXT = 20_000_000  # characters; more would hardly change the pieces
_RESERVED = 261  # bytes, control tokens and the line break
_SMALLEST, _LARGEST = 512, 32_768


def add_tokenizer(
    folder: Path,
    records: Sequence[Record],
    *,
    given: str,
    vocab_size: int,
    log: Callable[[str], None],
) -> Tokenizer | None:
    """Copies or makes the folder's tokenizer, and says which.

    Args:
      folder: The folder of records.
      records: Those to train on.
      given: A tokenizer's file or folder; "" to make one, "none" for none.
      vocab_size: Largest number of pieces; 0 for `default_vocab_size`.
      log: Called with one line.

    Raises:
      UserError: the given one cannot be read, or `vocab_size` is too small.
    """
    if given == NONE:
        log("no tokenizer (--tokenizer=none); name one by --config.data.tokenizer")
        return None
    if given:
        tokenizer = load_tokenizer(given)
        copy_tokenizer(given, folder)
        log(f"copied the tokenizer of {given}: {tokenizer.vocab_size} tokens")
        return tokenizer
    texts = list(_some(records))
    if not texts:
        log("no tokenizer: there is no training text to make it of; give --tokenizer")
        return None
    size = vocab_size or default_vocab_size(texts)
    try:
        made = train_tokenizer(texts, folder / FILE, vocab_size=size)
    except (UserError, RuntimeError) as error:
        if vocab_size:
            raise UserError(f"--vocab-size={vocab_size}: {error}") from error
        (folder / FILE).unlink(missing_ok=True)
        log("no tokenizer: the training texts are too few for one; give --tokenizer")
        return None
    log(
        f"made {FILE} of the training texts: {made.vocab_size} tokens, for a model from"
        " scratch; a public model brings its own (--config.data.tokenizer), and"
        " --tokenizer=none makes none"
    )
    return made


def check_tokenizer_flags(given: str, vocab_size: int) -> None:
    """Raises UserError for flags that contradict each other or name no tokenizer."""
    if vocab_size and given:
        raise UserError(
            f"--vocab-size={vocab_size} is of a tokenizer that is made here, and"
            f" --tokenizer={given} makes none; leave one out."
        )
    if vocab_size and vocab_size <= _RESERVED:
        raise UserError(
            f"--vocab-size: vocab_size={vocab_size} leaves no piece for text beside"
            f" {_RESERVED} reserved ones; give more."
        )
    if given and given != NONE:
        if not os.path.exists(given):
            raise UserError(f"--tokenizer={given}: no such file or folder; correct it.")
        PromptFormat(load_tokenizer(given))


def default_vocab_size(texts: Sequence[str]) -> int:
    """A number of pieces that grows with the root of the amount of text.

    It is a power of two from 512 (10 kB) over 4,096 (1 MB) to 32,768, and leaves half
    of its pieces to more than single characters.
    """
    amount = sum(len(text.encode()) for text in texts)
    characters = len(set().union(*map(set, texts)))
    wanted = max(4 * math.sqrt(amount), _SMALLEST)
    size = min(2 ** round(math.log2(wanted)), _LARGEST)
    while size < _RESERVED + 2 * characters:
        size *= 2
    return size


def _some(records: Sequence[Record]) -> Iterator[str]:
    """The texts of evenly spaced records, of all if they are not too many."""
    amount = sum(len(text) for record in records for text in _texts(record))
    step = -(-amount // _MOST_TEXT) or 1
    for record in records[::step]:
        yield from _texts(record)


def _texts(record: Record) -> Iterator[str]:
    for field in ("text", "prompt", "response"):
        if field in record:
            yield record[field]
    yield from record.get("history", ())
    yield from record.get("responses", ())
