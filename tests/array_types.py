"""Run-time check of the array shapes that the package's functions declare.

Plain hints are left to mypy: at run time they would reject what Python accepts, such
as a NumPy integer for an `int`.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check_arrays(function: Callable) -> Callable:
    """Checks arguments and result against the annotations that hold a shape."""
    function.__annotations__ = {
        name: hint
        for name, hint in function.__annotations__.items()
        if _holds_shape(hint)
    }
    return beartype(function)


def _holds_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_holds_shape, get_args(hint)))
