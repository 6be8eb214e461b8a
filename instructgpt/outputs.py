"""Files and folders that appear whole or not at all, also if the program is killed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from instructgpt.errors import UserError


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write under; the file gets its own name when the block ends.

    An error in the block leaves what was there before. Folders on the way are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
