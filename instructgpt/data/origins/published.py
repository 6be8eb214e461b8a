"""Finds or downloads the files of public data sets, reads, splits and builds them."""

import hashlib
import heapq
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.forms.rows import Line
from instructgpt.data.origins.download import RemoteFile, sha256_of
from instructgpt.data.readers import Found, Report, get_set, read_file, read_rows
from instructgpt.data.records import SPLITS, Record
from instructgpt.data.sources import build, file_hash, is_built
from instructgpt.data.splits import Placed, fraction, group_of, split_groups
from instructgpt.errors import UserError

CACHE = Path("~/.cache/instructgpt")
SHARES = {"valid": 0.05, "test": 0.05}


class SetFile(NamedTuple):
    """A file of a set.

    Attributes:
      path: local path.
      split: split that the file holds; None if its records are to be split.
      origin: URL or path, for `sources.json`.
      lines: reads the rows, whose form is then recognised; None if the set has a reader
        of its own.
      parts: all files that hold the split, if there are more than `path`.
    """

    path: Path
    split: str | None
    origin: str
    lines: Callable[[], Generator[Line, None, None]] | None = None
    parts: tuple[Path, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, or of the checksums of all parts.

        Raises:
          UserError: a file cannot be read.
        """
        if self.parts:
            return file_hash(self.parts)
        try:
            return sha256_of(self.path)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot read the file ({error.strerror}); correct the"
                " path."
            ) from error


class PublicRecords(NamedTuple):
    """One kind of records of a set.

    Attributes:
      records: records in the order of the files.
      placed: for each record, the facts that decide about its split.
      report: numbers of records left out.
    """

    records: list[Record]
    placed: list[Placed]
    report: Report


def find_files(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] = CACHE,
) -> list[SetFile]:
    """Finds or downloads the files of a set.

    Args:
      name: a key of `SETS`.
      path: a file, whose records are to be split; a folder with the files under their
        published names (with or without .gz or .xz), each with its split; or None
        to download the published files.
      cache: folder for downloads.

    Raises:
      UserError: there is no such file, the folder holds none of the set's files, or
        they cannot be downloaded.
    """
    entry = get_set(name)
    if path is None:
        if not entry.files:
            where = f"; get it from {entry.homepage}" if entry.homepage else ""
            raise UserError(f"{name}: give its file or folder, as {name}:FILE{where}.")
        folder = Path(os.path.expanduser(cache))
        return [
            SetFile(remote.fetch(folder), split, remote.url)
            for split, remotes in entry.files.items()
            for remote in remotes
        ]
    path = Path(os.path.expanduser(path))
    if not path.is_dir():
        return [SetFile(path, None, str(path))]
    if entry.files:
        found = _published(path, entry.files)
        expected = [r.path for remotes in entry.files.values() for r in remotes]
    else:
        matches = sorted({f for name in entry.names for f in path.rglob(name)})
        found = [SetFile(file, None, str(file)) for file in matches]
        expected = list(entry.names)
    if not found:
        raise UserError(
            f"{path}: holds none of {name}'s files ({', '.join(expected) or 'none'});"
            f" put them there, or give one file as {name}:FILE."
        )
    return found


def _published(
    folder: Path, files: Mapping[str, Iterable[RemoteFile]]
) -> list[SetFile]:
    """Files under their published path, that path with dashes, or its last part."""
    found = []
    for split, remotes in files.items():
        for remote in remotes:
            bare = remote.path.removesuffix(".gz")
            candidates = [
                folder / f"{name}{suffix}"
                for name in (bare, bare.replace("/", "-"), Path(bare).name)
                for suffix in ("", ".gz", ".xz")
            ]
            file = next(filter(Path.is_file, candidates), None)
            if file:
                found.append(SetFile(file, split, str(file)))
    return found


def read_set(
    name: str,
    files: Iterable[SetFile],
    *,
    kind: str,
    options: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    max_rows: int = 0,
    seed: int = 0,
) -> PublicRecords:
    """Reads all files of a set.

    Args:
      name: a key of `SETS`; of files with `lines`, a name for messages.
      files: the result of `find_files`.
      kind: a kind of records that the set has.
      options: options of the set, see `read_file`.
      columns: names of columns of files with `lines`, see `read_rows`.
      max_rows: largest number of records, chosen at random; 0 keeps all.
      seed: seed of that choice.

    Raises:
      UserError: see `read_file`, or the files have no record of this kind.
    """
    report, rows = Report(), []
    files = list(files)
    for file in files:
        found: Iterable[Found]
        if file.lines is not None:
            records = read_rows(file.lines(), kind=kind, report=report, columns=columns)
            found = (Found(record, None) for record in records)
        else:
            found = read_file(
                name, file.path, kind=kind, report=report, options=options
            )
        rows += [(record, split or file.split) for record, split in found]
    if not rows:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in report.skipped.items())
        raise UserError(
            f"{name}: {', '.join(str(file.path) for file in files)} give no {kind}"
            f" ({reasons or 'empty'}); choose another file or kind."
        )
    if max_rows and len(rows) > max_rows:
        report.skip("over the limit of rows", len(rows) - max_rows)
        chosen = heapq.nsmallest(
            max_rows,
            range(len(rows)),
            key=lambda index: fraction(f"{index} {rows[index][0]['id']}", seed),
        )
        rows = [rows[index] for index in sorted(chosen)]
    own = frozenset(split for _, split in rows if split)
    placed = [Placed(group_of(record), split, own) for record, split in rows]
    return PublicRecords([record for record, _ in rows], placed, report)


def build_public(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    kind: str,
    path: str | os.PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
    shares: Mapping[str, float] = SHARES,
    max_rows: int = 0,
    seed: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    log: Callable[[str], None] = print,
) -> str:
    """Builds a set from a public one, and returns its name, NAME-HASH.

    The hash is of the files and of every argument that changes the records, so that
    other arguments make another set. An existing set is not read again.

    Args:
      name: a key of `SETS`.
      data_dir: root of all sets.
      kind: a kind of records that the set has.
      path: see `find_files`.
      options: see `read_file`.
      shares: shares of "valid" and "test", see `split_groups`.
      max_rows: see `read_set`.
      seed: seed of the split and of the choice of rows.
      cache: folder for downloads.
      log: called with a line on what was left out, if the set is made.

    Raises:
      UserError: see `find_files`, `read_set` and `build`.
    """
    files = find_files(name, path, cache=cache)
    chosen = [
        [(file.split, file_hash([file.path])) for file in files],
        sorted((options or {}).items()),
        sorted(shares.items()),
        [max_rows, seed],
    ]
    digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()
    set_name = f"{name}-{digest[:12]}"
    if not is_built(kind, set_name, data_dir):
        found = read_set(
            name, files, kind=kind, options=options, max_rows=max_rows, seed=seed
        )
        splits = split_groups(found.placed, shares=shares, seed=seed)
        parts: dict[str, list[Record]] = {split: [] for split in SPLITS}
        for record, placed in zip(found.records, found.placed, strict=True):
            parts[splits[placed.group]].append(record)
        build(
            kind,
            set_name,
            data_dir,
            {split: part.__iter__ for split, part in parts.items() if part},
        )
        log(f"{set_name}/{kind}: {len(found.records)} records; {found.report}")
    return set_name
