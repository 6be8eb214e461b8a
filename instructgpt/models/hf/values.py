"""Checks the types of values from a config.json or from a GGUF file's metadata.

A value of the wrong type raises a one-line error that names the file and the key.
"""

from typing import Any

from instructgpt.errors import UserError
from instructgpt.reading import describe

LARGEST = 2**31 - 1  # largest int32, the type of positions and ids
_MOST = 3e38  # below the largest float32


def whole(value: Any, where: str, *, low: int = 1) -> int:
    """Checks that a value is a whole number from `low` to `LARGEST`.

    Args:
      value: The value that was read.
      where: The file and the key, for messages.
      low: The smallest number allowed.

    Raises:
      UserError: the value is something else.
    """
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or not low <= value <= LARGEST:
        raise _wrong(value, where, f"a whole number from {low} to {LARGEST}")
    return value


def positive(value: Any, where: str) -> float:
    """Checks that a value is a number above 0 in float32's range; see `whole`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 < value < _MOST:
        raise _wrong(value, where, "a number above 0")
    return float(value)


def finite(value: Any, where: str) -> float:
    """Checks that a value is a finite number in float32's range; see `whole`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not abs(value) < _MOST:
        raise _wrong(value, where, "a finite number")
    return float(value)


def truth(value: Any, where: str) -> bool:
    """Checks that a value is true or false; see `whole`."""
    if not isinstance(value, bool):
        raise _wrong(value, where, "true or false")
    return value


def _wrong(value: Any, where: str, wanted: str) -> UserError:
    return UserError(f"{where} is {describe(value)}; it must be {wanted}")
