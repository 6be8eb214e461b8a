"""What labelers are asked: items made of prompts and of models' answers.

Each training prompt is ranked by one labeler; a validation prompt by several of each
group, so that agreement can be measured, and that of held-out labelers too (§3.4). The
answers of compared models are rated and ranked by both groups (§3.6).
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.origins.tables import table_rows
from instructgpt.data.records import SPLITS, read_jsonl
from instructgpt.errors import UserError
from instructgpt.evals.preference import HELD_OUT
from instructgpt.identity import TO_JUDGE
from instructgpt.labelling.interface import Page
from instructgpt.labelling.ledger import GOLD
from instructgpt.labelling.room import TRAINING, Room

LABEL, EVALUATE = "label", "evaluate"  # folders of the stages in a recipe's workdir


class Item(NamedTuple):
    """Something that labelers are asked.

    Attributes:
      page: The kind of task.
      split: The record's split.
      name: Names the item within page and split; the record's id, or more.
      record: The prompt's record, with `responses` where there are any.
      each: Number of labelers who are asked, by group.
      models: The model that wrote each response; empty if not known.
      gold: The right ranks of the responses; empty if not known.
    """

    page: Page
    split: str
    name: str
    record: dict[str, Any]
    each: dict[str, int]
    models: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()


def demonstration_items(path: str | Path) -> list[Item]:
    """Prompts to which labelers write a demonstration; of training labelers alone.

    Args:
      path: Records of prompts; a file KIND.valid.jsonl or KIND.test.jsonl is of that
        split, any other one of the training split.
    """
    parts = Path(path).name.split(".")
    split = parts[1] if parts[1:2] and parts[1] in SPLITS else "train"
    return [
        Item("demonstration", split, record["id"], record, {TRAINING: 1})
        for record in read_jsonl(path, "prompts")
    ]


def ranking_items(
    workdir: Path,
    room: Room,
    *,
    labelers_per_prompt: int = 3,
    train_labelers: int = 1,
    number: int = 0,
) -> list[Item]:
    """The answers that the label stage sampled, to be ranked.

    Args:
      workdir: The recipe's workdir.
      room: Who works here.
      labelers_per_prompt: Labelers of each group for a validation prompt.
      train_labelers: Labelers of a training prompt.
      number: The first so many prompts of each split; 0: all.
    """
    items = []
    several = {TRAINING: labelers_per_prompt}
    if room.of_group(HELD_OUT):
        several[HELD_OUT] = labelers_per_prompt
    for split, each in (("train", {TRAINING: train_labelers}), ("valid", several)):
        path = workdir / LABEL / f"answers.{split}.jsonl"
        if path.exists():
            rows = _rows(path, ("id", "prompt", "responses"))
            items += [
                Item(
                    "ranking",
                    split,
                    row["id"],
                    _without(row, "models"),
                    each,
                    tuple(row.get("models", ())),
                )
                for row in rows[: number or None]
            ]
    return items


def final_items(
    workdir: Path, room: Room, *, labelers_per_prompt: int = 3, number: int = 0
) -> list[Item]:
    """The compared models' answers to a prompt, to be rated and ranked together.

    Equal answers of two models are both shown. For arguments see `ranking_items`.
    """
    groups = [group for group in (TRAINING, HELD_OUT) if room.of_group(group)]
    each = dict.fromkeys(groups, labelers_per_prompt)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in _answers(workdir):
        found.setdefault(row["id"], []).append(row)
    items = []
    for name, rows in list(found.items())[: number or None]:
        shared = _without(rows[0], "model", "response")
        record = {**shared, "responses": [row["response"] for row in rows]}
        models = tuple(row["model"] for row in rows)
        if len(set(models)) < len(models):
            raise UserError(
                f"{workdir / EVALUATE / TO_JUDGE}: a model answers {name!r} twice; "
                "delete the file, and evaluate again"
            )
        items.append(Item("final", "test", name, record, each, models))
    return items


def rating_items(
    workdir: Path, room: Room, *, labelers_per_prompt: int = 1, number: int = 0
) -> list[Item]:
    """The compared models' answers, each to be rated by itself; see `final_items`."""
    whole = final_items(
        workdir, room, labelers_per_prompt=labelers_per_prompt, number=number
    )
    return [
        item._replace(
            page="rating",
            name=f"{item.name} {model}",
            record={**item.record, "responses": [text]},
            models=(model,),
        )
        for item in whole
        for model, text in zip(item.models, item.record["responses"], strict=True)
    ]


def gold_items(path: str | Path, room: Room) -> list[Item]:
    """Rankings whose right answer is known, which every labeler is asked.

    Args:
      path: Records of comparisons.
      room: Who works here.
    """
    each = {group: len(room.of_group(group)) for group in (TRAINING, HELD_OUT)}
    return [
        Item(
            "ranking",
            GOLD,
            record["id"],
            _without(record, "ranks", "labeler"),
            each,
            gold=tuple(record["ranks"]),
        )
        for record in read_jsonl(path, "comparisons")
    ]


def check_items(items: Sequence[Item], room: Room) -> None:
    """Raises UserError for items that cannot be sent to the labelers who are here."""
    seen = set()
    for item in items:
        what = f"{item.split} {item.page} {item.name!r}"
        place = (item.page, item.split, item.name)
        if place in seen:
            raise UserError(f"{what}: two records have this id; give each its own")
        seen.add(place)
        size = len(item.record.get("responses", ()))
        if item.page in ("ranking", "final") and size < 2:
            raise UserError(f"{what}: has {size} answers; a ranking needs two or more")
        if item.models and len(item.models) != size:
            raise UserError(f"{what}: has {size} answers of {len(item.models)} models")
        for group, each in item.each.items():
            here = len(room.of_group(group))
            if each > here:
                raise UserError(
                    f"{what}: wants {each} labelers of the group {group!r}, which has "
                    f"{here}; add labelers, or give a lower --labelers-per-prompt"
                )


def _answers(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / EVALUATE / TO_JUDGE
    return _rows(path, ("id", "prompt", "model", "response"))


def _rows(path: Path, fields: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a stage's file of answers.

    Raises:
      UserError: "PATH:LINE: what is wrong".
    """
    rows = []
    with closing(table_rows(path)) as found:
        for where, _, row in found:
            missing = [name for name in fields if name not in row]
            if missing:
                raise UserError(f"{where}: field {missing[0]!r} is missing; add it")
            rows.append({**row, "id": str(row["id"])})
    return rows


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in names}
