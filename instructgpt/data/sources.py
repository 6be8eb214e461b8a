"""Sets of records, written by TFDS as ArrayRecord and read by random access.

`build` writes a set once, `open_source` reads it. Its kind says which fields a record
has (`FIELDS` in records.py); its name tells sets of one kind apart:

    data_dir/NAME/KIND/1.3.0/KIND-SPLIT.array_record-*

TensorFlow is not needed. Records keep the order in which they were given.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from instructgpt.data.records import (
    FIELDS,
    Record,
    check_kind,
    check_record,
    read_jsonl,
)
from instructgpt.errors import UserError
from instructgpt.manifest import (
    MANIFEST,
    file_checksum,
    first_damaged,
    write_manifest,
)
from instructgpt.outputs import not_writable

__all__ = [
    "RecordBuilder",
    "Records",
    "build",
    "build_jsonl",
    "file_hash",
    "has_split",
    "is_built",
    "jsonl_name",
    "open_source",
    "read_jsonl",
]

VERSION = "1.3.0"
_BLOCK = 256  # number of records read at once by iteration
_FEATURES = {
    str: tfds.features.Text(),
    list[str]: tfds.features.Sequence(tfds.features.Text()),
    list[int]: tfds.features.Sequence(np.int32),
}


class RecordBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """The TFDS builder of every kind of record; use it through `build`."""

    VERSION = tfds.core.Version(VERSION)
    # Keeps TFDS from looking beside the code for checksums of downloads, which do not
    # exist, with a package that it does not install (importlib_resources).
    code_path = None

    def __init__(
        self,
        *,
        kind: str,
        data_dir: Path,
        splits: Mapping[str, Callable[[], Iterable[Record]]],
    ):
        self.name = kind
        self._kind = kind
        self._splits = splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {n: _FEATURES[f.type] for n, f in FIELDS[self._kind].items()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # Grain shuffles; row numbers stay valid
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Record]]:
        number = -1
        for number, record in enumerate(self._splits[split]()):
            where = f"{self._kind}, split {split}, record {number}"
            default_id = f"{split}:{number}"
            yield (
                number,
                check_record(
                    record, kind=self._kind, where=where, default_id=default_id
                ),
            )
        if number < 0:
            raise UserError(
                f"{self._kind}, split {split}: no records; give at least one or leave"
                " the split out."
            )


def build(
    kind: str,
    name: str,
    data_dir: str | os.PathLike[str],
    splits: Mapping[str, Callable[[], Iterable[Record]]],
) -> Path:
    """Writes a set unless it exists, and returns its directory.

    TFDS writes into a temporary directory and renames it at the end, so an interrupted
    build leaves nothing that looks like a set.

    Args:
      kind: a key of `FIELDS`.
      name: name of the set; other records of the same kind need another name.
      data_dir: root of all sets.
      splits: for each split a function that returns a new iterator of its records:
        `{"train": lambda: read_jsonl("mine.jsonl", "prompts")}`.

    Raises:
      UserError: a record is not valid, a split is empty, the set on disk has other
        splits, or it cannot be written.
    """
    directory = _directory(kind, name, data_dir)
    if not _is_complete(directory):
        tfds.disable_progress_bar()
        builder = RecordBuilder(kind=kind, data_dir=directory.parents[1], splits=splits)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
        except (OSError, RuntimeError) as error:
            # Another process may have finished the same set in the meantime.
            if not _is_complete(directory):
                reason = not_writable(error)
                if reason is None:
                    raise
                raise UserError(
                    f"{directory}: the set cannot be written ({reason}); make room "
                    "there, or name another folder, and start again"
                ) from error
    # A kill after the rename leaves a set without a manifest, which is written now.
    if not (directory / MANIFEST).exists():
        write_manifest(directory)
    there = set(_opened(directory).info.splits)
    if there != set(splits):
        raise UserError(
            f"{directory}: holds the splits {sorted(there)} but {sorted(splits)} were"
            " asked for; use another name or delete the directory."
        )
    return directory


def is_built(kind: str, name: str, data_dir: str | os.PathLike[str]) -> bool:
    """Whether `build` has written this set completely."""
    return _is_complete(_directory(kind, name, data_dir))


def build_jsonl(
    kind: str,
    name: str,
    data_dir: str | os.PathLike[str],
    files: Mapping[str, str | os.PathLike[str]],
) -> str:
    """Builds a set from JSONL files, and returns its name, NAME-HASH.

    The hash is of the files, so that a changed file makes another set.

    Args:
      kind: a key of `FIELDS`.
      name: start of the set's name, such as the folder's name. Characters that are not
        allowed are replaced by "_".
      data_dir: root of all sets.
      files: the path for each split.

    Raises:
      UserError: see `read_jsonl` and `build`.
    """
    name = jsonl_name(name, files)
    readers = {
        split: functools.partial(read_jsonl, path, kind)
        for split, path in files.items()
    }
    build(kind, name, data_dir, readers)
    return name


def jsonl_name(name: str, files: Mapping[str, str | os.PathLike[str]]) -> str:
    """The name that `build_jsonl` gives a set, for the same arguments."""
    digest = hashlib.sha256()
    for split, path in sorted(files.items()):
        digest.update(f"{split}:{file_hash([path])}\n".encode())
    safe = _safe_name(name)
    if safe != name:  # another name may become the same, so the hash includes it
        digest.update(os.fsencode(name))
    return f"{safe}-{digest.hexdigest()[:12]}"


def file_hash(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Hexadecimal SHA-256 of the contents of files, in their order.

    Raises:
      UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(bytes.fromhex(file_checksum(path)))
        except OSError as error:
            raise UserError(
                f"{path}: cannot read the file ({error.strerror}); correct the path."
            ) from error
    return digest.hexdigest()


class Records(Sequence[Record]):
    """Random access to one split of a set: plain dicts of str, list and int.

    Attributes:
      directory: directory of the set.
      label: "NAME/KIND split SPLIT", for messages.
      files: the files that hold the split.
    """

    def __init__(self, directory: Path, *, split: str, label: str):
        self.directory = directory
        self.label = label
        builder = _opened(directory)
        self.files = [Path(file) for file in builder.info.splits[split].filepaths]
        self._source = builder.as_data_source(split)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(list(range(*index.indices(len(self)))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} in {self.label}")
        return _to_python(self._source[int(index) % len(self)])

    def __getitems__(self, indices: Sequence[int]) -> list[Record]:
        """Reads several rows at once, which is faster with ArrayRecord."""
        return [_to_python(row) for row in self._source.__getitems__(list(indices))]


def open_source(
    kind: str, name: str, data_dir: str | os.PathLike[str], split: str
) -> Records:
    """Opens one split of a set that `build` wrote.

    Raises:
      UserError: the set or the split does not exist, or its files are damaged.
    """
    directory = _directory(kind, name, data_dir)
    if not _is_complete(directory):
        raise UserError(
            f"{data_dir}: no set {name}/{kind}; write it with"
            f" instructgpt.data.sources.build({kind!r}, {name!r}, ...) or correct the"
            " data directory."
        )
    splits = _opened(directory).info.splits
    if split not in splits:
        raise UserError(
            f"{directory}: no split {split!r}, only {sorted(splits)}; choose one of"
            " these or build the set again under another name."
        )
    records = Records(directory, split=split, label=f"{name}/{kind} split {split}")
    for file, length in zip(records.files, splits[split].shard_lengths, strict=True):
        _check_file(file, length)
    return records


def has_split(
    kind: str, name: str, data_dir: str | os.PathLike[str], split: str
) -> bool:
    """Whether a set that `build` wrote has this split."""
    directory = _directory(kind, name, data_dir)
    return split in _opened(directory).info.splits


@functools.cache
def _opened(directory: Path) -> tfds.core.DatasetBuilder:
    """Opens a set with TFDS, after comparing its files with their checksums.

    A process compares them only once.
    """
    damaged = first_damaged(directory)
    if damaged is None:
        try:
            return tfds.builder_from_directory(directory)
        except Exception:  # TFDS raises many types of exceptions
            damaged = "dataset_info.json"
    raise UserError(
        f"{directory / damaged}: damaged; delete its directory and build the set again."
    )


def _check_file(file: Path, length: int) -> None:
    """Raises UserError unless an ArrayRecord file has `length` records.

    Without this check a file cut at certain places would read as empty records.
    """
    try:
        reader = array_record_module.ArrayRecordReader(str(file))
        found = reader.num_records()
        reader.close()
        problem = None if found == length else f"{found} records, not {length}"
    except (OSError, RuntimeError) as error:
        problem = str(error) or "unreadable"
    if problem:
        raise UserError(
            f"{file}: damaged ({problem}); delete its directory and build the set"
            " again."
        )


def _safe_name(name: str) -> str:
    """Converts any name to an allowed name of a set, of at most 60 characters."""
    safe = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:60].lstrip(".-")
    return safe or "records"


def _directory(kind: str, name: str, data_dir: str | os.PathLike[str]) -> Path:
    check_kind(kind)
    if not re.fullmatch(r"\w[\w.-]*", name, flags=re.ASCII):
        raise UserError(
            f"set name {name!r}: use letters, digits, '_', '-' and '.' only."
        )
    return Path(data_dir) / name / kind / VERSION


def _is_complete(directory: Path) -> bool:
    return (directory / "dataset_info.json").exists()


def _to_python(value: Any) -> Any:
    """Converts TFDS's bytes and NumPy integers to the str and int of records."""
    match value:
        case dict():
            return {key: _to_python(item) for key, item in value.items()}
        case bytes():
            return value.decode()
        case list() | np.ndarray():
            return [_to_python(item) for item in value]
        case np.generic():
            return value.item()
    return value
