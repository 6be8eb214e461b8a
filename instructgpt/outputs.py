"""Files and folders that appear whole or not at all, also if the program is killed.

And what is said where they cannot be written.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from instructgpt.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}

# The names of what a killed program leaves: `_partial`'s, and those of TFDS.
_LEFT = re.compile(r"\..+\.\d+\.partial|incomplete\.\w+_\d[\d.]*")


def in_one_line(error: OSError, path: str | os.PathLike[str]) -> str:
    """What the system says of a file or folder, and what to do about it.

    Args:
      error: What it raised.
      path: What it is about, if the error does not know.
    """
    number = _number(error)
    where = path if error.filename is None else error.filename
    where = os.fsdecode(where) if isinstance(where, str | bytes | os.PathLike) else path
    why = error.strerror or (os.strerror(number) if number else str(error))
    if number in _FULL:
        remedy = "make room there, and start the same line again: what is whole stays"
    elif number in _READ_ONLY:
        remedy = "allow it, or name another folder"
    elif number == errno.EISDIR:
        why, remedy = "a folder is where a file must be", "delete or rename it"
    elif number in _NO_FOLDER:
        why, remedy = "a file is where a folder must be", "name another folder"
    else:
        remedy = "mend that, and start the same line again"
    return f"{where}: {why}; {remedy}"


def _number(error: OSError) -> int | None:
    """The system's number of an error; NumPy gives none where it wrote but a part."""
    part = re.fullmatch(r"\d+ requested and \d+ written", str(error))
    return errno.ENOSPC if part and error.errno is None else error.errno


def not_writable(error: BaseException | None) -> str | None:
    """What the system says, if that is why something could not be written.

    Args:
      error: What a library raised; the system's own may lie behind it, or in its text.
    """
    while error is not None:
        if isinstance(error, OSError) and _number(error) in _FULL | _READ_ONLY:
            return error.strerror or os.strerror(errno.ENOSPC)
        for number in _FULL | {errno.EROFS}:
            if os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises UserError, with the path and what to do, where the block cannot write."""
    try:
        yield
    except OSError as error:
        number = _number(error)
        if number not in _FULL | _READ_ONLY | _NO_FOLDER | {errno.EISDIR}:
            raise  # what the block reads may be to blame
        error.errno, error.strerror = number, error.strerror or os.strerror(number)
        error.filename = os.fspath(path)  # and not a name that it has meanwhile
        raise UserError(in_one_line(error, path)) from error


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write under; the file gets its own name when the block ends.

    An error in the block leaves what was there before. Folders on the way are made.

    Raises:
      UserError: it cannot be written.
    """
    path = Path(path)
    partial = _partial(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill; it gets its own name when the block ends.

    An error in the block leaves nothing. A killed program leaves a hidden folder beside
    it, `.NAME.PROCESS.partial`, which may be deleted.

    Raises:
      UserError: there is something under this name that is not an empty folder, or it
        cannot be written.
    """
    path = Path(path).absolute()
    check_new_folder(path)
    partial = _partial(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); name another folder or make"
            " room."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_new_folder(path: str | os.PathLike[str]) -> None:
    """Raises UserError unless nothing or an empty folder has this name."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(
            f"{path}: is there already and not empty; delete it or name a new folder."
        )


def delete_partial(paths: Iterable[Path]) -> None:
    """Deletes those of the files and folders that a killed program has left half-made.

    Nobody may be writing there now.
    """
    for path in [path for path in paths if _LEFT.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
