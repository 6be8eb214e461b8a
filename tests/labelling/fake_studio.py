"""A server in memory with the calls of Label Studio that a desk makes.

It can fail on purpose: give an error before the work is done, or hang up after it.
"""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from instructgpt.labelling.seats import Seat

TOKEN, USER = "right", 7
HANG_UP = 0  # instead of a status: the work is done and no reply comes


class FakeStudio:
    """The server's state; `faults` maps "METHOD part of a path" to what goes wrong."""

    def __init__(self) -> None:
        self.release = "1.23.2"
        self.projects: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.faults: dict[str, list[int]] = {}
        self.ids = itertools.count(1)
        self.address = ""

    def seat(self, token: str = TOKEN) -> Seat:
        return Seat("ann", "training", self.address, "", "", token)

    def fault(self, call: str) -> int | None:
        for part, left in self.faults.items():
            method, _, path = part.partition(" ")
            if left and call.startswith(method) and path in call:
                return left.pop(0)
        return None

    def add_task(self, project: int, data: Any) -> int:
        number = next(self.ids)
        self.tasks[number] = {
            "id": number,
            "project": project,
            "data": data,
            "annotations": [],
        }
        return number

    def annotate(self, task: int, body: dict[str, Any], user: int = USER) -> None:
        number = next(self.ids)
        when = f"2026-12-01T00:00:{number % 60:02d}.000000Z"
        fixed = {"id": number, "completed_by": user, "updated_at": when}
        self.tasks[task]["annotations"].append({"created_at": when, **fixed, **body})

    def answer(self, method: str, path: str, query: dict, body: Any) -> Any:
        numbers = [int(n) for n in re.findall(r"\d+", path)]
        if path == "/api/current-user/whoami":
            return {"id": USER}
        if path == "/api/projects/" and method == "POST":
            number = next(self.ids)
            self.projects[number] = {"id": number, **body}
            return self.projects[number]
        if path == "/api/projects/":
            return paged(list(self.projects.values()), query, "results", "count")
        if path.endswith("/import"):
            return {"task_ids": [self.add_task(numbers[0], x["data"]) for x in body]}
        if path == "/api/tasks/":
            of = [x for x in self.tasks.values() if x["project"] == query["project"]]
            return paged(of, query, "tasks", "total")
        if path.endswith("/annotations/"):
            return self.annotate(numbers[0], body)
        if method == "DELETE":
            return self.tasks.pop(numbers[0])
        table = self.projects if "projects" in path else self.tasks
        table[numbers[0]].update(body or {})
        return table[numbers[0]]


def paged(rows: list, query: dict, part: str, total: str) -> dict[str, Any]:
    start = (query["page"] - 1) * query["page_size"]
    return {part: rows[start : start + query["page_size"]], total: len(rows)}


def handler(studio: FakeStudio) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            parts = urlsplit(self.path)
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            query = {k: as_number(v[0]) for k, v in parse_qs(parts.query).items()}
            call = f"{self.command} {parts.path}"
            studio.calls.append(call)
            fault = studio.fault(call)
            if fault:
                return self.reply(fault, {"detail": "database-is-locked-error"})
            if parts.path == "/api/version/":
                return self.reply(200, {"release": studio.release})
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                return self.reply(401, {"detail": "Invalid token."})
            given = studio.answer(self.command, parts.path, query, body)
            if fault == HANG_UP:
                self.close_connection = True
                return None
            return self.reply(200, given)

        do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815

        def reply(self, status: int, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def as_number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


@contextlib.contextmanager
def serving(make: Callable[[], FakeStudio] = FakeStudio) -> Iterator[FakeStudio]:
    studio = make()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(studio))
    studio.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield studio
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
