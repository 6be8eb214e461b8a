"""A stand-in for the Hugging Face hub on loopback, with data sets that a test makes."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

_ABOUT = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?")
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Repository(NamedTuple):
    """Files by path, and the metadata of the page."""

    files: Mapping[str, bytes]
    card: Mapping[str, Any] = {}


class Hub(NamedTuple):
    """A running stand-in: its address, and the requests so far."""

    address: str
    requests: list[str]


def _handler(
    sets: Mapping[str, Repository], requests: list[str]
) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format_, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(self.path.partition("?")[0])
            requests.append(f"{self.command} {path}")
            about, file = _ABOUT.fullmatch(path), _FILE.fullmatch(path)
            if about and about[1] in sets and about[2] in (None, "main", "v1", COMMIT):
                self._answer(_info(about[1], sets[about[1]]), "application/json")
            elif file and file[3] in getattr(sets.get(file[1]), "files", {}):
                self._answer(sets[file[1]].files[file[3]], "application/octet-stream")
            else:
                self._answer(b"{}", "application/json", status=404)

        def _answer(self, body: bytes, kind: str, status: int = 200):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


def _info(name: str, repository: Repository) -> bytes:
    about = {
        "id": name,
        "sha": COMMIT,
        "siblings": [{"rfilename": path} for path in repository.files],
        "cardData": dict(repository.card),
        "tags": [],
    }
    return json.dumps(about).encode()


@contextlib.contextmanager
def serving(sets: Mapping[str, Repository]) -> Iterator[Hub]:
    """Serves the sets until the block ends."""
    requests: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(sets, requests))
    with server as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Hub(f"http://127.0.0.1:{running.server_port}", requests)
        finally:
            running.shutdown()
            thread.join()


def use(hub: Hub, monkeypatch, cache: Path) -> None:
    """Makes the hub's client in this process ask the stand-in, with its own cache."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
