"""Checks that what is held out stays held out in a folder of one's own (§3.4, A.3).

The prompts of demonstrations, of rankings and of PPO are separate draws, and PPO's are
customers' alone (Table 6). The splits share no customer, and held-out labelers make no
training data. The miniature world is made so; here data of one's own are held to it, as
far as their records say who wrote what. What cannot be known is not refused.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.origins.tables import SUFFIXES, suffix_of
from instructgpt.data.records import SPLITS, Record, read_jsonl
from instructgpt.errors import UserError

Files = Mapping[str, Mapping[str, Path]]  # kind -> split -> file
LABELERS = "labelers.jsonl"  # lines with a labeler's name and group
SOURCES = "sources.json"  # says which records come from published sets
HELD_OUT = "heldout"  # the group of labelers who make no training data
_KINDS = ("demonstrations", "prompts", "rm_prompts", "gpt_prompts", "comparisons")
_EITHER = "valid or test"
_NAMED = 3  # how many ids a message names


class Draw(NamedTuple):
    """The records of one kind and split.

    Attributes:
      kind: A key of `FIELDS`.
      split: train, valid or test.
      where: Their file, for messages.
      records: The records.
    """

    kind: str
    split: str
    where: str
    records: Iterable[Record]


def split_files(folder: Path, kind: str) -> dict[str, Path]:
    """The file of each split of a kind, KIND.SPLIT.jsonl or of another kind of file.

    Raises:
      UserError: a split has two files.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{kind}.*")):
        split = path.name.split(".")[1]
        suffix = suffix_of(path)
        name = f"{kind}.{split}{suffix}"
        if split in SPLITS and suffix in SUFFIXES and path.name.startswith(name):
            if split in files:
                raise UserError(
                    f"config.data.jsonl={folder}: both {files[split].name} and"
                    f" {path.name} give {split} {kind}; leave one of them there"
                )
            files[split] = path
    return {split: files[split] for split in SPLITS if split in files}


def check_folder(folder: str | Path, *, named: str | Path | None = None) -> None:
    """Checks all records of a folder; see `check_draws`.

    Args:
      folder: The folder of KIND.SPLIT.jsonl files.
      named: Its name in messages, if that is another one.

    Raises:
      UserError: see `check_draws`, or a file cannot be read.
    """
    folder = Path(folder)
    check_draws(
        (
            Draw(
                kind,
                split,
                str(Path(named or folder) / path.name),
                read_jsonl(path, kind),
            )
            for kind in _KINDS
            for split, path in split_files(folder, kind).items()
        ),
        groups=_groups(folder / LABELERS),
        published=_published(folder / SOURCES),
    )


def check_draws(
    draws: Iterable[Draw],
    *,
    groups: Mapping[str, str] | None = None,
    published: tuple[str, ...] = (),
) -> None:
    """Checks that the draws share nothing that they must not.

    Args:
      draws: The records of each kind and split.
      groups: The group of each labeler, by name, where it is known.
      published: Beginnings of the ids of records from published sets, whose customers
        are in the splits that the set has.

    Raises:
      UserError: a customer is in two splits; a record is a prompt of the reward model
        and of PPO; a prompt of PPO is a labeler's; a held-out labeler is in a training
        split. It names the file and ids.
    """
    seen = _Seen(groups or {}, published)
    for draw in draws:
        for record in draw.records:
            seen.look(draw, record)
    seen.check()


class _Seen:
    def __init__(self, groups: Mapping[str, str], published: tuple[str, ...]):
        self._groups, self._published = groups, published
        # Customer -> split -> (file, id) of the customer's first record there.
        self._customers: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        # Prompts of each draw, as digests -> id.
        self._prompts: dict[tuple[str, str], dict[bytes, str]] = defaultdict(dict)
        self._where: dict[tuple[str, str], str] = {}
        self._labelers: dict[str, list[str]] = defaultdict(list)  # of PPO's, by split

    def look(self, draw: Draw, record: Record) -> None:
        """Notes a record."""
        kind, split = draw.kind, draw.split
        self._where[kind, split] = draw.where
        if split == "train":
            self._check_labeler(draw, record)
        customer = record.get("customer", "")
        if customer and not record["id"].startswith(self._published or "\0"):
            # Held-out labelers, the test split of rankings, rank validation prompts.
            place = _EITHER if (kind, split) == ("comparisons", "test") else split
            self._customers[customer].setdefault(place, (draw.where, record["id"]))
        if kind in ("prompts", "rm_prompts"):
            text = json.dumps([list(record.get("history", ())), record["prompt"]])
            # Two may ask the same, so a record is known by its text and the end of its
            # id, before which `prepare` and a file without ids put the file's name.
            own_id = re.split("[/:]", record["id"])[-1]
            digest = hashlib.sha256(f"{own_id} {text}".encode()).digest()[:16]
            self._prompts[kind, split][digest] = record["id"]
        if kind == "prompts" and record.get("source") == "labeler":
            self._labelers[split].append(record["id"])

    def _check_labeler(self, draw: Draw, record: Record) -> None:
        for name in record.get("labeler", "").split("+"):
            if self._groups.get(name) == HELD_OUT:
                raise UserError(
                    f"{draw.where}: {record['id']!r} is by {name!r}, a held-out "
                    f"labeler of {LABELERS}, and of the training split; take it out"
                )

    def check(self) -> None:
        """Raises UserError for what was noted in two places."""
        crossing = {
            name: places
            for name, places in self._customers.items()
            if len(places.keys() - {_EITHER}) > 1 or {"train", _EITHER} <= places.keys()
        }
        if crossing:
            name, places = next(iter(crossing.items()))
            ordered = sorted(places, key=[*SPLITS, _EITHER].index)
            (first, one), (second, other) = (places[x] for x in ordered[:2])
            more = f" (and {len(crossing) - 1} more)" if len(crossing) > 1 else ""
            raise UserError(
                f"{second}: {other!r} is by customer {name!r}{more}, who is also in "
                f"{first}: {one!r}; keep a customer's records in one split, as python "
                "-m instructgpt.curate does"
            )
        for split in SPLITS:
            self._check_separate(split)

    def _check_separate(self, split: str) -> None:
        ranked = self._prompts.get(("rm_prompts", split), {})
        if not ranked:
            return  # then `prompts` are also those of the reward model
        ppo = self._prompts.get(("prompts", split), {})
        where = self._where.get(("prompts", split), "")
        both = list(dict.fromkeys(ppo[key] for key in ppo if key in ranked))
        if both:
            raise UserError(
                f"{where}: {_ids(both)} also in {self._where['rm_prompts', split]}; "
                "the prompts of PPO and of the reward model are separate draws, so "
                "leave each in one of the files"
            )
        if self._labelers[split]:
            raise UserError(
                f"{where}: {_ids(self._labelers[split])} by labelers (source); PPO's "
                "prompts are customers' alone, so put those of labelers into "
                "rm_prompts"
            )


def _ids(ids: list[str]) -> str:
    text = ", ".join(map(repr, ids[:_NAMED]))
    if len(ids) > _NAMED:
        text += f" and {len(ids) - _NAMED} more"
    return f"{text} {'is' if len(ids) == 1 else 'are'}"


def _groups(path: Path) -> dict[str, str]:
    """The labelers' groups, if the folder tells them."""
    groups = {}
    if path.exists():
        for number, line in enumerate(path.read_text().split("\n"), start=1):
            try:
                row = json.loads(line) if line.strip() else {"name": "", "group": ""}
                groups[row["name"]] = row["group"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}:{number}: give a labeler's name and group"
                ) from error
    return groups


def _published(path: Path) -> tuple[str, ...]:
    """Beginnings of the ids of published records, if `prepare` made the folder."""
    try:
        sets = json.loads(path.read_text())["sets"]
        return tuple(f"{one['set']}/" for one in sets if one["from"] != "file")
    except (OSError, ValueError, KeyError, TypeError):
        return ()
