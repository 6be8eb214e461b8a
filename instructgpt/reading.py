"""Reads files that users give, with one-line errors that say what is wrong."""

import json
import os
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError
from instructgpt.file_kinds import HEAD, LFS_POINTER, check_is_text, kind_of


def check_content(path: str | os.PathLike[str]) -> None:
    """Raises UserError for a file that only stands for another one.

    Args:
      path: The file to be read.

    Raises:
      UserError: it cannot be read, or is a Git LFS pointer, which a clone without Git
        LFS has in place of a large file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the file ({error.strerror}); correct the path or copy"
            " the file again"
        ) from error
    if kind_of(head) == LFS_POINTER:
        check_is_text(path, head)


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
      UserError: it cannot be read, is a Git LFS pointer, or holds something else.
    """
    path = Path(path)
    check_content(path)
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"it holds {describe(value)}")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not valid JSON, or no object ({error}); copy it again"
        ) from error
    return value


def describe(value: Any) -> str:
    """A JSON value for an error message, cut if it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
