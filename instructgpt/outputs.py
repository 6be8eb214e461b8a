"""Files and folders that appear whole or not at all, even if the program is killed.

Also turns the system's errors of writing into one-line messages.
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

# Names of the files that a killed program leaves: those of `_partial` and of TFDS.
_LEFT = re.compile(r"\..+\.\d+\.partial|incomplete\.\w+_\d[\d.]*")


def in_one_line(error: OSError, path: str | os.PathLike[str]) -> str:
    """A message with the system's error about a path, and what to do.

    Args:
      error: The system's error.
      path: The file or folder, if the error does not name one.
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
    """The errno of an error; ENOSPC for NumPy's error of an incomplete write."""
    part = re.fullmatch(r"\d+ requested and \d+ written", str(error))
    return errno.ENOSPC if part and error.errno is None else error.errno


def not_writable(error: BaseException | None) -> str | None:
    """The system's reason why something could not be written; None for other errors.

    Args:
      error: A library's error; the system's error may be its cause or part of its text.
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
    """Raises UserError, with the path and what to do, if the block cannot write."""
    try:
        yield
    except OSError as error:
        number = _number(error)
        if number not in _FULL | _READ_ONLY | _NO_FOLDER | {errno.EISDIR}:
            raise  # the error may be about a file that the block reads
        error.errno, error.strerror = number, error.strerror or os.strerror(number)
        error.filename = os.fspath(path)  # not the temporary name
        raise UserError(in_one_line(error, path)) from error


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to `path` when the block ends.

    An error in the block leaves an existing file as it was. Missing folders are made.

    Raises:
      UserError: the file cannot be written.
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
    """A temporary folder to fill, which is renamed to `path` when the block ends.

    An error in the block leaves nothing. A killed program leaves a hidden folder
    `.NAME.PROCESS.partial` beside it, which may be deleted.

    Raises:
      UserError: the path exists and is not an empty folder, or cannot be written.
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
    """Raises UserError unless the path is free or an empty folder."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(
            f"{path}: is there already and not empty; delete it or name a new folder."
        )


def delete_partial(paths: Iterable[Path]) -> None:
    """Deletes, among these paths, the unfinished ones that a killed program left.

    No other process may be writing there at the same time.
    """
    for path in [path for path in paths if _LEFT.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
