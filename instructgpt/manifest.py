"""Checksums of files and small values, and manifests of a folder's files."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from instructgpt.outputs import new_file

_AT_ONCE = 8  # threads that read files; SHA-256 releases Python's global lock
MANIFEST = "files.json"  # file of a folder with the checksum of each other file


def value_checksum(value: Any) -> str:
    """SHA-256 of a JSON value; the order of keys and white space do not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Writes the checksums of a folder's files to `files.json` in the folder."""
    _write(folder, _checksums(folder, sorted(_files(folder))))


def note_file(path: Path) -> None:
    """Adds a file to its folder's `files.json`, which is created if it is missing."""
    try:
        files = listed(path.parent)
    except ValueError:
        files = {}
    _write(path.parent, {**files, path.name: file_checksum(path)})


def listed(folder: Path) -> dict[str, str]:
    """The checksums in a folder's `files.json` by file name; empty if there is none.

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
    """Name of the first file that has changed since `write_manifest` listed it.

    Returns:
      None if all files are as listed, or if there is no list.
    """
    try:
        files = listed(folder)
    except ValueError:
        return MANIFEST
    there = _files(folder)
    found = _checksums(folder, [name for name in files if name in there])
    return next((name for name in files if found.get(name) != files[name]), None)


def _checksums(folder: Path, names: list[str]) -> dict[str, str]:
    """The checksums by name; some files are large, so several are read at a time."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        sums = pool.map(lambda name: file_checksum(folder / name), names)
        return dict(zip(names, sums, strict=True))


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
