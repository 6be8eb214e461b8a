"""The exception for mistakes that a user can correct."""

import contextlib
import reprlib
from collections.abc import Iterator
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class UserError(ValueError):
    """Bad input: the message names the file, line or key and says what to do.

    `main.py` prints only the message, without a traceback. The message is always one
    line, even if it quotes a longer text of a library.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


class DivergedError(UserError):
    """A run's loss or weights are no longer finite: its settings do not train."""


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Prefixes the message of a UserError raised inside with its subject.

    It serves code that works with a model without knowing where the model came from.
    """
    try:
        yield
    except UserError as error:
        raise type(error)(f"{what}: {error}") from error


def shown(value: Any) -> str:
    """A value's repr for a message, cut to one line of about 60 characters.

    Long values and deeply nested lists are cut without being written out first.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."
