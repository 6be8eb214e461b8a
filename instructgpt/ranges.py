"""Allowed values of config fields, written as their types.

A field is declared as `batch_size: PositiveInt`, `clip: PositiveFloat` or
`Literal["a", "b"]`. Code that builds the dataclass from a user's values must call
`check_values` first.
"""

import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from instructgpt.errors import UserError


class AtLeast(NamedTuple):
    """The smallest whole number that a field may hold, with words for messages."""

    low: int
    words: str = ""

    def describe(self) -> str:
        """The allowed values, in words for a message."""
        return self.words or f"a whole number, {self.low} or more"

    def holds(self, value: Any) -> bool:
        """Whether a value is in the range."""
        return isinstance(value, numbers.Integral) and int(value) >= self.low


class Within(NamedTuple):
    """The range of numbers that a field may hold, with words for messages."""

    low: float
    high: float
    words: str
    above: bool = False  # whether low itself is excluded
    below: bool = False  # whether high itself is excluded

    def describe(self) -> str:
        """The allowed values, in words for a message."""
        return self.words

    def holds(self, value: Any) -> bool:
        """Whether a value is in the range; NaN and infinity never are."""
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            return False
        number = float(value)
        low = self.low < number if self.above else self.low <= number
        return low and (number < self.high if self.below else number <= self.high)


class OneOf(NamedTuple):
    """The list of values that a field may hold."""

    known: tuple[Any, ...]

    def describe(self) -> str:
        """The allowed values, in words for a message."""
        return f"one of {', '.join(map(repr, self.known))}"

    def holds(self, value: Any) -> bool:
        """Whether a value is in the list."""
        return value in self.known


class Named(NamedTuple):
    """Text that may not be empty, as it names something, with words for messages."""

    words: str

    def describe(self) -> str:
        """The allowed values, in words for a message."""
        return self.words

    def holds(self, value: Any) -> bool:
        """Whether a value is text that is not empty."""
        return isinstance(value, str) and bool(value)


Limit = AtLeast | Within | OneOf | Named

FolderPath = Annotated[str, Named("the path of a folder")]
PositiveInt = Annotated[int, AtLeast(1)]
NonNegativeInt = Annotated[int, AtLeast(0)]
# A ranking needs at least two answers.
RankedInt = Annotated[int, AtLeast(2)]
# Number of steps between two evaluations, checkpoints or lines of the log.
Every = Annotated[
    int, AtLeast(-1, "a number of steps, 0 (at the end) or -1 (after every epoch)")
]
_INF = math.inf
PositiveFloat = Annotated[float, Within(0, _INF, "a number above 0", above=True)]
NonNegativeFloat = Annotated[float, Within(0, _INF, "a number, 0 or more")]
Fraction = Annotated[float, Within(0, 1, "a number from 0 to 1")]
PositiveFraction = Annotated[
    float, Within(0, 1, "a number above 0 and up to 1", above=True)
]
FractionBelowOne = Annotated[
    float, Within(0, 1, "a number from 0 to less than 1", below=True)
]


def check_values(cls: type, values: Mapping[str, Any], *, where: str) -> None:
    """Checks values of a dataclass against the limits in its fields' types.

    Args:
      cls: The dataclass. A field with a limit has a type such as `PositiveInt` or a
        `Literal`, a tuple of such a type, or such a type or None.
      values: Values by name of the field; fields may be missing.
      where: Prefix of the field's name in the error, such as "config.train".

    Raises:
      UserError: a value is not allowed; the message names the key and the allowed
        values.
    """
    for name, limit in limited_fields(cls).items():
        if name not in values:
            continue
        value = values[name]
        if value is None and name in _optional_fields(cls):
            continue
        given = value if isinstance(value, list | tuple) else (value,)
        if not all(map(limit.holds, given)):
            raise UserError(f"{where}.{name}={value!r}: give {limit.describe()}")


@functools.cache
def limited_fields(cls: type) -> Mapping[str, Limit]:
    """The limits of a dataclass's fields, by name; fields without one are left out."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: limit for name in hints for limit in _limits(hints[name])}


@functools.cache
def _optional_fields(cls: type) -> frozenset[str]:
    hints = typing.get_type_hints(cls)
    none = type(None)
    return frozenset(n for n, hint in hints.items() if none in typing.get_args(hint))


def _limits(hint: Any) -> Iterator[Limit]:
    """The limits in a type, including those inside a tuple or an optional type."""
    if typing.get_origin(hint) is Literal:
        yield OneOf(typing.get_args(hint))
        return
    marks = getattr(hint, "__metadata__", ())
    found: list[Limit] = [x for x in marks if isinstance(x, AtLeast | Within | Named)]
    if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
        for inner in typing.get_args(hint):
            found += _limits(inner)
    yield from found[:1]
