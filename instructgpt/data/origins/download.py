"""Downloads files of public data sets from a hub or by https, checked and cached."""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from instructgpt.errors import UserError
from instructgpt.outputs import new_file

HUB = "https://huggingface.co/datasets"
_TIMEOUT = 60  # seconds without data after which a download fails


class RemoteFile(NamedTuple):
    """A published file.

    Attributes:
      base: "hub:OWNER/NAME@REVISION" of a data set, or the start of an https URL.
      path: the rest of the address.
      sha256: SHA-256 of the content, "" if not known.
    """

    base: str
    path: str
    sha256: str = ""

    @property
    def url(self) -> str:
        """The file's address on the web."""
        if not self.base.startswith("hub:"):
            return f"{self.base}/{self.path}"
        repository, revision = self._hub()
        return f"{HUB}/{repository}/resolve/{revision}/{self.path}"

    def _hub(self) -> tuple[str, str]:
        repository, _, revision = self.base.removeprefix("hub:").partition("@")
        return repository, revision or "main"

    def fetch(self, cache: Path) -> Path:
        """Returns the local file, after downloading it unless it is in the cache.

        Args:
          cache: folder for files by https; the hub's client has its own cache.

        Raises:
          UserError: the file cannot be downloaded, or its content is not the published
            one; the message says how to give a local copy instead.
        """
        if self.base.startswith("hub:"):
            return self._check(self._from_hub())
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        target = cache / digest / Path(self.path).name
        if not target.exists():
            self._download(target)
        return self._check(target)

    def _from_hub(self) -> Path:
        try:
            from huggingface_hub import hf_hub_download
        except ImportError as error:
            raise self._failed(
                "huggingface_hub is not installed; pip install huggingface_hub"
            ) from error
        repository, revision = self._hub()
        try:
            return Path(
                hf_hub_download(
                    repository,
                    self.path,
                    repo_type="dataset",
                    revision=revision,
                    endpoint=os.environ.get("HF_ENDPOINT") or None,
                )
            )
        # Its errors are OSErrors (no network, not found, access) or ValueErrors.
        except (OSError, ValueError) as error:
            raise self._failed(first_line(error)) from error

    def _download(self, target: Path) -> None:
        """Downloads atomically: a killed download leaves no file under this name."""
        try:
            with (
                new_file(target) as partial,
                partial.open("wb") as file,
                urllib.request.urlopen(self.url, timeout=_TIMEOUT) as response,
            ):
                shutil.copyfileobj(response, file)
                length = response.headers.get("Content-Length")
                if length is not None and file.tell() != int(length):
                    raise OSError(f"{file.tell()} of {length} bytes came")
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise self._failed(first_line(reason)) from error

    def _check(self, file: Path) -> Path:
        if self.sha256:
            found = sha256_of(file)
            if found != self.sha256:
                raise self._failed(
                    f"{file} has SHA-256 {found}, not {self.sha256}; delete it"
                )
        return file

    def _failed(self, reason: str) -> UserError:
        return UserError(
            f"{self.url}: {reason}, or get {Path(self.path).name} by other means and"
            " give its path as NAME:FILE."
        )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: object) -> str:
    """The first line of an error's message, without a full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
