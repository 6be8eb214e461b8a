"""A synthetic set of prompts with planted faults, and the outcome of each row."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.records import Record

BLOCK = 20_000  # sizes are multiples of it, so that each file holds whole patterns
FILES = {"train": 0.5, "valid": 0.25, "test": 0.25}  # shares of the rows
CAP = 200
PREFIX = 200
# Two digits of the row number say what a row is; the others are ordinary.
FAR_DUPLICATE, NEAR_DUPLICATE = 10, 35
ORIGINAL, NEAR_ORIGINAL = 3, 28  # rows of 60 words and of 8
PII, HARMLESS = (20, 60), (21, 61)
HALF_SHARED = 50  # the first 150 characters of the row before
HEAVY = range(70, 75)  # of a customer with 250 rows
CROSSING = 80  # in valid and test: of a customer of train
UNOWNED = (90, 91)

PII_SAMPLES = (
    "jo.doe@example.com",
    "415-555-0132",
    "4111 1111 1111 1111",
    "GB82 WEST 1234 5698 7654 32",
    "078-05-1120",
    "203.0.114.25",
    "https://jo:secret@db.example.com/x",
    "sk-" + "a1b2c3d4" * 4,
    "221B Baker Street, London NW1 6XE",
)
HARMLESS_SAMPLES = (
    "in 1984 and 2001-2010",
    "for $1,299.99 or 12 500 000 yen",
    "ISBN 978-0-306-40615-7",
    "12345 * 67890 = 838102050",
    "10.1.2.3 on port 8080",
    "3.14159265358979323846",
    "2024-01-15 10:30:45",
    "the handle @jo and a@b",
    "4111 1111 1111 1112",
)


class Row(NamedTuple):
    """A row and its fate."""

    record: Record
    split: str  # of the file it lies in
    fault: str  # "", "duplicate", "cap", "pii" (if it is in train) or "cross_split" (if
    # the splits of the files hold)
    detail: str


def _words() -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u")]
    return ["".join(pair) for pair in itertools.product(syllables, repeat=2)]


_WORDS = _words()


def _text(number: int, words: int = 0) -> str:
    """Words that belong to the row's number, by default 8, 20, 35 or 60 of them."""
    words = words or (8, 20, 35, 60)[number % 4]
    return " ".join(random.Random(number).choices(_WORDS, k=words))


def planted_rows(number: int) -> Iterator[Row]:
    """Rows 0 to `number`, a multiple of BLOCK, in the order of the files."""
    assert number % BLOCK == 0
    end = 0
    for split, share in FILES.items():
        start, end = end, end + round(number * share)
        for i in range(start, end):
            yield _row(i, split, train_rows=round(number * FILES["train"]))


def _row(i: int, split: str, *, train_rows: int) -> Row:
    text, customer, fault, detail = _text(i), f"{split}-{i // 20}", "", ""
    block, place = divmod(i, 100)
    if place == FAR_DUPLICATE and block:
        original = block // 2 * 100 + ORIGINAL
        text = _text(original)[: PREFIX + 20].replace(" ", "\n ") + _text(i)
        fault, detail = "duplicate", f"of p{original}"
    elif place == NEAR_DUPLICATE:
        original = block * 100 + NEAR_ORIGINAL
        text = f"  {_text(original)}\n"
        fault, detail = "duplicate", f"of p{original}"
    elif place in PII:
        text += f" {PII_SAMPLES[block % len(PII_SAMPLES)]} {_text(i, 3)}"
        fault = "pii"
    elif place in HARMLESS:
        text += f" {HARMLESS_SAMPLES[block % len(HARMLESS_SAMPLES)]} {_text(i, 3)}"
    elif place == HALF_SHARED:
        text = f"{_text(i - 1, 60)[:150]} {_text(i, 60)}"
    elif place in HEAVY:
        customer = f"{split}-heavy-{i // 5000}"
        if block % 50 * len(HEAVY) + place - HEAVY.start >= CAP:
            fault, detail = "cap", f"customer has {CAP}"
    elif place == CROSSING and split != "train":
        customer = f"train-{(block * 100 % train_rows + ORIGINAL) // 20}"
        fault, detail = "cross_split", "customer is in train"
    elif place in UNOWNED:
        customer = ""
    record = {"id": f"p{i}", "prompt": text, "customer": customer, "category": "chat"}
    return Row(record, split, fault, detail)


def write_planted(folder: Path, number: int) -> list[Path]:
    """The rows as prompts in train.jsonl, valid.jsonl and test.jsonl."""
    paths = {split: folder / f"{split}.jsonl" for split in FILES}
    for split, rows in itertools.groupby(planted_rows(number), key=lambda r: r.split):
        with paths[split].open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row.record) + "\n" for row in rows)
    return list(paths.values())


def check_planted(folder: Path, number: int, *, given_splits: bool) -> dict[str, int]:
    """Asserts that exactly the planted rows were removed, each for its reason.

    Args:
      folder: what the command wrote for `write_planted`'s files.
      number: rows.
      given_splits: whether the splits of the files held, and customers in a second
        one were dropped.

    Returns:
      Rows removed for each reason.
    """
    splits = [path.name.split(".")[1] for path in folder.glob("prompts.*.jsonl")]
    assert set(splits) == set(FILES)
    homes: dict[str, str] = {}
    for split in splits:
        for record in _read(folder / f"prompts.{split}.jsonl"):
            if record["customer"]:
                assert homes.setdefault(record["customer"], split) == split
    kept = {split: _read(folder / f"prompts.{split}.jsonl") for split in splits}
    removed = _read(folder / "removed.jsonl")
    upcoming = {split: next(kept[split], None) for split in splits}
    counts: dict[str, int] = {}
    for record, split, fault, detail in planted_rows(number):
        home = split if given_splits else homes.get(record["customer"], "")
        spared = {"pii": home != "train", "cross_split": not given_splits}
        if fault and not spared.get(fault, False):
            counts[fault] = counts.get(fault, 0) + 1
            found = next(removed)
            assert (found["id"], found["reason"]) == (record["id"], fault), found
            assert found["detail"] == detail or fault == "pii", found
            continue
        (place,) = (
            name
            for name, row in upcoming.items()
            if row is not None and row["id"] == record["id"]
        )
        assert upcoming[place]["prompt"] == record["prompt"]
        assert place == home or not home
        upcoming[place] = next(kept[place], None)
    assert next(removed, None) is None
    assert not any(upcoming.values())
    return counts


def _read(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
