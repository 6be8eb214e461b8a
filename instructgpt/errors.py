"""The one exception for mistakes a user can mend."""

import contextlib
from collections.abc import Iterator


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
