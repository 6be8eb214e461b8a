"""Values of a config.json or of a GGUF file's metadata, of the type that they must be.

Each gives one line that names the file and the key where the value is another.
"""

from typing import Any

from instructgpt.errors import UserError
from instructgpt.reading import describe

LARGEST = 2**31 - 1  # what 32 bits hold, as positions and ids do
_MOST = 3e38  # what float32 holds


def whole(value: Any, where: str, *, low: int = 1) -> int:
    """A whole number from `low` to `LARGEST`.

    Args:
      value: As it was read.
      where: File and key.
      low: The smallest that is allowed.

    Raises:
      UserError: it is something else.
    """
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or not low <= value <= LARGEST:
        raise _wrong(value, where, f"a whole number from {low} to {LARGEST}")
    return value


def positive(value: Any, where: str) -> float:
    """A number above 0 that float32 holds; arguments and errors as of `whole`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 < value < _MOST:
        raise _wrong(value, where, "a number above 0")
    return float(value)


def finite(value: Any, where: str) -> float:
    """A finite number that float32 holds; arguments and errors as of `whole`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not abs(value) < _MOST:
        raise _wrong(value, where, "a finite number")
    return float(value)


def truth(value: Any, where: str) -> bool:
    """True or false; arguments and errors as of `whole`."""
    if not isinstance(value, bool):
        raise _wrong(value, where, "true or false")
    return value


def _wrong(value: Any, where: str, wanted: str) -> UserError:
    return UserError(f"{where} is {describe(value)}; it must be {wanted}")
