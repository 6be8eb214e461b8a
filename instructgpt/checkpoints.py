"""Checkpoints: Orbax, sharded, asynchronous; a half-written one is never seen.

A checkpoint is a folder `checkpoints/STEP` with named parts (`params`,
`opt_state`, ...) that can be restored one by one, and a small JSON part `meta`
(iterator position, key, model config).
"""

import os
from pathlib import Path
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from instructgpt.errors import UserError

META = "meta"


class Checkpoints:
    """A folder of checkpoints by step.

    Args:
      directory: Local path or `gs://` URL.
      keep: How many of the latest to keep; None keeps all.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int | None = 1):
        self.directory = epath.Path(_absolute(directory))
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=(
                policies.PreserveAll() if keep is None else policies.LatestN(keep)
            ),
            cleanup_tmp_directories=True,
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self.steps[-1] if self.steps else None

    def save(self, step: int, parts: dict[str, Any], meta: dict[str, Any]) -> None:
        """Starts writing; returns once the arrays are copied off the devices."""
        self._checkpointer.save_checkpointables_async(
            step, {**parts, META: meta}, force=True
        )

    def wait(self) -> None:
        """Blocks until what was saved is on disk."""
        self._checkpointer.wait()

    def restore(
        self, step: int, parts: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Restores named parts into abstract trees (shapes, dtypes, shardings).

        Returns:
          (parts, meta).

        Raises:
          UserError: there is no such checkpoint, part, or shape.
        """
        if step not in self.steps:
            raise UserError(
                f"{self.directory} has no checkpoint {step}; it has {self.steps}"
            )
        try:
            loaded = self._checkpointer.load_checkpointables(
                step, {**parts, META: None}
            )
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f"{self.directory / str(step)} does not fit this model: {error}; "
                "make config.model match the checkpoint, or use another workdir"
            ) from error
        return {name: loaded[name] for name in parts}, loaded[META]

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part alone."""
        return self.restore(step, {})[1]

    def close(self) -> None:
        """Waits for writes and frees threads."""
        self._checkpointer.close()


def open_checkpoint(path: str | os.PathLike, *, step: int | None = None):
    """Opens a finished stage's checkpoint for reading.

    Args:
      path: A stage's workdir.
      step: Which checkpoint; None is the latest.

    Returns:
      (Checkpoints, step).

    Raises:
      UserError: there is none.
    """
    directory = epath.Path(_absolute(path)) / "checkpoints"
    if not directory.exists():
        raise UserError(
            f"no checkpoint in {path}; run the stage that makes it first, or set "
            "config.init to another workdir"
        )
    checkpoints = Checkpoints(directory, keep=None)
    step = checkpoints.latest if step is None else step
    if step is None:
        raise UserError(f"{directory} holds no complete checkpoint; finish that stage")
    return checkpoints, step


def _absolute(path: str | os.PathLike) -> str:
    text = os.fspath(path)
    return text if "://" in text else str(Path(text).absolute())
