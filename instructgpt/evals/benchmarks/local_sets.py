"""Data sets of tasks from files of a folder, in place of the hub."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import datasets

from instructgpt.errors import UserError

# The readers of `datasets` by the end of a file's name.
_READERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}


@contextlib.contextmanager
def local_sets(folder: Path | None) -> Iterator[None]:
    """Reads the data sets of tasks from a folder while they are loaded.

    The folder has the hub's names: `OWNER/NAME/CONFIG/SPLIT.jsonl`, without CONFIG
    where a task has none; `SPLIT-00000-of-00002.parquet` and the like, and .json, .csv
    and .tsv are read too. A set that is a file at an address has that file's name. The
    harness takes no folder for all tasks, so its `datasets.load_dataset` is replaced.

    Args:
      folder: The folder; None: the hub is used.

    Raises:
      UserError: a set is not in the folder.
    """
    if folder is None:
        yield
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of evaluation sets")
    load = datasets.load_dataset

    def load_local(path: str, name: str | None = None, **options: Any) -> Any:
        files = _files(folder, path, name, options.get("data_files"))
        (kind,) = {_READERS[file.suffix] for group in files.values() for file in group}
        rest = {"sep": options.get("sep") or _separator(files)} if kind == "csv" else {}
        named = {split: [str(f) for f in group] for split, group in files.items()}
        return load(kind, data_files=named, **rest)

    with mock.patch.object(datasets, "load_dataset", load_local):
        yield


def _files(
    folder: Path, path: str, name: str | None, data_files: Any
) -> dict[str, list[Path]]:
    """The files of each split of a set.

    Raises:
      UserError: there is none, or they are of several kinds.
    """
    if path in set(_READERS.values()):
        where = folder
        found = {
            split: [folder / Path(str(file)).name] for split, file in data_files.items()
        }
        found = {split: files for split, files in found.items() if files[0].exists()}
        wanted = ", ".join(Path(str(file)).name for file in data_files.values())
    else:
        where = folder / path / (name or "")
        found, wanted = {}, "train.jsonl or validation.parquet, for example"
        for file in sorted(where.iterdir()) if where.is_dir() else ():
            split = re.match(r"(\w+?)(-\d+-of-\d+)?\.", file.name)
            if split and file.suffix in _READERS:
                found.setdefault(split[1], []).append(file)
    if not found:
        raise UserError(
            f"{where}: the evaluation set {path} is not there; put {wanted}"
        )
    if len({_READERS[f.suffix] for group in found.values() for f in group}) > 1:
        raise UserError(
            f"{where}: the splits are files of several kinds; keep one kind"
        )
    return found


def _separator(files: dict[str, list[Path]]) -> str:
    (suffix, *_) = (file.suffix for group in files.values() for file in group)
    return "\t" if suffix == ".tsv" else ","
