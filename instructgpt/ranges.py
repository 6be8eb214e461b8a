"""The whole numbers that a config's fields may hold, written as their types.

A field says `batch_size: PositiveInt`, and whoever makes the dataclass from a user's
values calls `check_integers` first.
"""

import functools
import numbers
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from instructgpt.errors import UserError


class AtLeast(NamedTuple):
    """The smallest number that a field may hold, and what to tell a user to give."""

    low: int
    words: str = ""

    def describe(self) -> str:
        """What may be given."""
        return self.words or f"a whole number, {self.low} or more"


PositiveInt = Annotated[int, AtLeast(1)]
NonNegativeInt = Annotated[int, AtLeast(0)]
# Two answers or more, so that one can be better than another.
RankedInt = Annotated[int, AtLeast(2)]
# How many steps lie between two evaluations, checkpoints or lines of the log.
Every = Annotated[
    int, AtLeast(-1, "a number of steps, 0 (at the end) or -1 (after every epoch)")
]


def check_integers(cls: type, values: Mapping[str, Any], *, where: str) -> None:
    """Checks values of a dataclass against the ranges in its fields' types.

    Args:
      cls: The dataclass; a field with a range has a type such as `PositiveInt`, or a
        tuple of it.
      values: By field; fields may be missing.
      where: What comes before the field's name in the error: "config.train".

    Raises:
      UserError: a number is out of its range, or not whole; the message names the key
        and what it may be.
    """
    for name, limit in integer_fields(cls).items():
        if name not in values:
            continue
        value = values[name]
        numbers_given = value if isinstance(value, list | tuple) else (value,)
        for number in numbers_given:
            whole = isinstance(number, numbers.Integral)
            if not whole or number < limit.low:
                raise UserError(f"{where}.{name}={value!r}: give {limit.describe()}")


@functools.cache
def integer_fields(cls: type) -> Mapping[str, AtLeast]:
    """The fields of a dataclass whose types have a range, and the ranges."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: limit for name in hints for limit in _limits(hints[name])}


def _limits(hint: Any) -> Iterator[AtLeast]:
    """The first range in a type, also inside a tuple's or an optional one."""
    found = [x for x in getattr(hint, "__metadata__", ()) if isinstance(x, AtLeast)]
    for inner in typing.get_args(hint):
        found += _limits(inner)
    yield from found[:1]
