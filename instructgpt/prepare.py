"""Makes a folder of records from public data sets.

    python -m instructgpt.prepare OUTDIR --demonstrations=NAME[:FILE] \\
        --comparisons=NAME[:FILE] --documents=NAME[:FILE] --prompts=NAME[:FILE]

Each flag may be given several times. FILE is a file or a folder; without it the set is
downloaded. OUTDIR gets KIND.{train,valid,test}.jsonl, for
`--config.data.jsonl=OUTDIR`, and sources.json, which names the origins.
--vocab-size=N adds the tokenizer.model that a stage needs; otherwise add your own.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.download import sha256_of
from instructgpt.data.published import CACHE, SHARES, SetFile, find_files, read_set
from instructgpt.data.readers import SETS, Report, get_set
from instructgpt.data.records import FIELDS, SPLITS, Record
from instructgpt.data.splits import Placed, share_for, split_groups
from instructgpt.errors import UserError
from instructgpt.outputs import check_new_folder, new_folder
from instructgpt.progress import format_table
from instructgpt.tokenizer import train_tokenizer


class Wanted(NamedTuple):
    """One kind of records of one set, read from `path` or downloaded."""

    kind: str
    name: str
    path: str | None


class Part(NamedTuple):
    """The records read for one `Wanted`; ids start with the set's name."""

    wanted: Wanted
    files: list[SetFile]
    records: list[Record]
    placed: list[Placed]
    report: Report


def prepare(
    directory: str | os.PathLike[str],
    wanted: Sequence[Wanted],
    *,
    options: Mapping[str, Mapping[str, str]] | None = None,
    shares: Mapping[str, float] = SHARES,
    max_rows: int = 0,
    seed: int = 0,
    vocab_size: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the folder; it appears whole or not at all.

    Args:
      directory: The folder, which must be missing or empty.
      wanted: At least one set; sets of the same kind are joined in this order.
      options: Options by name of the set, see `read_file`.
      shares: Shares of "valid" and "test", see `split_groups`.
      max_rows: Largest number of rows of each set and kind, see `read_set`; 0: all.
      seed: Seed of the split and of the choice of rows.
      vocab_size: Largest number of pieces of a tokenizer that is trained on the
        training texts, see `train_tokenizer`; 0 trains none.
      cache: Folder for downloads.
      log: Called with each table.

    Raises:
      UserError: the folder is not empty, a set or a file is not valid, a share or a
        limit is impossible, or the folder cannot be written.
    """
    directory = Path(directory)
    _check(directory, wanted, options or {}, shares, max_rows)
    parts = [
        _read(item, options or {}, max_rows=max_rows, seed=seed, cache=cache)
        for item in wanted
    ]
    splits = split_groups(
        (placed for part in parts for placed in part.placed), shares=shares, seed=seed
    )
    sources = {
        "shares": dict(shares),
        "max_rows": max_rows,
        "seed": seed,
        "sets": [_source(part, options or {}) for part in parts],
    }
    with new_folder(directory) as folder:
        for kind in FIELDS:
            _write(folder, kind, [p for p in parts if p.wanted.kind == kind], splits)
        text = json.dumps(sources, indent=2, ensure_ascii=False)
        (folder / "sources.json").write_text(text + "\n", encoding="utf-8")
        if vocab_size:
            texts = _texts(parts, "train", splits)
            train_tokenizer(texts, folder / "tokenizer.model", vocab_size=vocab_size)
    log(_split_table(parts, splits))
    log("")
    log(_source_table(parts))
    for line in _empty_splits(parts, splits, shares, seed):
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
    if len(set(wanted)) < len(wanted):
        twice = next(item for item in wanted if wanted.count(item) > 1)
        raise UserError(f"--{twice.kind}={twice.name}: is given twice; leave one out.")
    for name in options:
        if name not in {item.name for item in wanted}:
            raise UserError(f"--option={name}: this set is not asked for.")
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
) -> Part:
    files = find_files(wanted.name, wanted.path, cache=cache)
    records, placed, report = read_set(
        wanted.name,
        files,
        kind=wanted.kind,
        options=options.get(wanted.name),
        max_rows=max_rows,
        seed=seed,
    )
    named = [{**record, "id": f"{wanted.name}/{record['id']}"} for record in records]
    return Part(wanted, files, named, placed, report)


def _write(
    directory: Path, kind: str, parts: Sequence[Part], splits: Mapping[str, str]
) -> None:
    """Writes KIND.SPLIT.jsonl for each split that has records."""
    for split in SPLITS:
        lines = [
            json.dumps(record, ensure_ascii=False) + "\n"
            for part in parts
            for record in _of_split(part, split, splits)
        ]
        if lines:
            path = directory / f"{kind}.{split}.jsonl"
            path.write_text("".join(lines), encoding="utf-8")


def _of_split(part: Part, split: str, splits: Mapping[str, str]) -> Iterator[Record]:
    for record, placed in zip(part.records, part.placed, strict=True):
        if splits[placed.group] == split:
            yield record


def _texts(
    parts: Sequence[Part], split: str, splits: Mapping[str, str]
) -> Iterator[str]:
    """All texts of a split, to train the tokenizer."""
    for part in parts:
        for record in _of_split(part, split, splits):
            for field in ("text", "prompt", "response"):
                if field in record:
                    yield record[field]
            yield from record.get("history", ())
            yield from record.get("responses", ())


def _source(part: Part, options: Mapping[str, Mapping[str, str]]) -> dict:
    """A set's entry in sources.json."""
    entry = get_set(part.wanted.name)
    return {
        "set": part.wanted.name,
        "kind": part.wanted.kind,
        "licence": entry.licence,
        "homepage": entry.homepage,
        "options": dict(options.get(part.wanted.name, {})),
        "records": len(part.records),
        "skipped": dict(part.report.skipped),
        "noted": dict(part.report.noted),
        "files": [
            {
                "origin": file.origin,
                "split": file.split,
                "sha256": sha256_of(file.path),
            }
            for file in part.files
        ],
    }


def _split_table(parts: Sequence[Part], splits: Mapping[str, str]) -> str:
    """A table of rows per split and, for comparisons, of responses and ties."""
    rows = []
    for part in parts:
        for split in SPLITS:
            records = list(_of_split(part, split, splits))
            if records:
                name, kind = part.wanted.name, part.wanted.kind
                rows.append([name, kind, split, len(records), *_rankings(records)])
    columns = ["set", "kind", "split", "rows", "rows by K", "pairs", "tied pairs"]
    return format_table(rows, columns)


def _rankings(records: Sequence[Record]) -> list[str | None]:
    """Cells with rows by K, pairs and tied pairs; None for records without ranks."""
    ranks = [record["ranks"] for record in records if "ranks" in record]
    if not ranks:
        return [None, None, None]
    sizes = Counter(map(len, ranks))
    pairs = sum(k * (k - 1) // 2 * count for k, count in sizes.items())
    tied = sum(n * (n - 1) // 2 for r in ranks for n in Counter(r).values())
    by_size = " ".join(f"{k}:{count}" for k, count in sorted(sizes.items()))
    return [by_size, str(pairs), str(tied)]


def _source_table(parts: Sequence[Part]) -> str:
    """A table of each set's licence, and of what its reader left out or decided."""
    lines = []
    for part in parts:
        kind, name, _ = part.wanted
        lines.append(f"{name} {kind} (licence: {get_set(name).licence})")
        for verb, counts in (
            ("left out", part.report.skipped),
            ("noted", part.report.noted),
        ):
            lines += [f"  {verb} {n:>7}  {what}" for what, n in counts.most_common()]
    return "\n".join(lines)


def _empty_splits(
    parts: Sequence[Part],
    splits: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
) -> Iterator[str]:
    """A line for each split that should have records of a kind and has none."""
    for kind in dict.fromkeys(part.wanted.kind for part in parts):
        placed = [p for part in parts if part.wanted.kind == kind for p in part.placed]
        found = {splits[item.group] for item in placed}
        for split in SPLITS:
            if split in found or not (split == "train" or shares.get(split)):
                continue
            groups = len({item.group for item in placed})
            if split == "train":
                remedy = "lower --valid and --test, or give more"
            else:
                share = share_for(split, placed, shares=shares, seed=seed)
                remedy = f"--{split}={share:g} gives some" if share else "give more"
            yield (
                f"no {split} {kind}: none of the {groups} different ones fell into"
                f" this split; {remedy}"
            )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; a mistake ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.prepare",
        description="Makes a folder of records out of public data sets.",
        epilog="; ".join(f"{name}: {', '.join(SETS[name].kinds)}" for name in SETS),
        allow_abbrev=False,
    )
    parser.add_argument(
        "outdir", type=os.path.expanduser, help="new folder for KIND.SPLIT.jsonl"
    )
    for kind in FIELDS:
        parser.add_argument(
            f"--{kind}",
            action="append",
            default=[],
            metavar="NAME[:FILE]",
            help="a set, and its file or folder; without one it is downloaded",
        )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME.KEY=VALUE",
        help="of a set's reader, as in openassistant.lang=en",
    )
    for split, share in SHARES.items():
        parser.add_argument(
            f"--{split}",
            type=float,
            default=share,
            help=f"share of groups for sets without a {split} file (%(default)s)",
        )
    parser.add_argument("--max-rows", type=int, default=0, help="of each set and kind")
    parser.add_argument("--seed", type=int, default=0, help="of splits and choices")
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=0,
        help="train tokenizer.model with at most so many pieces; without it none",
    )
    parser.add_argument("--cache", default=str(CACHE), help="for downloads")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Runs the command; a user's mistake ends in one line."""
    args = parse(argv)
    try:
        wanted = [
            Wanted(kind, name, path or None)
            for kind in FIELDS
            for name, _, path in (text.partition(":") for text in getattr(args, kind))
        ]
        prepare(
            args.outdir,
            wanted,
            options=_parse_options(args.option),
            shares={split: getattr(args, split) for split in SHARES},
            max_rows=args.max_rows,
            seed=args.seed,
            vocab_size=args.vocab_size,
            cache=args.cache,
        )
    except UserError as error:
        sys.exit(f"error: {error}")


def _parse_options(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not (equals and dot):
            raise UserError(f"--option={text}: give NAME.KEY=VALUE.")
        options.setdefault(name, {})[option] = value
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
