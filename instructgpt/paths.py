"""One rule for paths: what is typed counts from here, what a config holds from there.

Here is the folder in which a command is started, there the workdir of the stage whose
config it is. So a config names the stages beside its own, and a tree of stages can be
moved as a whole.
"""

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from etils import epath


def from_shell(text: str) -> str:
    """The absolute path of what somebody typed, with ~ for the home folder.

    Args:
      text: Relative to the current folder, or absolute. URLs stay as they are, and ""
        stays empty.
    """
    if not text or "://" in text:
        return text
    path = os.path.join(os.getcwd(), os.path.expanduser(text))
    plain = os.path.normpath(path)
    # Behind a symbolic link, ".." is not the folder that the letters say.
    real = os.path.realpath(path)
    return plain if os.path.realpath(plain) == real else real


def for_config(path: str, workdir: str | os.PathLike[str]) -> str:
    """An absolute path as the config of a stage holds it; `resolve` gives it back.

    Args:
      path: As `from_shell` gives it.
      workdir: The stage's, absolute.

    Returns:
      It relative to the workdir, if it lies in the folder that holds the workdir, so
      that both can be moved with that folder; else as it is.
    """
    if not path or "://" in path:
        return path
    tree = os.path.dirname(os.path.normpath(workdir))
    if tree == os.path.dirname(tree) or not Path(path).is_relative_to(tree):
        return path  # the root of all files is no tree of stages
    relative = os.path.relpath(path, workdir)
    return f"./{relative}" if relative.startswith("~") else relative


def resolve(path: str, workdir: str | os.PathLike[str]) -> str:
    """A path of a config: absolute and URLs as they are, else from the workdir.

    Args:
      path: The config's; ~ is the home folder.
      workdir: Of the stage whose config it is.
    """
    if "://" in path:
        return path
    return os.path.normpath(os.path.join(workdir, os.path.expanduser(path)))


def one_deeper(path: str) -> str:
    """A path of a recipe's config as those of its stages have it, a folder below."""
    path = os.path.expanduser(path)
    return path if "://" in path or os.path.isabs(path) else os.path.join("..", path)


def without_patterns(directory: epath.Path) -> epath.Path:
    """The folder, under a name without the letters of a file pattern.

    Orbax looks for its files by patterns, in which it puts the folder's own name.
    """
    text = os.fspath(directory)
    if "://" in text or not any(letter in text for letter in "[]*?\\"):
        return directory
    link = _links() / hashlib.sha256(text.encode()).hexdigest()[:16]
    link.parent.mkdir(exist_ok=True)
    Path(text).mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(text, target_is_directory=True)
    return epath.Path(str(link))


@functools.cache
def _links() -> Path:
    """A folder for links, of this process alone, which goes when it ends."""
    folder = tempfile.mkdtemp(prefix="instructgpt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
