"""A server of Label Studio for the labelers of one workdir.

The signatures are settled; the bodies follow.
"""

from collections.abc import Mapping
from pathlib import Path

from instructgpt.labelling.seats import Seat


def start(
    folder: str | Path,
    labelers: Mapping[str, str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
) -> list[Seat]:
    """Starts the folder's server unless it runs, and sees to a seat for each labeler.

    Args:
      folder: The folder `labelling` of a workdir; the server keeps its database in
        server/ there and the secrets go to seats.json.
      labelers: Name -> group (training or heldout). Earlier labelers keep their seats.
      host: Address to listen at.
      port: Port to listen at; 0 takes the one of last time, or a free one.

    Returns:
      The seats of all labelers, also of earlier ones.

    Raises:
      UserError: Label Studio cannot be found or installed, or does not start.
    """
    raise NotImplementedError


def stop(folder: str | Path) -> bool:
    """Stops the folder's server; returns whether it ran."""
    raise NotImplementedError


def is_running(folder: str | Path) -> bool:
    """Whether the folder's own server answers."""
    raise NotImplementedError
