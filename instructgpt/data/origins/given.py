"""Resolves what a user names as data: a known set, a file, a hub's set, a TFDS set."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.origins.files import unpacked_sha256
from instructgpt.data.origins.hub import find_hub_set
from instructgpt.data.origins.layout import choose
from instructgpt.data.origins.published import CACHE, SetFile, find_files
from instructgpt.data.origins.tables import suffix_of
from instructgpt.data.readers import SETS, get_set
from instructgpt.data.records import parse_lines
from instructgpt.errors import UserError

# Sources whose rows may have any known form, which is recognised by their columns.
ANY_FORM = ("file", "hub", "tfds")
_TEXTS = (".txt", ".md")


class Given(NamedTuple):
    """What a name stands for.

    Attributes:
      label: Name in tables, and the start of the records' ids.
      licence: Licence of its records.
      homepage: Address of a description, or "".
      revision: Commit or version that was read, or "".
      files: Its files.
    """

    label: str
    licence: str
    homepage: str
    revision: str
    files: list[SetFile]


def split_name(text: str, *, kind: str) -> tuple[str, str | None]:
    """Splits what is typed for a kind into a name and what follows it.

    Before the first colon stands the name of a known set, "hub" or "tfds". Everything
    else is the path of a file or a folder, if it has a "/" or a "." or exists; its name
    is "file", or "plain_text" for documents in text files.

    Raises:
      UserError: it is none of these.
    """
    name, colon, rest = text.partition(":")
    if name in SETS or (name in ANY_FORM and colon):
        return name, rest or None
    path = Path(os.path.expanduser(text))
    if not ("/" in text or "." in text or path.exists()):
        try:
            get_set(name)
        except UserError as error:
            raise UserError(
                f"{str(error).removesuffix('.')}; or give a file (./FILE),"
                " hub:OWNER/NAME or tfds:NAME."
            ) from error
    if kind == "documents" and _is_text(path):
        return "plain_text", text
    return "file", text


def _is_text(path: Path) -> bool:
    if not path.is_dir():
        return suffix_of(path) in _TEXTS
    return any(suffix_of(file) in _TEXTS for file in path.iterdir())


def resolve(
    name: str, path: str | None, *, cache: str | os.PathLike[str] = CACHE
) -> Given:
    """Finds or downloads the files of what was given.

    Args:
      name: A key of `SETS`, or one of `ANY_FORM`.
      path: What follows the name; None for a known set that is downloaded.
      cache: Folder for downloads.

    Raises:
      UserError: there is no such set, file or split, or no connection.
    """
    if name in ANY_FORM and not path:
        raise UserError(f"{name}: say what to read, as {name}:NAME.")
    if name == "hub":
        return _from_hub(path or "", Path(os.path.expanduser(cache)))
    if name == "tfds":
        return _from_tfds(path or "")
    if name == "file":
        return _from_path(path or "")
    entry = get_set(name)
    files = find_files(name, path, cache=cache)
    licence, homepage = entry.licence, entry.homepage
    if path is not None and not _are_published(name, files):
        own = "your own" if not homepage else f"your own file in the form of {name}"
        licence, homepage = own, ""
    return Given(name, licence, homepage, "", files)


def _are_published(name: str, files: Sequence[SetFile]) -> bool:
    """Whether all files are those of the set by their checksums, packed or not."""
    known = {
        remote.sha256
        for remotes in get_set(name).files.values()
        for remote in remotes
        if remote.sha256
    }
    return bool(known) and all(
        file.sha256 in known or unpacked_sha256(file.path) in known for file in files
    )


def _from_hub(address: str, cache: Path) -> Given:
    found = find_hub_set(address)
    files = [
        SetFile(path, file.split, file.remote.url, functools.partial(parse_lines, path))
        for path, file in found.fetch(cache)
    ]
    label = found.repository
    return Given(label, found.licence, found.homepage, found.commit, files)


def _from_tfds(address: str) -> Given:
    from instructgpt.data.origins.tfds import find_tfds_set

    found = find_tfds_set(address)
    files = []
    for split in found.splits:
        origin = f"tfds:{found.full_name}:{split.name}"
        lines = functools.partial(split.lines, origin)
        files.append(
            SetFile(split.paths[0], split.split, origin, lines, parts=split.paths)
        )
    name, _, version = found.full_name.rpartition("/")
    return Given(name, found.licence, found.homepage, version, files)


def _from_path(text: str) -> Given:
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        names = [f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file()]
        chosen = [(path / n, s) for n, s in choose(names, "", what=text)]
    else:
        chosen = [(path, None)]
    files = [
        SetFile(file, split, str(file), functools.partial(parse_lines, file))
        for file, split in chosen
    ]
    return Given(path.name or "file", "your own", "", "", files)
