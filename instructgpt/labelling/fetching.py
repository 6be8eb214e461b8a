"""Fetches finished work, and makes of it the records that the stages read.

What came back is kept in work.jsonl, which is written anew after each desk; so a
program that was killed in the middle loses nothing, and a second fetch changes nothing.
What cannot be taken is listed in refused.jsonl with the reason, and the rest is kept.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.records import SPLITS
from instructgpt.errors import UserError, about
from instructgpt.evals.judgements import Judgement, as_line
from instructgpt.evals.preference import HELD_OUT
from instructgpt.labelling.checking import why_not
from instructgpt.labelling.interface import Desk, Page, Rating, Refused, Work
from instructgpt.labelling.ledger import GOLD, Entry, Ledger, sealed, unsealed
from instructgpt.labelling.plain import stray_work
from instructgpt.labelling.room import LABELERS, Room, write_rows

JUDGEMENTS = "judgements.jsonl"
_KEPT = ("id", "history", "prompt", "responses", "customer", "category")
_KEPT_PROMPT = ("id", "history", "prompt", "customer", "category", "style")


class Fetched(NamedTuple):
    """What a fetch found.

    Attributes:
      work: All work that was ever fetched, by key.
      new: Number of tasks of which something new came back.
      refused: What could not be taken this time, with the labeler.
      failed: For each labeler whose desk could not be read, what it said.
    """

    work: dict[str, Work]
    new: int
    refused: list[tuple[str, Refused]]
    failed: dict[str, str]


def fetch(room: Room, ledger: Ledger, desks: Mapping[str, Desk]) -> Fetched:
    """Reads every desk, and writes work.jsonl, refused.jsonl and the records.

    A desk that cannot be read is left out; what it gave before is kept.

    Raises:
      UserError: work.jsonl is damaged, or a file cannot be written.
    """
    work = read_work(room.work)
    before = dict(work)
    sent = {(x.labeler, x.page) for x in ledger.entries.values()}
    refused = stray_work(room.desks, room.groups, sent)
    failed: dict[str, str] = {}
    for labeler, desk in desks.items():
        try:
            with about(f"desk of {labeler}"):
                found, bad = _of_desk(labeler, desk, room, ledger)
        except UserError as error:
            failed[labeler] = str(error)
            continue
        refused += [(labeler, one) for one in bad]
        if any(work.get(key) != one for key, one in found.items()):
            work.update(found)
            _write_work(room.work, work, ledger)
    rows = [
        {"labeler": labeler, "where": one.where, "reason": one.reason}
        for labeler, one in refused
    ]
    write_rows(room.refused, rows)
    write_records(room, ledger, work)
    new = sum(before.get(key) != one for key, one in work.items())
    return Fetched(work, new, refused, failed)


def _of_desk(
    labeler: str, desk: Desk, room: Room, ledger: Ledger
) -> tuple[dict[str, Work], list[Refused]]:
    """The work of one desk by key, and what cannot be taken."""
    pages: dict[Page, dict[str, Entry]] = {}
    for sent in ledger.entries.values():
        if sent.labeler == labeler and sent.key in ledger.placed:
            pages.setdefault(sent.page, {})[sent.key] = sent
    found: dict[str, Work] = {}
    refused: list[Refused] = []
    for page, entries in pages.items():
        tasks = {key: entry.task for key, entry in entries.items()}
        for one in desk.finished(page, tasks):
            if isinstance(one, Refused):
                refused.append(one)
                continue
            where = f"{page} task {one.key}"
            entry = entries.get(one.key)
            reason = (
                _strange(one.key, labeler, ledger)
                if entry is None
                else _forbidden(entry, room) or why_not(one, entry.task)
            )
            if reason:
                refused.append(Refused(where, reason))
                continue
            other = found.get(one.key)
            if other is not None and other != one:
                # The same whatever the order in which they came.
                one, other = sorted((one, other), key=_lateness, reverse=True)
                refused.append(
                    Refused(where, f"handed in twice; that of {one.when} counts")
                )
            found[one.key] = one
    return found, refused


def _lateness(work: Work) -> tuple[str, str]:
    return work.when, repr(work)


def _strange(key: str, labeler: str, ledger: Ledger) -> str:
    """Why a key is not one of the labeler's tasks on this page."""
    entry = ledger.entries.get(key)
    if entry is None:
        return "no task with this key was sent"
    if entry.labeler != labeler:
        return f"is a task of {entry.labeler}, not of {labeler}"
    return f"is a task of the page {entry.page}, or was not put on this desk"


def _forbidden(entry: Entry, room: Room) -> str | None:
    """Why nothing of this labeler may be taken for the task, if so."""
    group = room.groups.get(entry.labeler)
    if group is None:
        return f"{entry.labeler} is not among the labelers of {LABELERS}"
    if group == HELD_OUT and entry.split == "train":
        return (
            f"{entry.labeler} is a held-out labeler, whose work is no training data; "
            f"{entry.record['id']!r} is of the training split"
        )
    if group != entry.group:
        return (
            f"{entry.labeler} was of the group {entry.group} when this was sent, and "
            f"is of {group} in {LABELERS}; put the group back"
        )
    return None


def read_work(path: Path) -> dict[str, Work]:
    """Reads what was fetched, by key.

    Raises:
      UserError: a line is damaged.
    """
    work = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = unsealed(json.loads(line))
            fields = {k: v for k, v in row.items() if k in Work._fields}
            ratings = tuple(Rating(**one) for one in fields.get("ratings", ()))
            ranks = tuple(fields.get("ranks", ()))
            work[row["key"]] = Work(**{**fields, "ranks": ranks, "ratings": ratings})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}:{number}: damaged, or changed by hand; delete the file, and "
                "fetch again"
            ) from error
    return work


def _write_work(path: Path, work: Mapping[str, Work], ledger: Ledger) -> None:
    """Writes what was fetched, in the ledger's order; no line names a model."""
    rows = []
    for entry in ledger.entries.values():
        if entry.key in work:
            row = _work_row(entry, work[entry.key])
            rows.append(sealed(row))
    write_rows(path, rows)


def _work_row(entry: Entry, work: Work) -> dict[str, Any]:
    known = {
        "labeler": entry.labeler,
        "group": entry.group,
        "page": entry.page,
        "split": entry.split,
        "round": entry.round,
        "id": entry.record["id"],
        "category": entry.record.get("category", ""),
        # The answer shown at place i is the record's order[i].
        "order": list(entry.order),
        # The right ranks of a gold item, as shown.
        "gold": [entry.gold[i] for i in entry.order] if entry.gold else [],
        "repeat_of": entry.repeat_of,
    }
    row = {**known, **work.as_json()}
    kept = ("key", "labeler", "seconds", "when", "skipped", "note")
    return {k: row[k] for k in kept} | {
        k: v for k, v in row.items() if k not in kept and v not in ("", [], ())
    }


def write_records(room: Room, ledger: Ledger, work: Mapping[str, Work]) -> None:
    """Writes the folder of records; split by split, each file whole or not at all."""
    files: dict[str, list[dict[str, Any]]] = {
        f"{kind}.{split}.jsonl": []
        for kind in ("demonstrations", "comparisons")
        for split in SPLITS
    }
    files[JUDGEMENTS] = []
    for entry in ledger.entries.values():
        one = work.get(entry.key)
        if one is None or one.skipped or entry.repeat_of or entry.split == GOLD:
            continue
        if _forbidden(entry, room):
            continue
        if entry.page == "demonstration":
            row = demonstration_row(entry.record, one.response, entry.labeler)
            files[f"demonstrations.{entry.split}.jsonl"].append(row)
        elif entry.page == "ranking":
            # The test split is the held-out labelers'.
            split = "test" if entry.group == HELD_OUT else entry.split
            ranks = entry.in_order(one.ranks)
            row = comparison_row(entry.record, ranks, entry.labeler)
            files[f"comparisons.{split}.jsonl"].append(row)
        else:
            files[JUDGEMENTS] += judgement_rows(entry, one)
    for name, rows in files.items():
        write_rows(room.records / name, rows)
    groups = [{"name": n, "group": g} for n, g in room.groups.items()]
    write_rows(room.records / LABELERS, groups)


def comparison_row(
    record: Mapping[str, Any], ranks: Iterable[int], labeler: str
) -> dict[str, Any]:
    """A record of kind comparisons: a labeler's ranks of the record's responses."""
    kept = {k: record[k] for k in _KEPT if k in record}
    return {**kept, "ranks": list(ranks), "labeler": labeler}


def demonstration_row(
    record: Mapping[str, Any], response: str, labeler: str
) -> dict[str, Any]:
    """A record of kind demonstrations, with the labeler who wrote it."""
    kept = {k: record[k] for k in _KEPT_PROMPT if k in record}
    return {**kept, "response": response, "source": "labeler", "labeler": labeler}


def judgement_rows(entry: Entry, work: Work) -> list[dict[str, Any]]:
    """A labeler's judgements of models' answers, with the answers, in models' order."""
    size = len(entry.order)
    ranks = entry.in_order(work.ranks) if work.ranks else [None] * size
    ratings = entry.in_order(work.ratings) if work.ratings else [Rating()] * size
    # An answer that is rated by itself was not ranked together with others.
    sheet = "rating" if entry.page == "rating" else ""
    sheet += f" round {entry.round}" if entry.round > 1 else ""
    rows = []
    for model, text, rank, rating in zip(
        entry.models, entry.record["responses"], ranks, ratings, strict=True
    ):
        one = Judgement(
            id=str(entry.record["id"]),
            model=model,
            likert=rating.likert,
            flags=rating.flags,
            rank=rank,
            labeler=entry.labeler,
            group=entry.group,
            sheet=sheet.strip(),
            note=work.note,
        )
        rows.append({**json.loads(as_line(one)), "response": text})
    return rows
