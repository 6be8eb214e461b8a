"""The paper's rules of curation (§3.2, A.2), which keep, split and remove units.

Rules apply to units (units.py) in this order; the first that a unit breaks names the
reason for which it is removed:

1. `length`: the prompt is too short or too long.
2. `language`: it is in none of the requested languages. Off by default.
3. `cross_split`: the customer is already in another split (only for files that are
   splits already; see below).
4. `pii`: personal data in a prompt or a response, in the training split only.
5. `duplicate`: it shares a long prefix with a unit kept before. Two units are
   duplicates if their texts, with each run of white space made one space and none at
   the ends, have the same first `prefix_chars` characters; so two texts shorter than
   that are duplicates only if they are equal. Responses do not count: one of several
   demonstrations of a prompt is kept. Texts, and customers, are compared by 64-bit
   BLAKE2b hashes: among n units the chance that any two that differ are taken for one
   is about n^2 / 2^65 (3e-8 for a million).
6. `cap`: the customer has `cap` units in the set already. Units of no customer, which
   labelers wrote, are not capped.

The paper deduplicates first and filters personal data last. Here the rules that look
at one unit come first, so that no unit is removed as a duplicate of a unit that is
itself removed.

Splits: a hash of the customer and the seed puts all units of a customer in one split
(A.2 says organisation, §3.2 user: `customer` may be either). A unit without a customer
is split by the hash of its prefix. If files are splits already, a customer stays in the
split of its first kept unit, so the order of the files decides; later units in other
splits are moved there or dropped.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from instructgpt.data.curation.ledger import Ledger
from instructgpt.data.curation.pii import find_pii
from instructgpt.data.curation.units import Unit, prompt_text, response_texts
from instructgpt.data.records import SPLITS
from instructgpt.errors import UserError

REASONS = ("length", "language", "cross_split", "pii", "duplicate", "cap")


@dataclasses.dataclass(frozen=True)
class Rules:
    """Thresholds of the rules; None means no limit.

    Raises:
      UserError: on construction, for a value that is not valid.
    """

    prefix_chars: int = 200  # about 50 tokens; the paper gives no number
    cap: int = 200  # largest number of units of one customer (§3.2)
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)  # shares of customers in SPLITS
    seed: int = 0  # seed of the split
    min_chars: int = 1
    max_chars: int | None = None
    max_tokens: int | None = None
    languages: tuple[str, ...] = ()  # ISO 639-1 codes; empty: any language
    cross_split: Literal["move", "drop"] = "move"

    def __post_init__(self) -> None:
        for name in ("prefix_chars", "cap", "min_chars", "max_chars", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: give a number of at least 1.")
        if (
            len(self.fractions) != len(SPLITS)
            or min(self.fractions) < 0
            or not abs(sum(self.fractions) - 1) < 1e-6  # so that nan is refused
        ):
            raise UserError(
                f"fractions={self.fractions}: give one for each of {', '.join(SPLITS)},"
                " at least 0 and 1 together."
            )
        if self.cross_split not in ("move", "drop"):
            raise UserError(f"cross_split={self.cross_split!r}: 'move' or 'drop'.")


class Outcome(NamedTuple):
    """The outcome of a unit: its split, or the reason for its removal."""

    unit: Unit
    split: str  # its split, also if it is removed
    reason: str  # one of REASONS; "" if it is kept
    detail: str  # readable detail of the reason
    prefix: int  # 64-bit hash of the text's first characters
    lengths: list[int]  # length of each record's prompt, in the unit of `measure`


def curate(
    units: Iterable[Unit],
    rules: Rules,
    *,
    ledger: Ledger,
    measure: Callable[[str], int] = len,
    identify: Callable[[str], str] | None = None,
) -> Iterator[Outcome]:
    """Yields one outcome per unit, in order; equal input gives equal outcomes.

    Memory does not grow with the number of units, because the ledger is on disk.

    Args:
      units: units to curate, read once.
      rules: thresholds.
      ledger: records the kept units, also those of earlier calls.
      measure: length of a prompt, for `max_tokens` and `Outcome.lengths`: a number of
        characters or of tokens.
      identify: language of a text; required if `rules.languages` is not empty.
    """
    for unit in units:
        start = prefix(unit.text, rules.prefix_chars)
        key = hash64(start)
        customer = hash64(unit.customer, seed=rules.seed) if unit.customer else None
        split = unit.split or choose_split(
            hash64(start, seed=rules.seed) if customer is None else customer,
            rules.fractions,
        )
        owner = None
        if unit.split and customer is not None:
            owner = ledger.split_of(customer)
        prompts = [prompt_text(record) for record in unit.records]
        lengths = [measure(prompt) for prompt in prompts]
        reason, detail = _fault(
            unit,
            rules,
            chars=max(map(len, prompts)),
            length=max(lengths),
            identify=identify,
        )
        if not reason and owner and owner != split:
            if rules.cross_split == "drop":
                reason, detail = "cross_split", f"customer is in {owner}"
            else:
                split = owner
        if not reason and split == "train":
            reason, detail = _fault_of_training(unit)
        if not reason:
            reason, detail = _fault_beside_others(
                unit, rules, ledger=ledger, split=split, key=key, customer=customer
            )
        yield Outcome(unit, split, reason, detail, key, lengths)


def prefix(text: str, chars: int) -> str:
    """The first `chars` characters, with each run of white space as one space."""
    # `chars` words have at least `chars` characters, so the rest need not be split.
    return " ".join(text.split(None, chars)[:chars])[:chars]


def hash64(text: str, *, seed: int = 0) -> int:
    """BLAKE2b of the text, keyed with the seed, as a signed 64-bit integer."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"%d" % seed).digest()
    return int.from_bytes(digest, "big", signed=True)


def choose_split(hashed: int, fractions: tuple[float, ...]) -> str:
    """The split of a hash: the range of 64-bit integers is divided by fractions."""
    share = hashed / 2**64 + 0.5  # from 0 to 1
    bound = 0.0
    for split, fraction in zip(SPLITS, fractions, strict=True):
        bound += fraction
        if share < bound:
            return split
    # Because of rounding the share may pass all bounds; the last split takes it.
    return [s for s, fraction in zip(SPLITS, fractions, strict=True) if fraction][-1]


def _fault(
    unit: Unit,
    rules: Rules,
    *,
    chars: int,
    length: int,
    identify: Callable[[str], str] | None,
) -> tuple[str, str]:
    """Reason and detail of a unit that breaks a rule about single units."""
    if chars < rules.min_chars:
        return "length", f"{chars} characters, at least {rules.min_chars}"
    if rules.max_chars is not None and chars > rules.max_chars:
        return "length", f"{chars} characters, at most {rules.max_chars}"
    if rules.max_tokens is not None and length > rules.max_tokens:
        return "length", f"{length} tokens, at most {rules.max_tokens}"
    if rules.languages:
        assert identify is not None
        language = identify(unit.text)
        if language not in rules.languages:
            return "language", language
    return "", ""


def _fault_of_training(unit: Unit) -> tuple[str, str]:
    texts = [unit.text]
    for record in unit.records:
        texts += response_texts(record)
    for text in texts:
        found = find_pii(text)
        if found:
            return "pii", found.kind
    return "", ""


def _fault_beside_others(
    unit: Unit,
    rules: Rules,
    *,
    ledger: Ledger,
    split: str,
    key: int,
    customer: int | None,
) -> tuple[str, str]:
    """Records a unit as kept, or returns why other units rule it out."""
    holder = ledger.claim_prefix(key, unit.id)
    if holder is not None:
        return "duplicate", f"of {holder}"
    if customer is None:
        return "", ""
    if ledger.count(customer, split, cap=rules.cap):
        return "", ""
    ledger.release_prefix(key)
    return "cap", f"customer has {rules.cap}"
