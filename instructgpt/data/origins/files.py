"""Reads lines of text files, also of .gz and .xz; refuses files that are not text."""

import functools
import gzip
import hashlib
import lzma
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError
from instructgpt.file_kinds import HEAD, check_is_text, kind_of

_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    # The older .lzma is not read, because its header may demand any amount of memory.
    ".xz": functools.partial(lzma.open, format=lzma.FORMAT_XZ),
}
_DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


def read_lines(path: str | os.PathLike[str]) -> Generator[bytes, None, None]:
    """Yields lines with their line ends; .gz and .xz files are unpacked.

    A caller that may stop early must close it: `with closing(read_lines(path))`.

    Raises:
      UserError: the file cannot be read, is a damaged or incomplete archive, or is not
        UTF-8 text by its first bytes (see `file_kinds`), but a table or UTF-16, say.
    """
    path = Path(path)
    number = 0
    try:
        with ExitStack() as stack:
            for line in _open(path, stack):
                yield line
                number += 1
    except _DAMAGE as error:
        raise UserError(
            f"{path}:{number + 1}: damaged or cut off in the middle ({error}); copy"
            " the file again."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the file ({error.strerror or error}); correct the"
            " path."
        ) from error


def unpacked_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of what a .gz or .xz file holds; "" of a file that is damaged or neither.

    Raises:
      OSError: the file cannot be read.
    """
    path = Path(path)
    if path.suffix not in _OPENERS:
        return ""
    try:
        with _OPENERS[path.suffix](path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except _DAMAGE:
        return ""


def read_text_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yields the lines of `read_lines` as text, with "\\n" as line ends.

    A byte order mark is left out.

    Raises:
      UserError: see `read_lines`, or a line is not UTF-8 or has a NUL.
    """
    with closing(read_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            text = _decoded(line, f"{path}:{number}", first=number == 1)
            yield f"{text[:-2]}\n" if text.endswith("\r\n") else text


def _decoded(line: bytes, where: str, *, first: bool) -> str:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(
            f"{where}: a NUL character, which no text has; copy the file again, or give"
            " a text file."
        )
    return text


def _open(path: Path, stack: ExitStack) -> Any:
    """Opens the file, unpacked; it is opened only once, so it may be a pipe.

    Raises:
      UserError: the content is not text.
    """
    raw = stack.enter_context(path.open("rb"))
    head = raw.peek(HEAD)[:HEAD]
    opener, kind = _OPENERS.get(path.suffix), kind_of(head)
    if opener is None or not kind or kind.suffix != path.suffix:
        check_is_text(path, head)
    if opener is None:
        return raw
    if not kind and _is_text(head):
        raise UserError(f"{path}: is plain text; take {path.suffix} off its name.")
    file = stack.enter_context(opener(raw, "rb"))
    check_is_text(path, file.peek(HEAD)[:HEAD])
    return file


def _is_text(head: bytes) -> bool:
    """Whether these bytes look like UTF-8; the last character may be incomplete."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return bool(text) and not re.search(r"[\0-\x08\x0e-\x1f]", text)
