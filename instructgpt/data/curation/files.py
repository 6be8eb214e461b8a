"""Curates files: writes splits, a list of removed records, and the data card."""

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from instructgpt.data.curation.card import Card, Tally, card_to_json, render_card
from instructgpt.data.curation.language import (
    Sample,
    language_shares,
    make_identifier,
)
from instructgpt.data.curation.ledger import Ledger
from instructgpt.data.curation.rules import REASONS, Outcome, Rules, curate
from instructgpt.data.curation.units import Unit, read_units, response_texts
from instructgpt.data.records import SPLITS
from instructgpt.errors import UserError
from instructgpt.outputs import new_folder
from instructgpt.tokenizer import Tokenizer

KINDS = ("prompts", "demonstrations", "comparisons")
PROGRESS_SECONDS = 10.0
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Result(NamedTuple):
    """Result of a run of the command, in numbers of records except for `lines`."""

    card: Card
    kept: dict[str, int]  # kept in each split
    removed: dict[str, int]  # removed for each of REASONS
    moved: int  # moved to the split of their customer
    lines: int  # lines of the input
    seconds: float


def curate_files(
    inputs: Sequence[str | os.PathLike[str]],
    outdir: str | os.PathLike[str],
    *,
    kind: str,
    rules: Rules,
    tokenizer: Tokenizer | None = None,
    given_splits: Sequence[str] = (),
    language_sample: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> Result:
    """Curates JSONL files into a folder, which appears when it is complete.

    It holds KIND.SPLIT.jsonl for each split that has records, in input order;
    removed.jsonl with the id, line and reason of each removed record (not its text,
    which may be personal); with `given_splits`, moved.jsonl with the same for records
    that changed their split; and the data card as card.md and card.json.

    Args:
      inputs: files of records of one kind, read once, in order.
      outdir: a folder that is empty or does not exist.
      kind: one of KINDS.
      rules: rules of removing and splitting.
      tokenizer: tokenizer that counts lengths in tokens; None counts characters.
      given_splits: the split of each input file, if files are splits already; a
        customer in several splits goes to the first.
      language_sample: number of texts whose language is on the card.
      log: called with a progress line at intervals.

    Raises:
      UserError: a line or an argument is not valid, or nothing is kept. `outdir` is
        then unchanged.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind!r}: choose from {', '.join(KINDS)}.")
    if rules.max_tokens is not None and tokenizer is None:
        raise UserError("a limit in tokens needs a tokenizer; give --tokenizer=FILE.")
    if language_sample < 0:
        raise UserError(f"language_sample={language_sample}: give 0 or more.")
    _check_inputs(inputs, given_splits)
    identify = make_identifier() if rules.languages or language_sample else None
    with (
        new_folder(outdir) as folder,
        tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as scratch,
    ):
        tally, sample = Tally(), Sample(language_sample)
        measure = len if tokenizer is None else lambda text: len(tokenizer.encode(text))
        started = time.monotonic()
        with (
            contextlib.closing(Ledger(Path(scratch, "ledger.sqlite"))) as ledger,
            _Output(folder, kind, moves=bool(given_splits)) as output,
        ):
            units = _with_progress(_units(inputs, kind, given_splits), log)
            for outcome in curate(
                units, rules, ledger=ledger, measure=measure, identify=identify
            ):
                output.write(outcome)
                if not outcome.reason:
                    _count(outcome, tally, measure)
                    sample.add(outcome.prefix, outcome.unit.text)
            customers = ledger.customer_counts()
        if not output.kept.total():
            raise UserError(
                f"{', '.join(map(str, inputs))}: nothing was kept of {output.lines}"
                f" lines ({_listing(output.removed)}); relax the rules."
            )
        texts = sample.texts()
        card = tally.card(
            measure="characters" if tokenizer is None else "tokens",
            customers=customers,
            languages=language_shares(texts, identify) if identify else {},
            language_sample=len(texts),
        )
        result = output.result(card, seconds=time.monotonic() - started)
        _write_card(folder, result, rules, title=f"{Path(outdir).name}: {kind}")
    return result


def _check_inputs(
    inputs: Sequence[str | os.PathLike[str]], given_splits: Sequence[str]
) -> None:
    """Raises UserError for a wrong path or split before any file is read."""
    for path in inputs:
        if not Path(path).exists():
            raise UserError(f"{path}: there is no such file; correct the path.")
    if given_splits and len(given_splits) != len(inputs):
        raise UserError(
            f"{len(given_splits)} given splits but {len(inputs)} input files; name the"
            " split of each file."
        )
    if not set(given_splits) <= set(SPLITS):
        raise UserError(
            f"given splits {', '.join(given_splits)}: choose from {', '.join(SPLITS)}."
        )


def _units(
    inputs: Sequence[str | os.PathLike[str]], kind: str, given_splits: Sequence[str]
) -> Iterator[Unit]:
    for path, split in zip(inputs, given_splits or [""] * len(inputs), strict=True):
        yield from read_units(path, kind=kind, split=split)


def _with_progress(units: Iterator[Unit], log: Callable[[str], None]) -> Iterator[Unit]:
    """Yields the same units, and logs a line every PROGRESS_SECONDS."""
    started = reported = time.monotonic()
    for number, unit in enumerate(units):
        if number % 1000 == 999 and time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            rate = (number + 1) / (reported - started)
            log(f"{number + 1:,} lines, {rate:,.0f} a second, at {unit.where}")
        yield unit


def _count(outcome: Outcome, tally: Tally, measure: Callable[[str], int]) -> None:
    for record, length in zip(outcome.unit.records, outcome.lengths, strict=True):
        responses = [measure(text) for text in response_texts(record)]
        tally.add(record, outcome.split, prompt=length, responses=responses)


class _Output:
    """The JSONL output files of a run, with counts of records."""

    def __init__(self, folder: Path, kind: str, *, moves: bool):
        self.lines = 0
        self.moved = 0
        self.kept: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()
        self._files = contextlib.ExitStack()
        self._paths = {split: folder / f"{kind}.{split}.jsonl" for split in SPLITS}
        self._splits = {split: self._open(path) for split, path in self._paths.items()}
        self._removed = self._open(folder / "removed.jsonl")
        self._moved = self._open(folder / "moved.jsonl") if moves else None

    def _open(self, path: Path) -> IO[str]:
        return self._files.enter_context(path.open("w", encoding="utf-8", newline=""))

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()
        for split, path in self._paths.items():
            if not self.kept[split]:  # a split without records gets no file
                path.unlink()

    def result(self, card: Card, *, seconds: float) -> Result:
        """The result of the run: the counts so far, the card and the time."""
        return Result(
            card,
            kept={split: self.kept[split] for split in SPLITS},
            removed={reason: self.removed[reason] for reason in REASONS},
            moved=self.moved,
            lines=self.lines,
            seconds=seconds,
        )

    def write(self, outcome: Outcome) -> None:
        """Writes a unit's records to their split, or the reason for their removal."""
        unit, split, reason = outcome.unit, outcome.split, outcome.reason
        self.lines += 1
        if reason:
            self.removed[reason] += len(unit.records)
            why = {"split": split, "reason": reason, "detail": outcome.detail}
            _list(unit, self._removed, why)
            return
        self.kept[split] += len(unit.records)
        for record in unit.records:
            self._splits[split].write(_encode(record) + "\n")
        if self._moved and split != unit.split:
            self.moved += len(unit.records)
            _list(unit, self._moved, {"from": unit.split, "to": split})


def _list(unit: Unit, file: IO[str], fate: dict[str, str]) -> None:
    """Writes a line about each record: its place in the input and its outcome."""
    for record in unit.records:
        about = {"id": record["id"], "line": unit.where, **fate}
        file.write(_encode(about) + "\n")


def _write_card(folder: Path, result: Result, rules: Rules, *, title: str) -> None:
    removed = f"Removed: {_listing(Counter(result.removed)) or 'nothing'}.\n"
    card = render_card(result.card, title=title)
    (folder / "card.md").write_text(f"{card}\n{removed}", encoding="utf-8")
    values = card_to_json(result.card) | {
        "removed": result.removed,
        "rules": dataclasses.asdict(rules),
    }
    text = json.dumps(values, ensure_ascii=False, indent=2)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")


def _listing(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in counts.items() if n)
