"""Finds the files of a data set on the Hugging Face hub, at one commit.

    hub:OWNER/NAME[@REVISION][:SPLIT]

SPLIT may be CONFIG/SPLIT; see `layout.choose`. HF_ENDPOINT names another hub.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.data.origins.download import HUB, RemoteFile, first_line
from instructgpt.data.origins.layout import choose
from instructgpt.errors import UserError

_ADDRESS = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([^:\s]+))?(?::(\S+))?")
_TIMEOUT = 60  # seconds


class HubFile(NamedTuple):
    """A file of a data set, and our split that it belongs to, if its name tells."""

    remote: RemoteFile
    split: str | None


class HubSet(NamedTuple):
    """A data set of the hub.

    Attributes:
      repository: OWNER/NAME.
      commit: The commit that the revision stands for.
      licence: As its page names it.
      homepage: Address of its page.
      files: The chosen files.
    """

    repository: str
    commit: str
    licence: str
    homepage: str
    files: list[HubFile]

    def fetch(self, cache: Path) -> list[tuple[Path, HubFile]]:
        """Downloads the files; those that the hub's client has already are kept."""
        return [(file.remote.fetch(cache), file) for file in self.files]


def find_hub_set(address: str) -> HubSet:
    """Asks the hub for a set's files.

    Args:
      address: OWNER/NAME[@REVISION][:SPLIT].

    Raises:
      UserError: there is no such set, revision or split, or no connection.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(f"hub:{address}: give hub:OWNER/NAME[@REVISION][:SPLIT].")
    repository, revision, split = parts[1], parts[2], parts[3] or ""
    info = _info(repository, revision)
    card = info.card_data.to_dict() if info.card_data else {}
    what = f"hub:{repository}" + (f"@{revision}" if revision else "")
    configs = card.get("configs")
    chosen = choose(
        [file.rfilename for file in info.siblings or ()],
        split,
        what=what,
        metadata=configs if isinstance(configs, list) else (),
    )
    licence = card.get("license") or "not named on its page"
    return HubSet(
        repository,
        info.sha,
        ", ".join(licence) if isinstance(licence, list) else str(licence),
        f"{HUB}/{repository}",
        [
            HubFile(RemoteFile(f"hub:{repository}@{info.sha}", name), ours)
            for name, ours in chosen
        ],
    )


def _info(repository: str, revision: str | None) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError(
            f"hub:{repository}: huggingface_hub is not installed; pip install"
            " huggingface_hub"
        ) from error
    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        return api.dataset_info(repository, revision=revision, timeout=_TIMEOUT)
    except Exception as error:  # of the hub's client, its transport, or the answer
        raise UserError(
            f"hub:{repository}: {first_line(error)}; correct the name or the revision,"
            " log in with `hf auth login` if the set is private or asks for consent,"
            " or download its files and give their folder."
        ) from error
