"""Rooms with labelers and answers, and a desk in memory that may misbehave."""

import contextlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling.interface import Page, Rating, Refused, Task, Work
from instructgpt.labelling.ledger import Entry, Ledger
from instructgpt.labelling.room import Room
from instructgpt.labelling.sending import Plan, deliver, plan

TRAINING = ("ann", "ben", "cem")
HELD_OUT = ("dan", "eva")


def make_room(folder: Path) -> Room:
    """A room with three labelers for training and two held out."""
    room = Room(folder)
    room.add(dict.fromkeys(TRAINING, "training") | dict.fromkeys(HELD_OUT, "heldout"))
    return room


def write_lines(path: Path, rows: Sequence[Mapping]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(split: str, number: int, size: int = 4) -> list[dict]:
    """Rows of a label stage's answers."""
    return [
        {
            "id": f"{split}-{i}",
            "history": ["Hi", "Hello."] if i % 2 else [],
            "prompt": f"Prompt {i} of {split}?",
            "responses": [f"{split} {i} answer {j}" for j in range(size)],
            "customer": f"{split} customer {i}",
            "category": "chat",
        }
        for i in range(number)
    ]


def write_answers(folder: Path, train: int = 6, valid: int = 3) -> Path:
    """A workdir whose label stage has sampled answers."""
    for split, number in (("train", train), ("valid", valid)):
        write_lines(folder / "label" / f"answers.{split}.jsonl", answers(split, number))
    return folder


def write_compared(folder: Path, number: int = 3) -> Path:
    """A workdir whose evaluate stage has the answers of three models."""
    rows = [
        {
            "id": f"test-{i}",
            "prompt": f"Ask {i}?",
            "model": model,
            "response": "the same" if model != "ppo" else f"another {i}",
        }
        for model in ("gpt", "sft", "ppo")
        for i in range(number)
    ]
    write_lines(folder / "evaluate" / "answers.jsonl", rows)
    return folder


class MemoryDesk:
    """A desk in memory, at which a labeler works by a rule of the shown texts.

    Attributes:
      tasks: What lies there, by page and key.
      works: What is handed in, by page.
      fails: Number of calls from now on after which each one fails; None: never.
    """

    def __init__(self, labeler: str):
        self.labeler = labeler
        self.tasks: dict[str, dict[str, Task]] = {}
        self.works: dict[str, list[Work | Refused]] = {}
        self.put_twice = 0
        self.fails: int | None = None

    def _tick(self) -> None:
        if self.fails is not None:
            self.fails -= 1
            if self.fails < 0:
                raise UserError("the server does not answer")

    def put(self, page: Page, tasks: Sequence[Task]) -> None:
        mine = self.tasks.setdefault(page, {})
        for task in tasks:
            self._tick()
            self.put_twice += task.key in mine
            mine.setdefault(task.key, task)

    def finished(
        self, page: Page, tasks: Mapping[str, Task]
    ) -> Iterator[Work | Refused]:
        for one in self.works.get(page, []):
            self._tick()
            yield one

    def submit(self, page: Page, key: str, work: Work) -> None:
        assert key in self.tasks[page]
        self.works.setdefault(page, []).append(work._replace(key=key))

    def do_all(self, *, skip: Sequence[str] = ()) -> None:
        """Hands in work for all that lies there; prompts in `skip` are skipped."""
        done = {
            one.key
            for works in self.works.values()
            for one in works
            if isinstance(one, Work)
        }
        for page, tasks in self.tasks.items():
            for key, task in tasks.items():
                if key not in done:
                    work = do(self.labeler, task)
                    if task.prompt in skip:
                        work = Work(key, skipped=True, note="unclear")
                    self.submit(page, key, work)


def rank_of(labeler: str, text: str) -> int:
    """What a labeler thinks of a text: 1, 2 or 3, whatever else is shown."""
    return random.Random(f"{labeler} {text}").randint(1, 3)


def ranks_of(labeler: str, texts: Sequence[str]) -> list[int]:
    """A labeler's dense ranks of texts."""
    felt = [rank_of(labeler, text) for text in texts]
    return [sorted(set(felt)).index(one) + 1 for one in felt]


def do(labeler: str, task: Task) -> Work:
    """What a labeler gives for a task."""
    ratings = tuple(
        Rating(2 * rank_of(labeler, x), {"hallucination": rank_of(labeler, x) == 1})
        for x in task.answers
    )
    return Work(
        task.key,
        seconds=12.5,
        when="2026-01-31T09:00:00+00:00",
        response=f"{labeler} says" if task.page == "demonstration" else "",
        ratings=ratings if task.page in ("rating", "final") else (),
        ranks=(
            tuple(ranks_of(labeler, task.answers))
            if task.page in ("ranking", "final")
            else ()
        ),
        note="fine",
    )


def memory_desks(room: Room) -> dict[str, MemoryDesk]:
    return {name: MemoryDesk(name) for name in room.groups}


def send(room: Room, desks: Mapping, items: Sequence, **options) -> Plan:
    """Plans, enters and delivers, as the command does."""
    ledger = Ledger(room.ledger)
    planned = plan(items, room, ledger, **options)
    ledger.add(planned.entries)
    assert not deliver(ledger, desks).failed
    return planned


def lying(desks: Mapping[str, MemoryDesk]) -> list[str]:
    """Keys of all tasks on all desks."""
    return [k for d in desks.values() for page in d.tasks.values() for k in page]


def entries(room: Room) -> list[Entry]:
    return list(Ledger(room.ledger).entries.values())


@contextlib.contextmanager
def killed_after(calls: int) -> Iterator[None]:
    """A block that ends as if by SIGKILL when desks are touched once more than that."""

    class Killed(BaseException):
        pass

    left = calls

    def tick(self) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MemoryDesk, "_tick", tick)
        yield
