"""The one exception for mistakes a user can mend."""

import contextlib
import reprlib
from collections.abc import Iterator
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class UserError(ValueError):
    """Bad input: the message names the file, line or key and says what to do.

    `main.py` prints the message alone, without a traceback. It is one line, whatever
    a library said that is quoted in it.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Begins the message of a UserError raised inside with what it is about.

    For code that works with a model and does not know where that came from.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


def shown(value: Any) -> str:
    """A value as Python writes it, for a message: in one line and some 60 characters.

    However long it is, or however deep its lists are nested.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."
