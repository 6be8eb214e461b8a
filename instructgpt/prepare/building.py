"""Reads all that is wanted, splits it, and writes the folder of records."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.draws import check_folder
from instructgpt.data.lengths import in_tokens, in_words
from instructgpt.data.origins.given import ANY_FORM, resolve
from instructgpt.data.origins.published import CACHE, SHARES, read_set
from instructgpt.data.readers import check_columns, get_set
from instructgpt.data.records import FIELDS, SPLITS, check_kind
from instructgpt.data.splits import join_customers, split_groups, with_training
from instructgpt.data.templates import PromptFormat
from instructgpt.errors import UserError
from instructgpt.outputs import check_new_folder, new_folder
from instructgpt.prepare.summary import (
    Part,
    empty_splits,
    length_tables,
    of_split,
    source_table,
    split_table,
)
from instructgpt.prepare.tokenizers import add_tokenizer, check_tokenizer_flags


class Wanted(NamedTuple):
    """One kind of records of one source.

    Attributes:
      kind: A key of `FIELDS`.
      name: A known set; or "file", "hub" or "tfds", whose rows may have any form.
      path: What follows the name; None for a known set that is downloaded.
      columns: Pairs of a known name and the source's column, see `rename`.
    """

    kind: str
    name: str
    path: str | None = None
    columns: tuple[tuple[str, str], ...] = ()


def prepare(
    directory: str | os.PathLike[str],
    wanted: Sequence[Wanted],
    *,
    options: Mapping[str, Mapping[str, str]] | None = None,
    shares: Mapping[str, float] = SHARES,
    max_rows: int = 0,
    seed: int = 0,
    tokenizer: str = "",
    vocab_size: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the folder; it appears whole or not at all.

    Args:
      directory: The folder, which must be missing or empty.
      wanted: At least one source; sources of one kind are joined in this order.
      options: Options by name of the set, see `read_file`.
      shares: Shares of "valid" and "test", see `split_groups`.
      max_rows: Largest number of rows of each source, see `read_set`; 0: all.
      seed: Seed of the split and of the choice of rows.
      tokenizer: A tokenizer to copy; "" makes one of the training texts, "none" none.
      vocab_size: Largest number of pieces of a tokenizer that is made, see
        `train_tokenizer`; 0 for a number that fits the amount of text.
      cache: Folder for downloads.
      log: Called with each table.

    Raises:
      UserError: the folder is not empty, a source or a file is not valid, a share or a
        limit is impossible, or the folder cannot be written.
    """
    directory = Path(directory)
    _check(directory, wanted, options or {}, shares, max_rows)
    check_tokenizer_flags(tokenizer, vocab_size)
    parts = [
        _read(
            item,
            options or {},
            max_rows=max_rows,
            seed=seed,
            cache=cache,
            label=_label(item, wanted),
        )
        for item in wanted
    ]
    parts = _by_customer(parts, wanted)
    splits = split_groups(
        (placed for part in parts for placed in part.placed), shares=shares, seed=seed
    )
    kinds = [[p for p in parts if p.kind == kind] for kind in FIELDS]
    splits = with_training(
        splits, ([x for part in same for x in part.placed] for same in kinds)
    )
    sources = {
        "shares": dict(shares),
        "max_rows": max_rows,
        "seed": seed,
        "sets": [
            _source(item, part, options or {})
            for item, part in zip(wanted, parts, strict=True)
        ],
    }
    lines: list[str] = []
    with new_folder(directory) as folder:
        for kind in FIELDS:
            _write(folder, kind, [p for p in parts if p.kind == kind], splits)
        text = json.dumps(sources, indent=2, ensure_ascii=False)
        (folder / "sources.json").write_text(text + "\n", encoding="utf-8")
        check_folder(folder, named=directory)
        training = [r for part in parts for r in of_split(part, "train", splits)]
        made = add_tokenizer(
            folder, training, given=tokenizer, vocab_size=vocab_size, log=lines.append
        )
    how = in_tokens(PromptFormat(made)) if made else in_words()
    tables = [split_table(parts, splits), "", source_table(parts), "", *lines, ""]
    tables += [*length_tables(parts, how), *empty_splits(parts, splits, shares, seed)]
    for line in tables:
        log(line)


def _check(
    directory: Path,
    wanted: Sequence[Wanted],
    options: Mapping[str, Mapping[str, str]],
    shares: Mapping[str, float],
    max_rows: int,
) -> None:
    """Raises UserError for wrong arguments before anything is read."""
    if not wanted:
        raise UserError("nothing to prepare; give --demonstrations=NAME, for example.")
    check_new_folder(directory)
    for item in wanted:
        check_kind(item.kind)
        check_columns(dict(item.columns))
    if len(set(wanted)) < len(wanted):
        twice = next(item for item in wanted if wanted.count(item) > 1)
        raise UserError(f"--{twice.kind}={twice.name}: is given twice; leave one out.")
    for name in options:
        if name not in {item.name for item in wanted}:
            raise UserError(f"--option={name}: this set is not asked for.")
        if name in ANY_FORM:
            raise UserError(
                f"--option={name}: has no options; --columns says what columns mean."
            )
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise UserError(
            f"--valid and --test are {dict(shares)}; give shares from 0 that leave"
            " something to train on."
        )
    if max_rows < 0:
        raise UserError(f"--max-rows={max_rows}; give 1 or more, or 0 for all.")


def _read(
    wanted: Wanted,
    options: Mapping[str, Mapping[str, str]],
    *,
    max_rows: int,
    seed: int,
    cache: str | os.PathLike[str],
    label: str,
) -> Part:
    if wanted.name not in ANY_FORM:
        get_set(wanted.name)
    given = resolve(wanted.name, wanted.path, cache=cache)
    records, placed, report = read_set(
        wanted.name,
        given.files,
        kind=wanted.kind,
        options=options.get(wanted.name),
        columns=dict(wanted.columns),
        max_rows=max_rows,
        seed=seed,
    )
    given = given._replace(label=label or given.label)
    named = [{**record, "id": f"{given.label}/{record['id']}"} for record in records]
    return Part(wanted.kind, given, named, placed, report)


def _by_customer(parts: Sequence[Part], wanted: Sequence[Wanted]) -> list[Part]:
    """The parts, with the records of each customer of one's own files in one group."""
    customers = [
        record.get("customer", "") if item.name == "file" else ""
        for part, item in zip(parts, wanted, strict=True)
        for record in part.records
    ]
    joined = iter(join_customers([x for part in parts for x in part.placed], customers))
    return [part._replace(placed=[next(joined) for _ in part.placed]) for part in parts]


def _label(item: Wanted, wanted: Sequence[Wanted]) -> str:
    """The whole path of a file whose name another file of its kind has, too."""
    alike = [
        other
        for other in wanted
        if other.name == item.name == "file"
        and other.kind == item.kind
        and Path(other.path or "").name == Path(item.path or "").name
    ]
    return item.path or "" if len(alike) > 1 else ""


def _write(
    directory: Path, kind: str, parts: Sequence[Part], splits: Mapping[str, str]
) -> None:
    """Writes KIND.SPLIT.jsonl for each split that has records."""
    for split in SPLITS:
        lines = [
            json.dumps(record, ensure_ascii=False) + "\n"
            for part in parts
            for record in of_split(part, split, splits)
        ]
        if lines:
            path = directory / f"{kind}.{split}.jsonl"
            path.write_text("".join(lines), encoding="utf-8")


def _source(
    wanted: Wanted, part: Part, options: Mapping[str, Mapping[str, str]]
) -> dict:
    """A source's entry in sources.json."""
    given = part.given
    return {
        "set": wanted.name if wanted.name not in ANY_FORM else given.label,
        "from": wanted.name if wanted.name in ANY_FORM else "set",
        "kind": part.kind,
        "licence": given.licence,
        "homepage": given.homepage,
        "revision": given.revision,
        "options": dict(options.get(wanted.name, {})),
        "columns": dict(wanted.columns),
        "records": len(part.records),
        "skipped": dict(part.report.skipped),
        "noted": dict(part.report.noted),
        "files": [
            {"origin": file.origin, "split": file.split, "sha256": file.sha256}
            for file in given.files
        ],
    }
