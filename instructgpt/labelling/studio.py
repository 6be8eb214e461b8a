"""A labeler's desk on a server of Label Studio.

Each page is a project of the labeler's account, and each task lies there once,
under the key in its data. An answer counts if this labeler gave it and what was shown
is still what was sent.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.labelling.api import Api
from instructgpt.labelling.interface import PAGES, Page, Refused, Task, Work
from instructgpt.labelling.pages import (
    FEWEST,
    instruction,
    layout,
    task_data,
    to_result,
    to_work,
)
from instructgpt.labelling.seats import Seat

_BATCH = 100  # tasks handed over, or read, at a time
_LONGEST = 50  # characters of a project's title in Label Studio
_SETTINGS = {
    "show_instruction": True,
    "show_skip_button": True,
    "skip_queue": "IGNORE_SKIPPED",  # a skipped task does not come again
    "show_collab_predictions": False,
    "sampling": "Sequential sampling",
    "maximum_annotations": 1,
}


class _Project(NamedTuple):
    id: int
    columns: int  # ranks on offer
    layout: str


class StudioDesk:
    """A labeler's account on a server of Label Studio, as a desk.

    Args:
      seat: The labeler's account.
      title: Names the workdir's projects on the server, such as the workdir's name.
      sleep: Waits for some seconds while the server is busy; replaced in tests.
    """

    def __init__(
        self, seat: Seat, *, title: str, sleep: Callable[[float], None] = time.sleep
    ):
        self.labeler = seat.labeler
        self._title = title
        self._api = Api(seat, sleep=sleep)
        self._user: int | None = None
        self._projects: dict[Page, _Project] = {}
        self._ids: dict[Page, dict[str, int]] = {}  # key -> task's id

    def setup(self) -> dict[Page, str]:
        """Makes the four projects unless they are there; returns their pages' URLs.

        Raises:
          UserError: the server is not there or too old, refuses the token, or has a
            project of the same title that is not ours.
        """
        self._sign_in()
        for page in PAGES:
            self._api.insist(functools.partial(self._make, page))
            found = self._project(page)
            if found.layout != layout(page, found.columns):  # of another version
                self._lay_out(page, found.columns)
        return {page: self._url(page) for page in PAGES}

    def put(self, page: Page, tasks: Sequence[Task]) -> None:
        """Hands tasks to the labeler; those that lie there already are left alone.

        Safe to repeat, also after a call that was cut off in the middle.

        Raises:
          UserError: there is no such project or it is full of another project's tasks;
            or a task lies there with other contents.
        """
        self._sign_in()
        wanted = {task.key: task_data(task) for task in tasks}
        if len(wanted) < len(tasks):
            raise UserError("two tasks have one key; give each a key of its own")
        columns = max((len(task.answers) for task in tasks), default=0)
        if page in ("ranking", "final") and columns > self._project(page).columns:
            self._lay_out(page, columns)
        self._import(page, wanted)
        self._drop_copies(page)

    def finished(
        self, page: Page, tasks: Mapping[str, Task]
    ) -> Iterator[Work | Refused]:
        """Yields the finished and skipped work, and what cannot be taken.

        Raises:
          UserError: there is no such project, or none of its tasks is one of these.
        """
        user = self._sign_in()
        project = self._project(page).id
        done: set[str] = set()
        rows = list(self._rows(page))
        self._check_ours(page, rows, tasks)
        for row in rows:
            if not row["annotations"]:
                continue
            key = _key(row)
            where = f"{self._api.address}: project {project}, task {row['id']}"
            if key is None or key not in tasks:
                yield Refused(where, "a task that was not sent from here")
                continue
            where += f" ({key})"
            if row["data"] != task_data(tasks[key]):
                yield Refused(where, "what is shown is not what was sent")
                continue
            own = []
            for annotation in row["annotations"]:
                if _author(annotation) == user:
                    own.append(annotation)
                else:
                    account = _author(annotation)
                    yield Refused(where, f"answered by another account, {account}")
            if own and key in done:
                yield Refused(where, "a copy of a task that is answered elsewhere")
            elif own:
                done.add(key)
                yield to_work(tasks[key], max(own, key=_counts), where=where)

    def submit(self, page: Page, key: str, work: Work) -> None:
        """Answers a task through the API that the pages use.

        Repeating a call does not answer twice.

        Raises:
          UserError: the task does not lie at this desk.
        """
        self._sign_in()
        if key not in self._ids.get(page, {}):
            rows = self._rows(page)
            self._ids[page] = {name: row["id"] for row in rows if (name := _key(row))}
        if key not in self._ids[page]:
            raise UserError(
                f"task {key!r} does not lie at the desk of {self.labeler!r}; send it "
                "there first"
            )
        path = f"/api/tasks/{self._ids[page][key]}/"
        answer = {
            "result": [] if work.skipped else to_result(work),
            "was_cancelled": work.skipped,
            "lead_time": work.seconds,
        }

        def attempt() -> None:
            # An earlier attempt may have come through without our hearing of it.
            there = self._api.call("GET", path)["annotations"]
            if not any(all(one[k] == answer[k] for k in answer) for one in there):
                self._api.call("POST", f"{path}annotations/", body=answer)

        self._api.insist(attempt)

    def _sign_in(self) -> int:
        if self._user is None:
            self._user = self._api.check()
        return self._user

    def _name(self, page: Page) -> str:
        """The title of a page's project, cut to what Label Studio takes."""
        end = f": {page}"
        title = self._title.strip() or "instructgpt"
        if len(title + end) > _LONGEST:
            digest = hashlib.sha256(title.encode()).hexdigest()[:6]
            title = f"{title[: _LONGEST - len(end) - 7]}-{digest}"
        return title + end

    def _url(self, page: Page) -> str:
        return f"{self._api.address}/projects/{self._project(page).id}/data?labeling=1"

    def _project(self, page: Page) -> _Project:
        if page not in self._projects:
            found = self._find(page)
            if found is None:
                raise UserError(
                    f"{self._api.address}: {self.labeler!r} has no project "
                    f"{self._name(page)!r}; run `python -m instructgpt.label setup`"
                )
            self._projects[page] = found
        return self._projects[page]

    def _find(self, page: Page) -> _Project | None:
        title = self._name(page)
        found = [
            project
            for project in self._api.pages("/api/projects/", "results", page_size=100)
            if project["title"] == title
        ]
        if not found:
            return None
        project = min(found, key=lambda project: project["id"])
        if project["description"] != _mark(page):
            raise UserError(
                f"{self._api.address}: project {project['id']} has the title {title!r} "
                "and is not one of ours; rename it there"
            )
        text = project["label_config"]
        return _Project(project["id"], max(text.count("<Bucket "), FEWEST), text)

    def _make(self, page: Page) -> None:
        if self._find(page) is None:
            body = {
                **_SETTINGS,
                # A page cannot be handed in before something is chosen. Text that is
                # just being written counts as nothing, so here the text is required.
                "enable_empty_annotation": page == "demonstration",
                "title": self._name(page),
                "description": _mark(page),
                "label_config": layout(page),
                "expert_instruction": instruction(page),
            }
            self._api.call("POST", "/api/projects/", body=body)

    def _lay_out(self, page: Page, columns: int) -> None:
        project = self._project(page).id
        body = {
            "label_config": layout(page, columns),
            "expert_instruction": instruction(page),
        }
        path = f"/api/projects/{project}/"
        self._api.insist(lambda: self._api.call("PATCH", path, body=body))
        del self._projects[page]

    def _rows(self, page: Page) -> Iterator[dict[str, Any]]:
        """The tasks of a page's project with their annotations, each once."""
        seen: set[int] = set()
        for row in self._api.pages(
            "/api/tasks/",
            "tasks",
            project=self._project(page).id,
            fields="all",
            resolve_uri="false",
            page_size=_BATCH,
        ):
            if row["id"] not in seen:
                seen.add(row["id"])
                yield row

    def _import(self, page: Page, wanted: Mapping[str, Any]) -> None:
        project = self._project(page).id
        keys = list(wanted)

        def attempt() -> None:
            rows = list(self._rows(page))
            self._check_ours(page, rows, None)
            there = {_key(row): row["data"] for row in rows}
            for key in wanted.keys() & there.keys():
                if there[key] != wanted[key]:
                    raise UserError(
                        f"{self._api.address}: project {project} has a task {key!r} "
                        "with other contents; delete it, or send under another key"
                    )
            missing = [{"data": wanted[key]} for key in keys if key not in there]
            for start in range(0, len(missing), _BATCH):
                path = f"/api/projects/{project}/import"
                batch = missing[start : start + _BATCH]
                self._api.call("POST", path, body=batch)

        if keys:
            self._api.insist(attempt)

    def _drop_copies(self, page: Page) -> None:
        """Deletes copies of tasks, which an import whose reply was lost may leave."""
        rows = sorted(self._rows(page), key=lambda row: -len(row["annotations"]))
        self._ids[page] = {}
        for row in rows:
            key = _key(row)
            if key is None:
                continue
            if key not in self._ids[page]:
                self._ids[page][key] = row["id"]
            elif not row["annotations"]:
                path = f"/api/tasks/{row['id']}/"
                self._api.insist(functools.partial(self._api.call, "DELETE", path))

    def _check_ours(
        self, page: Page, rows: list[Any], tasks: Mapping[str, Task] | None
    ) -> None:
        """Raises UserError if none of a project's tasks was sent from here."""
        keys = map(_key, rows)
        if rows and not any(key and (tasks is None or key in tasks) for key in keys):
            raise UserError(
                f"{self._api.address}: project {self._project(page).id} "
                f"({self._name(page)}) is full of another project's tasks; give "
                "another title, or delete them there"
            )


def _mark(page: Page) -> str:
    """A project's description, by which it is known to be ours."""
    return f"instructgpt: {page}"


def _key(row: Mapping[str, Any]) -> str | None:
    """The key of a task that was sent from here, or None."""
    data = row["data"]
    key = data.get("key") if isinstance(data, dict) and "page" in data else None
    return key if isinstance(key, str) else None


def _author(annotation: Mapping[str, Any]) -> int | None:
    """The id of the user who gave an annotation."""
    by = annotation.get("completed_by")
    return by.get("id") if isinstance(by, Mapping) else by


def _counts(annotation: Mapping[str, Any]) -> tuple[bool, str]:
    """Orders annotations of a task: an answer before a skip, then the latest."""
    return not annotation["was_cancelled"], annotation["updated_at"]
