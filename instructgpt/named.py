"""Classes and functions of one's own that a config names as module:name."""

import importlib
from typing import Any

from instructgpt.errors import UserError


def find_named(name: str, *, where: str, example: str) -> Any:
    """What a config names.

    Args:
      name: As module:name.
      where: The config key that holds it, for errors.
      example: A name such as could stand there.

    Raises:
      UserError: there is no such module, or nothing of this name in it.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"{where}={name!r}: give module:name, such as {example}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{where}={name!r}: {error}; modules are looked for beside the config file,"
            " in the current folder and along PYTHONPATH"
        ) from error
