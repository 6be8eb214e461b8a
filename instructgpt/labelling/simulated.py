"""Simulated labelers at desks: the miniature world's, who answer as people would.

Each has a desk of their own and hands in work there, several at once. What they give
depends on the task and on them alone: called directly for the same answers, as the
label stage does it, they give the same ranks.
"""

import datetime
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from instructgpt.errors import UserError, about
from instructgpt.evals.judges.gold import applicable_flags
from instructgpt.evals.preference import HELD_OUT
from instructgpt.identity import CONFIG
from instructgpt.labelling.interface import Desk, Page, Rating, Work
from instructgpt.labelling.items import EVALUATE, LABEL
from instructgpt.labelling.ledger import Entry, Ledger
from instructgpt.labelling.room import TRAINING, Room
from instructgpt.reading import read_object
from instructgpt.world import Labeler, Task, World, judge, rank_alone
from instructgpt.world.demonstrations import demonstrate
from instructgpt.world.splits import SPLITS

AT_ONCE = 8  # labelers who work at the same time
_SECONDS = 20.0  # that a labeler needs for a text


class WorkingDesk(Desk, Protocol):
    """A desk at which a program can do a labeler's work."""

    def submit(self, page: Page, key: str, work: Work) -> None:
        """Hands in work on a task that lies there."""


def ranks_of(
    labelers: Sequence[Labeler],
    record: Mapping[str, Any],
    *,
    seed: int,
    final: bool = False,
    again: bool = False,
) -> list[list[int]]:
    """The ranks [L][K] that labelers give a record's K responses.

    Args:
      labelers: The L labelers.
      record: A prompt's record with its `task` and `responses`.
      seed: Seed of the label stage.
      final: Whether models are evaluated, not data for training made (§3.4).
      again: Whether they are asked a second time; their noise is another then.
    """
    return rank_alone(
        labelers,
        Task.from_json(record["task"]),
        record["responses"],
        seed=f"{seed} {record['id']}" + " again" * again,
        rule="final" if final else "training",
    )


def group_of(labeler: Labeler) -> str:
    """The group of a simulated labeler."""
    return HELD_OUT if labeler.held_out else TRAINING


def groups_of(world: World) -> dict[str, str]:
    """The group of each of the world's labelers, by name."""
    return {one.name: group_of(one) for one in world.labelers()}


class Simulated:
    """The miniature world's labelers, who know the world of a workdir."""

    def __init__(self, workdir: str | Path):
        """Finds out the world, and the seed of the label stage.

        Raises:
          UserError: the workdir's data are not the miniature world's.
        """
        configs = [Path(workdir) / stage / CONFIG for stage in (LABEL, EVALUATE)]
        found = [read_object(path) for path in configs if path.exists()]
        if not found or any(one["data"].get("jsonl") for one in found):
            raise UserError(
                f"{workdir}: only the miniature world has simulated labelers, and this "
                "is no workdir of a recipe on it"
            )
        data = found[0]["data"]
        self.world = World(data["world_seed"])
        self.seed: int = found[0]["seed"]
        self._labelers = {one.name: one for one in self.world.labelers()}
        self._tasks = self._known_tasks(data)

    def _known_tasks(self, data: Mapping[str, Any]) -> dict[str, str]:
        """The world's tasks by id, for files that leave them out."""
        makers = {
            "prompts": self.world.ppo_prompts,
            "gpt_prompts": self.world.gpt_prompts,
        }
        return {
            record["id"]: record["task"]
            for kind, make in makers.items()
            for split, size in zip(SPLITS[1:], data[kind][1:], strict=True)
            for record in (prompt.record() for prompt in make(split, size))
        }

    def check(self, room: Room) -> None:
        """Raises UserError if somebody else works in the room."""
        strange = [
            n for n, g in room.groups.items() if groups_of(self.world).get(n) != g
        ]
        if strange:
            raise UserError(
                f"labeler {strange[0]!r} of {room.folder} is none of the world's; only "
                "a room that was set up with --simulated can be simulated"
            )

    def work(self, entry: Entry) -> Work:
        """What the task's labeler gives for it, in the order in which it is shown."""
        labeler = self._labelers[entry.labeler]
        record = dict(entry.record)
        record["task"] = record.get("task") or self._tasks.get(record["id"], "")
        if not record["task"]:
            raise UserError(f"prompt {record['id']!r} is none of the world's")
        done = Work(
            entry.key,
            seconds=_SECONDS * max(1, len(entry.order)),
            when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        if entry.page == "demonstration":
            rng = random.Random(f"{self.seed} {record['id']} {labeler.name}")
            task = Task.from_json(record["task"])
            text = demonstrate(self.world.facts, task, rng)
            return done._replace(response=text)
        if entry.page in ("ranking", "final"):
            ranks = ranks_of(
                [labeler],
                record,
                seed=self.seed,
                final=entry.page == "final",
                again=bool(entry.repeat_of),
            )[0]
            done = done._replace(ranks=tuple(ranks[i] for i in entry.order))
        if entry.page in ("rating", "final"):
            texts = [record["responses"][i] for i in entry.order]
            done = done._replace(ratings=tuple(self._rate(record, t) for t in texts))
        return done

    def _rate(self, record: Mapping[str, Any], text: str) -> Rating:
        found = judge(self.world, record["task"], text)
        return Rating(found.likert, applicable_flags(record, found))


def simulate(
    ledger: Ledger,
    desks: Mapping[str, WorkingDesk],
    simulated: Simulated,
    *,
    number: int = 0,
    at_once: int = AT_ONCE,
) -> dict[str, int]:
    """Has the simulated labelers do what lies on their desks and is not done.

    Args:
      ledger: What was sent.
      desks: By labeler; each is used by one thread at a time.
      simulated: The labelers.
      number: Tasks that each does at most; 0: all.
      at_once: Labelers who work at the same time.

    Returns:
      The number of tasks that each did.
    """

    def of(labeler: str) -> int:
        desk, count = desks[labeler], 0
        pages: dict[Page, list[Entry]] = {}
        for entry in ledger.entries.values():
            if entry.labeler == labeler and entry.key in ledger.placed:
                pages.setdefault(entry.page, []).append(entry)
        with about(f"desk of {labeler}"):
            for page, entries in pages.items():
                tasks = {one.key: one.task for one in entries}
                done = {
                    found.key
                    for found in desk.finished(page, tasks)
                    if isinstance(found, Work)
                }
                for entry in entries:
                    if entry.key not in done and (count < number or not number):
                        desk.submit(page, entry.key, simulated.work(entry))
                        count += 1
        return count

    with ThreadPoolExecutor(max_workers=at_once) as pool:
        return dict(zip(desks, pool.map(of, desks), strict=True))
