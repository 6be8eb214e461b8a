"""The rule for paths: typed ones are relative to the current folder, others not.

A path that a config holds is relative to the workdir of the config's stage. So a
config can name the stages beside its own, and a tree of stages can be moved as a whole.
"""

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from etils import epath

from instructgpt.errors import UserError


def from_shell(text: str) -> str:
    """The absolute path of a typed one, in which ~ is the home folder.

    Args:
      text: A path, relative to the current folder or absolute. URLs and "" are returned
        unchanged.
    """
    if not text or "://" in text:
        return text
    path = os.path.join(os.getcwd(), os.path.expanduser(text))
    plain = os.path.normpath(path)
    # After a symbolic link ".." is not the folder that the text suggests.
    real = os.path.realpath(path)
    return plain if os.path.realpath(plain) == real else real


def for_config(path: str, workdir: str | os.PathLike[str]) -> str:
    """The form in which a stage's config holds an absolute path; undone by `resolve`.

    Args:
      path: An absolute path, from `from_shell`.
      workdir: The stage's workdir, absolute.

    Returns:
      The path relative to the workdir if it is in the workdir's parent folder, so that
      both can be moved with that folder; else the path unchanged.
    """
    if not path or "://" in path:
        return path
    tree = os.path.dirname(os.path.normpath(workdir))
    if tree == os.path.dirname(tree) or not Path(path).is_relative_to(tree):
        return path  # the root of the file system is not a tree of stages
    relative = os.path.relpath(path, workdir)
    return f"./{relative}" if relative.startswith("~") else relative


def resolve(path: str, workdir: str | os.PathLike[str]) -> str:
    """The absolute path of a config's path, which is relative to the workdir.

    Args:
      path: The config's path; ~ is the home folder. Absolute paths and URLs stay as
        they are.
      workdir: The workdir of the config's stage.
    """
    if "://" in path:
        return path
    return os.path.normpath(os.path.join(workdir, os.path.expanduser(path)))


def labelled(text: str) -> dict[str, str]:
    """Paths by label, of a text such as "base=runs/base,sft=runs/sft".

    A path without a label has its folder's name for one.

    Raises:
      UserError: a path or a label is missing, or two are labelled alike.
    """
    found: dict[str, str] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        label, equals, path = entry.rpartition("=")
        label = label if equals else os.path.basename(os.path.normpath(path))
        if not label or not path or label in found or "/" in label:
            raise UserError(
                f"{entry!r} in {text!r}: give LABEL=WORKDIR,LABEL=WORKDIR,… with "
                "another label for each, without a slash"
            )
        found[label] = path
    return found


def one_deeper(path: str) -> str:
    """Converts a path of a recipe's config for its stages, whose workdirs are below."""
    path = os.path.expanduser(path)
    return path if "://" in path or os.path.isabs(path) else os.path.join("..", path)


def without_patterns(directory: epath.Path) -> epath.Path:
    """A path to the folder whose name has no characters of a file pattern.

    Orbax finds files by patterns that include the folder's name. Where that name has
    such characters, the returned path goes through a symbolic link.
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
    """A folder for symbolic links of this process, deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="instructgpt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
