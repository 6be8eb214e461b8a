"""Published files: from a stand-in for the hub, from a server, or an error."""

import functools
import hashlib
import http.server
import sys
import threading
import types
from pathlib import Path

import pytest

from instructgpt.data.origins.download import RemoteFile
from instructgpt.data.origins.published import find_files
from instructgpt.data.readers import SETS
from instructgpt.errors import UserError

TEXT = b'{"question": "q", "answer": "a"}\n'
SHA256 = hashlib.sha256(TEXT).hexdigest()


@pytest.fixture
def server(tmp_path):
    """Serves a folder: its path, its address, and the requests so far."""
    folder = tmp_path / "served"
    folder.mkdir()
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format_, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server, tmp_path):
    folder, address, requests = server
    (folder / "data").mkdir()
    (folder / "data/train.jsonl").write_bytes(TEXT)
    remote = RemoteFile(address, "data/train.jsonl", SHA256)
    first = remote.fetch(tmp_path / "cache")
    assert first.name == "train.jsonl"
    assert first.read_bytes() == TEXT
    assert remote.fetch(tmp_path / "cache") == first
    assert requests == ["/data/train.jsonl"]


def test_other_contents_than_published_are_an_error(server, tmp_path):
    folder, address, _ = server
    (folder / "train.jsonl").write_bytes(TEXT + b"more")
    remote = RemoteFile(address, "train.jsonl", SHA256)
    with pytest.raises(UserError, match=rf"has SHA-256 \w+, not {SHA256}; delete it"):
        remote.fetch(tmp_path / "cache")
    assert RemoteFile(address, "train.jsonl").fetch(tmp_path / "cache").exists()


def test_a_download_that_fails_leaves_nothing(server, tmp_path):
    _, address, _ = server
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=r"/gone\.jsonl: File not found, or get gone"):
        RemoteFile(address, "gone.jsonl").fetch(cache)
    with pytest.raises(UserError, match=r"refused.*give its path as NAME:FILE"):
        RemoteFile("http://127.0.0.1:1", "a.jsonl").fetch(cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_download_that_is_cut_off_leaves_nothing(server, tmp_path, monkeypatch):
    folder, address, _ = server
    (folder / "a.jsonl").write_bytes(TEXT)
    handler = http.server.SimpleHTTPRequestHandler
    monkeypatch.setattr(
        handler, "copyfile", lambda self, source, out: out.write(source.read(5))
    )
    with pytest.raises(UserError, match=rf"5 of {len(TEXT)} bytes came, or get a"):
        RemoteFile(address, "a.jsonl").fetch(tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.fixture
def hub(monkeypatch):
    """A module in the hub client's place; calls its `download` and notes them."""
    module = types.ModuleType("huggingface_hub")
    module.calls = []
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)

    def hf_hub_download(repository, path, *, repo_type, revision, endpoint):
        module.calls.append((repository, path, repo_type, revision))
        return module.download(path)

    module.hf_hub_download = hf_hub_download
    return module


def test_sets_of_the_hub_come_by_its_client(hub, tmp_path):
    def download(path: str) -> str:
        file = tmp_path / Path(path).name
        file.write_bytes(TEXT)
        return str(file)

    hub.download = download
    files = find_files("hh_rlhf_helpful")
    assert [(file.path.name, file.split) for file in files] == [
        ("train.jsonl.gz", "train"),
        ("test.jsonl.gz", "test"),
    ]
    assert files[0].origin == (
        "https://huggingface.co/datasets/Anthropic/hh-rlhf/resolve/main/"
        "helpful-base/train.jsonl.gz"
    )
    assert hub.calls == [
        ("Anthropic/hh-rlhf", f"helpful-base/{split}.jsonl.gz", "dataset", "main")
        for split in ("train", "test")
    ]
    with pytest.raises(UserError, match=r"trees\.jsonl\.gz has SHA-256"):
        find_files("openassistant")
    assert hub.calls[-1][3] == "5c38bf14fe3c7bb31bb8e13eb4f87b2c6fd78d93"


def test_no_network_is_one_line_that_says_what_to_do(hub):
    def download(path: str) -> str:
        raise FileNotFoundError("Cannot reach the hub.\nCheck your connection.")

    hub.download = download
    with pytest.raises(UserError) as error:
        find_files("dolly")
    assert str(error.value) == (
        f"{SETS['dolly'].files['train'][0].url}: Cannot reach the hub, or get"
        " databricks-dolly-15k.jsonl by other means and give its path as NAME:FILE."
    )


def test_without_the_hubs_client_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"not installed; pip install huggingface_hub,"):
        find_files("openassistant")


def test_sets_that_are_not_published_need_a_file():
    with pytest.raises(UserError, match="give its file or folder, as jsonl:FILE"):
        find_files("jsonl")
    with pytest.raises(UserError, match=r"as p3:FILE; get it from https://github\.com"):
        find_files("p3")
