"""Checksums of files and small values, and the list of a folder's files with theirs."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from instructgpt.outputs import new_file

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
    files = {name: file_checksum(folder / name) for name in sorted(_files(folder))}
    with new_file(folder / MANIFEST) as partial:
        listed = {"files": files, "checksum": value_checksum(files)}
        partial.write_text(json.dumps(listed, indent=1) + "\n")


def first_damaged(folder: Path) -> str | None:
    """Name of a file that is not what it was when `write_manifest` listed it.

    Returns:
      None if there is none, or no list.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        files = listed["files"]
        if listed["checksum"] != value_checksum(files):
            return MANIFEST
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return MANIFEST
    there = _files(folder)
    for name, checksum in files.items():
        if name not in there or file_checksum(folder / name) != checksum:
            return name
    return None


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
