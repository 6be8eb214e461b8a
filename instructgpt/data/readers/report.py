"""Counts, by reason, records that a reader left out or had to decide about."""

import dataclasses
from collections import Counter


@dataclasses.dataclass
class Report:
    """Counts that are filled while records are read, and complete at their end.

    Attributes:
      skipped: numbers of items of the file that gave no record, by reason.
      noted: numbers of records that needed a decision, by reason.
    """

    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    noted: Counter[str] = dataclasses.field(default_factory=Counter)

    def skip(self, reason: str, count: int = 1) -> None:
        if count:
            self.skipped[reason] += count

    def note(self, reason: str) -> None:
        self.noted[reason] += 1

    def __str__(self) -> str:
        skipped = _in_words(self.skipped) or "nothing"
        noted = _in_words(self.noted)
        return f"left out {skipped}" + (f"; noted {noted}" if noted else "")


def _in_words(counts: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items())
