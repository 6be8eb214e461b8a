"""Damages small files in many ways, and sees that every reader says what is wrong.

    python tests/faults/readers.py --inputs=10000 [--seed=0] [--readers=dolly,curate]

Each reader of a public set, the reader of one's own records and the command that
curates get so many damaged files each. A file must be read, into records that can be
written as UTF-8, or be refused by a UserError of one line that names the file. Any
other exception, a warning, and more than 5 seconds for a file are faults: they are
listed, and the command ends with 1. `--number=N` runs input N of each reader alone and
shows its traceback; `--keep=FOLDER` keeps the last input there.
"""

import argparse
import functools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.data.curation import Rules, curate_files  # noqa: E402
from instructgpt.data.origins.published import SetFile, read_set  # noqa: E402
from instructgpt.data.readers import SETS  # noqa: E402
from instructgpt.data.records import FIELDS, parse_lines, read_jsonl  # noqa: E402
from instructgpt.errors import UserError  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402
from tests.faults.file_mutations import File, mutate  # noqa: E402
from tests.faults.valid_files import ANY_FORM, OWN, PUBLIC, RAW  # noqa: E402

LONGEST = 5.0  # seconds for one file


class Reader(NamedTuple):
    """What reads a file.

    Attributes:
      files: valid ones, with the kind of record that each is read as.
      read: (path, kind) -> the records; may make a folder "out" beside the file.
    """

    files: Sequence[tuple[File, str]]
    read: Callable[[Path, str], Any]


class Fault(NamedTuple):
    """An input that was neither read nor refused as it must be."""

    number: int
    mutation: str
    what: str


class Outcome(NamedTuple):
    """What became of the inputs of one reader."""

    counts: Counter[str]  # read, refused, other
    faults: list[Fault]
    slowest: float  # seconds


class _HangError(BaseException):
    """No exception of a reader's own code may catch it."""


def _public(name: str) -> Callable[[Path, str], Any]:
    def read(path: Path, kind: str) -> Any:
        return read_set(name, [SetFile(path, None, str(path))], kind=kind).records

    return read


def _any_form(path: Path, kind: str) -> Any:
    file = SetFile(path, None, str(path), functools.partial(parse_lines, path))
    return read_set("file", [file], kind=kind).records


def _curate(path: Path, kind: str) -> Any:
    rules = Rules(min_chars=6)  # so that nothing is kept now and then
    curate_files([path], path.parent / "out", kind=kind, rules=rules)
    return [
        json.loads(line)
        for file in (path.parent / "out").glob(f"{kind}.*.jsonl")
        for line in file.read_text(encoding="utf-8").split("\n")
        if line
    ]


def all_readers() -> dict[str, Reader]:
    """By name: the public sets, "records" (one's own), "any_form" and "curate"."""
    readers = {}
    for name in SETS:
        if name != "jsonl":
            file = PUBLIC[name]
            files = [(file, kind) for kind in SETS[name].kinds]
            readers[name] = Reader(files, _public(name))
    files = [(file, kind) for kind in FIELDS for file in OWN[kind]]
    readers["jsonl"] = Reader(files, _public("jsonl"))
    readers["records"] = Reader(files, lambda path, kind: list(read_jsonl(path, kind)))
    any_form = [(file, kind) for kind, file in ANY_FORM]
    readers["any_form"] = Reader(any_form, _any_form)
    readers["curate"] = Reader([(file, kind) for kind, file in RAW], _curate)
    return readers


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _HangError(f"more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _outcome(reader: Reader, path: Path, kind: str) -> tuple[str, str]:
    """("read", ""), ("refused", the message) or ("other", what is wrong)."""
    try:
        with _no_longer_than(LONGEST), warnings.catch_warnings():
            warnings.simplefilter("error")
            for record in reader.read(path, kind):
                json.dumps(record, ensure_ascii=False).encode()
    except UserError as error:
        text = str(error)
        if len(text.splitlines()) != 1 or not text.isprintable():
            return "other", f"a message of several lines: {text!r:.300}"
        if str(path) not in text:
            return "other", f"a message that does not name the file: {text:.300}"
        if len(text) > len(str(path)) + 1000:
            return "other", f"a message of {len(text)} characters: {text:.300}"
        return "refused", text
    except (Exception, _HangError) as error:
        return "other", traceback.format_exc() + f"{type(error).__name__}"
    return "read", ""


def run(
    name: str,
    reader: Reader,
    *,
    numbers: Sequence[int],
    seed: int,
    log: Callable[[str], None] | None = None,
    keep: Path | None = None,
) -> Outcome:
    """Damaged files, one after the other.

    Args:
      name: of the reader, which draws other damage for each.
      reader: what reads them.
      numbers: of the inputs; an input follows from its number, the name and the seed.
      seed: draws other damage.
      log: gets what becomes of each.
      keep: a folder that gets the last file.
    """
    counts: Counter[str] = Counter()
    faults, slowest = [], 0.0
    # In memory where that can be.
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        for number in numbers:
            rng = random.Random(f"{seed} {name} {number}")
            whole, kind = reader.files[number % len(reader.files)]
            file, mutation = mutate(whole, rng)
            path = Path(folder, file.name)
            path.write_bytes(file.data)
            started = time.perf_counter()
            how, what = _outcome(reader, path, kind)
            slowest = max(slowest, time.perf_counter() - started)
            counts[how] += 1
            if how == "other":
                faults.append(Fault(number, mutation, what))
            if log:
                log(f"{name} {number} ({kind}; {mutation}): {how} {what}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep)
            path.unlink()
            shutil.rmtree(Path(folder, "out"), ignore_errors=True)
    return Outcome(counts, faults, slowest)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--inputs", type=int, default=1000, help="for each reader (%(default)s)")
    add("--seed", type=int, default=0, help="draws other damage (%(default)s)")
    add("--readers", default="", help="only these: NAME,NAME,...")
    add("--number", type=int, help="this input alone, with what becomes of it")
    add("--keep", type=Path, help="a folder that gets the last input")
    args = parser.parse_args(argv)
    unknown = set(filter(None, args.readers.split(","))) - set(all_readers())
    if unknown:
        parser.error(f"no readers {sorted(unknown)}; there are {list(all_readers())}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the faults and the table; 1 if there is a fault."""
    args = parse(argv)
    readers = all_readers()
    chosen = [name for name in args.readers.split(",") if name] or list(readers)
    numbers = range(args.inputs) if args.number is None else [args.number]
    log = print if args.number is not None else None
    rows, failed = [], False
    for name in chosen:
        found = run(
            name,
            readers[name],
            numbers=numbers,
            seed=args.seed,
            log=log,
            keep=args.keep,
        )
        for fault in found.faults[:5]:
            last = fault.what.strip().splitlines()
            print(f"{name} {fault.number} ({fault.mutation}): {' | '.join(last[-4:])}")
        failed = failed or bool(found.faults)
        counts = [found.counts[how] for how in ("read", "refused", "other")]
        rows.append([name, *map(str, [sum(counts), *counts]), f"{found.slowest:.2f}"])
    totals = [str(sum(int(row[i]) for row in rows)) for i in range(1, 5)]
    rows.append(["all", *totals, max(row[5] for row in rows)])
    columns = ["reader", "inputs", "read", "refused", "other exceptions", "slowest, s"]
    print(format_table(rows, columns))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
