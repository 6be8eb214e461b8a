"""Lines of a file, unpacked on the way (.gz, .xz), and JSON values out of them."""

import gzip
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


def read_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Lines with their line ends; of a .gz or .xz file, those of its contents.

    Raises:
      UserError: the file cannot be read, or is a damaged or cut-off archive.
    """
    path = Path(path)
    number = 0
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            for line in file:
                yield line
                number += 1
    except _DAMAGE as error:
        raise UserError(
            f"{path}:{number + 1}: damaged or cut off in the middle ({error}); copy"
            " the file again."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the file ({error.strerror}); correct the path."
        ) from error


def read_text_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """As `read_lines`, decoded; a byte order mark is left out.

    Raises:
      UserError: as `read_lines`, or a line is not UTF-8.
    """
    for number, line in enumerate(read_lines(path), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}:{number}: not UTF-8 ({error.reason}); save the file as UTF-8."
            ) from error


def parse_json_line(line: bytes, where: str) -> Any:
    """The JSON value of a line.

    Raises:
      UserError: it is not UTF-8 or not JSON; the message starts with `where`.
    """
    cut_off = not line.endswith(b"\n")
    try:
        return json.loads(line.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        problem, remedy = f"not UTF-8 ({error.reason})", "save the file as UTF-8"
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        problem, remedy = f"not valid JSON ({reason})", "correct or remove the line"
    if cut_off:
        problem += "; the file ends in the middle of this line"
        remedy = "copy the file again or remove the line"
    raise UserError(f"{where}: {problem}; {remedy}.")
