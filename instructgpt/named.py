"""Classes and functions of one's own that a config names as module:name."""

import importlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError
from instructgpt.manifest import file_checksum

_NAMED = re.compile(r"([\w.]+):\w+")


def is_named(text: str) -> bool:
    """Whether a text has the form module:name."""
    return _NAMED.fullmatch(text) is not None


def find_named(name: str, *, where: str, example: str) -> Any:
    """What a config names.

    Args:
      name: As module:name.
      where: The config key that holds it, for errors.
      example: A name such as could stand there.

    Raises:
      UserError: there is no such module, or nothing of this name in it.
    """
    module, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"{where}={name!r}: give module:name, such as {example}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(
            f"{where}={name!r}: {error}; modules are looked for beside the config file,"
            " in the current folder and along PYTHONPATH"
        ) from error
    except Exception as error:  # the module is the user's and may raise anything
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{where}={name!r}: importing {module} raised {type(error).__name__}: "
            f"{error} ({at.filename}:{at.lineno})"
        ) from error


def find_function(name: str, *, where: str, example: str) -> Callable[..., Any]:
    """`find_named` of a function that takes a list of texts.

    Raises:
      UserError: see `find_named`, or what is found is no such function.
    """
    found = find_named(name, where=where, example=example)
    if not callable(found):
        raise UserError(f"{where}={name!r} is a {type(found).__name__}, no function")
    check_call(found, ["texts"], f"{where}={name!r}")
    return found


def check_call(function: Callable[..., Any], names: Sequence[str], what: str) -> None:
    """Raises UserError if a function does not take these positional arguments.

    Args:
      function: The function.
      names: The arguments' names.
      what: What the function is, for the error.
    """
    try:
        inspect.signature(function).bind(*names)
    except TypeError as error:
        raise UserError(
            f"{what}: {error}; it is called with ({', '.join(names)})"
        ) from error
    except ValueError:
        return  # some functions that are not written in Python tell no signature


def code_checksums(values: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of the files that a flat config names as module:name, by key.

    A module that is no file, or cannot be found, is left out.
    """
    out = {}
    for key, value in values.items():
        named = _NAMED.fullmatch(value) if isinstance(value, str) else None
        if key.rpartition(".")[2] != "name" or not named:
            continue
        try:
            spec = importlib.util.find_spec(named[1])
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.has_location and spec.origin:
            out[key] = file_checksum(Path(spec.origin))
    return out
