"""A desk of plain files, for those who label with another tool (App. B).

Tasks lie in LABELER.PAGE.jsonl, a line each:

    {"key": "…", "page": "ranking", "history": [], "prompt": "…", "answers": ["…", "…"]}

Finished work is read from LABELER.PAGE.done.jsonl beside it. A line has the task's key
and the fields of `Work` that the page asks for; it may repeat the task's other fields:

    {"key": "…", "ranks": [2, 1], "seconds": 41.5, "when": "2026-01-31T09:00:00+00:00"}
    {"key": "…", "ratings": [{"likert": 6, "flags": {"hallucination": false}}]}
    {"key": "…", "response": "…"}
    {"key": "…", "skipped": true, "note": "the prompt is cut off"}
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError, shown
from instructgpt.labelling.interface import (
    FLAGS,
    PAGES,
    Page,
    Rating,
    Refused,
    Task,
    Work,
)
from instructgpt.outputs import new_file

_DONE = ".done.jsonl"
_SHOWN = ("page", "history", "prompt", "answers")  # fields that show a task


class PlainDesk:
    """Where one labeler works, as files in a folder.

    Attributes:
      labeler: The labeler's name.
    """

    def __init__(self, folder: str | Path, labeler: str):
        self.labeler = labeler
        self._folder = Path(folder)

    def tasks_file(self, page: Page) -> Path:
        """The file of tasks for the labeler."""
        return self._folder / f"{self.labeler}.{page}.jsonl"

    def done_file(self, page: Page) -> Path:
        """The file of finished work, which the labeler or a tool writes."""
        return self._folder / f"{self.labeler}.{page}{_DONE}"

    def put(self, page: Page, tasks: Sequence[Task]) -> None:
        """Adds tasks to the file; those that are in it are left as they are.

        Raises:
          UserError: the file has been damaged, or cannot be written.
        """
        path = self.tasks_file(page)
        text = _read(path)
        there = set()
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                there.add(json.loads(line)["key"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}:{number}: is no task; delete the line, and send again"
                ) from error
        new = [task for task in tasks if task.key not in there]
        if new:
            with new_file(path) as partial:
                end = "\n" if text and not text.endswith("\n") else ""
                lines = (json.dumps(_line(t), ensure_ascii=False) + "\n" for t in new)
                partial.write_text(text + end + "".join(lines), encoding="utf-8")

    def finished(
        self, page: Page, tasks: Mapping[str, Task]
    ) -> Iterator[Work | Refused]:
        """Yields the work of the file, and each line that is none, by file and line."""
        changed = self._changed(page, tasks)
        path = self.done_file(page)
        for number, line in enumerate(_read(path).split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                value = json.loads(line)
                work = _work(value)
                task = tasks.get(work.key)
                if task is not None:
                    _check_shown(value, task)
                if work.key in changed:
                    raise UserError(changed[work.key])
            except UserError as error:
                yield Refused(where, str(error))
            except (ValueError, RecursionError):
                yield Refused(where, "not valid JSON, or cut off")
            else:
                yield work

    def submit(self, page: Page, key: str, work: Work) -> None:
        """Hands in work on a task, as a labeler would."""
        path = self.done_file(page)
        text = _read(path)
        fields = {**work.as_json(), "key": key}
        with new_file(path) as partial:
            line = json.dumps(fields, ensure_ascii=False)
            partial.write_text(f"{text}{line}\n", encoding="utf-8")

    def _changed(self, page: Page, tasks: Mapping[str, Task]) -> dict[str, str]:
        """Why a task is not shown as it was sent, by key."""
        changed = {}
        for line in _read(self.tasks_file(page)).split("\n"):
            try:
                value = json.loads(line)
                task = tasks.get(value["key"])
                if task is not None:
                    _check_shown(value, task)
            except UserError as error:
                where = self.tasks_file(page).name
                changed[value["key"]] = f"in {where} {error}"
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # `put` says so
        return changed


def stray_work(
    folder: Path, groups: Mapping[str, str], sent: Collection[tuple[str, str]]
) -> list[tuple[str, Refused]]:
    """Files of finished work in a folder that are of nobody's desk.

    Args:
      folder: The folder of all desks.
      groups: The labelers, by name.
      sent: The labelers and pages of tasks that were sent.

    Returns:
      What the file calls the labeler, and what is wrong, for each file.
    """
    found = []
    for path in sorted(folder.glob(f"*{_DONE}")):
        name, _, page = path.name.removesuffix(_DONE).rpartition(".")
        if name not in groups:
            reason = f"{name or page!r} is not among the labelers"
        elif page not in PAGES:
            reason = f"there is no page {page!r}; the pages are {', '.join(PAGES)}"
        elif (name, page) not in sent:
            reason = f"{name} was sent no {page} task"
        else:
            continue
        found.append((name or page, Refused(str(path), reason)))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _line(task: Task) -> dict[str, Any]:
    return {k: v for k, v in task._asdict().items() if k != "answers" or v}


def _check_shown(value: Mapping[str, Any], task: Task) -> None:
    """Raises UserError if a line shows the task otherwise than it was sent."""
    sent = json.loads(json.dumps(task._asdict()))
    for name in _SHOWN:
        if name in value and value[name] != sent[name]:
            raise UserError(f"`{name}` differs from what was sent")


def _work(value: Any) -> Work:
    """A line's work, or UserError with what is wrong."""
    if not isinstance(value, dict):
        raise UserError(f"no object but {shown(value)}")
    unknown = sorted(value.keys() - {*Work._fields, *_SHOWN})
    if unknown:
        raise UserError(
            f"unknown field {shown(unknown[0])}; give {', '.join(Work._fields)}"
        )
    if not isinstance(value.get("key"), str):
        raise UserError("the task's key is missing")
    fields = {k: v for k, v in value.items() if k in Work._fields and v is not None}
    for name, default in Work._field_defaults.items():
        given = fields.get(name, default)
        wanted: Any = {float: int | float, tuple: list | tuple}.get(
            type(default), type(default)
        )
        if not isinstance(given, wanted) or (
            isinstance(given, bool) and not isinstance(default, bool)
        ):
            raise UserError(f"{name} is {shown(given)}")
    ranks = fields.get("ranks", ())
    if not all(type(rank) is int for rank in ranks):
        raise UserError(f"ranks are {shown(ranks)}; give whole numbers from 1")
    ratings = tuple(map(_rating, fields.get("ratings", ())))
    return Work(**{**fields, "ranks": tuple(ranks), "ratings": ratings})


def _rating(value: Any) -> Rating:
    if not isinstance(value, dict) or value.keys() - set(Rating._fields):
        raise UserError(f"a rating is {shown(value)}; give likert and flags")
    likert, flags = value.get("likert"), value.get("flags") or {}
    if not (likert is None or type(likert) is int):
        raise UserError(f"likert is {shown(likert)}; give a whole number from 1 to 7")
    if not isinstance(flags, dict) or not all(
        name in FLAGS and isinstance(given, bool) for name, given in flags.items()
    ):
        raise UserError(f"flags are {shown(flags)}; give true or false by name")
    return Rating(likert, flags)
