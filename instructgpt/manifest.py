"""Checksums of files and small values, and the list of a folder's files with theirs."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from instructgpt.outputs import new_file

_AT_ONCE = 8  # files that are read; SHA-256 lets other threads run meanwhile
MANIFEST = "files.json"  # in a folder: the checksum of each of its files


def value_checksum(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys and its white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of what a file holds."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Lists the checksums of a folder's files in one more, `files.json`."""
    _write(folder, _checksums(folder, sorted(_files(folder))))


def note_file(path: Path) -> None:
    """Adds a file to the list of its folder, or makes one that holds it alone."""
    try:
        files = listed(path.parent)
    except ValueError:
        files = {}
    _write(path.parent, {**files, path.name: file_checksum(path)})


def listed(folder: Path) -> dict[str, str]:
    """The checksums by name that a folder's `files.json` holds; none without one.

    Raises:
      ValueError: it is damaged.
    """
    try:
        whole = json.loads((folder / MANIFEST).read_bytes())
        files = whole["files"]
        if whole["checksum"] != value_checksum(files):
            raise ValueError("another checksum")
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, TypeError) as error:
        raise ValueError("not a list of files") from error
    return files


def _write(folder: Path, files: dict[str, str]) -> None:
    with new_file(folder / MANIFEST) as partial:
        whole = {"files": files, "checksum": value_checksum(files)}
        partial.write_text(json.dumps(whole, indent=1) + "\n")


def first_damaged(folder: Path) -> str | None:
    """Name of a file that is not what it was when `write_manifest` listed it.

    Returns:
      None if there is none, or no list.
    """
    try:
        files = listed(folder)
    except ValueError:
        return MANIFEST
    there = _files(folder)
    found = _checksums(folder, [name for name in files if name in there])
    return next((name for name in files if found.get(name) != files[name]), None)


def _checksums(folder: Path, names: list[str]) -> dict[str, str]:
    """The checksums by name; several files are read at a time, as some are large."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        sums = pool.map(lambda name: file_checksum(folder / name), names)
        return dict(zip(names, sums, strict=True))


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
