"""Run-time check of the array shapes that the package's functions declare.

Plain hints are left to mypy: at run time they would reject what Python accepts, such
as a NumPy integer for an `int`. The fields of a NamedTuple of arrays, such as a batch,
are checked where a function takes or gives one.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jax
import numpy as np
from beartype import beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

_SHAPES = re.compile(
    r"^from (jaxtyping|instructgpt\.(arrays|batches)) import (?!Params$)", re.M
)
_hints_of = functools.cache(get_type_hints)


def modules_with_shapes(repo: Path) -> list[str]:
    """The package's modules whose functions declare shapes, or take batches that do."""
    return [
        ".".join(path.relative_to(repo).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(repo.glob("instructgpt/**/*.py"))
        if _SHAPES.search(path.read_text(encoding="utf-8"))
    ]


def check_arrays(function: Callable) -> Callable:
    """Checks arguments and result against the annotations that hold a shape."""
    hints = dict(function.__annotations__)
    function.__annotations__ = {n: h for n, h in hints.items() if _holds_shape(h)}
    checked = beartype(function)
    batches = {name: kinds for name, h in hints.items() if (kinds := [*_batches(h)])}
    return _check_batches(checked, batches) if batches else checked


def _holds_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_holds_shape, get_args(hint)))


def _batches(hint: Any) -> Iterator[type]:
    """The NamedTuples with shapes that a hint names."""
    if isinstance(hint, type) and hasattr(hint, "_fields"):
        if any(map(_holds_shape, get_type_hints(hint).values())):
            yield hint
    else:
        for part in get_args(hint):
            yield from _batches(part)


def _check_batches(function: Callable, batches: dict[str, list[type]]) -> Callable:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        for name, kinds in batches.items():
            if name in given:
                check_fields(given[name], kinds)
        out = function(*args, **kwargs)
        check_fields(out, batches.get("return", []))
        return out

    return checked


def check_fields(value: Any, kinds: list[type]) -> None:
    """Raises TypeCheckError if a NamedTuple of these kinds has an array amiss."""
    if type(value) not in kinds:
        return
    hints = _hints_of(type(value))
    with jaxtyped("context"):  # in which a letter has one size
        for name, x in value._asdict().items():
            hint = hints[name]
            if not isinstance(x, jax.Array | np.ndarray) or not _holds_shape(hint):
                continue
            # A union asks whether the class fits, not the array.
            if not any(isinstance(x, kind) for kind in get_args(hint) or [hint]):
                raise TypeCheckError(
                    f"{type(value).__name__}.{name} is {x.dtype}{list(x.shape)}, not "
                    f"{hint} beside the fields before it"
                )
