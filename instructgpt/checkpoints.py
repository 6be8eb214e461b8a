"""Checkpoints: Orbax, sharded, asynchronous; a half-written one is never seen.

A checkpoint is a folder `checkpoints/STEP` with named parts (`params`,
`opt_state`, ...) that can be restored one by one, and a small JSON part `meta`
(iterator position, key, model config).
"""

import os
from pathlib import Path
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from instructgpt.errors import UserError
from instructgpt.finite import first_not_finite

META = "meta"


class Checkpoints:
    """A folder of checkpoints by step.

    Args:
      directory: Local path or `gs://` URL.
      keep: How many of the latest to keep; None keeps all.
      clean: Whether to delete what a killed run left half-written. Not for readers:
        it may be what another process is writing now.
    """

    def __init__(
        self, directory: str | os.PathLike, *, keep: int | None = 1, clean: bool = True
    ):
        self.directory = epath.Path(_absolute(directory))
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=(
                policies.PreserveAll() if keep is None else policies.LatestN(keep)
            ),
            cleanup_tmp_directories=clean,
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
          UserError: there is no such checkpoint, part, or shape, or what it holds is
            not finite.
        """
        if step not in self.steps:
            raise UserError(
                f"{self.directory} has no checkpoint {step}; it has {self.steps}"
            )
        self._check_fits(step, parts)
        try:
            loaded = self._checkpointer.load_checkpointables(
                step, {**parts, META: None}
            )
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f"{self.directory / str(step)} does not fit this model: {error}; "
                "make config.model match the checkpoint, or use another workdir"
            ) from error
        found = {name: loaded[name] for name in parts}
        self._check_finite(step, found)
        return found, loaded[META]

    def _check_finite(self, step: int, parts: dict[str, Any]) -> None:
        bad = first_not_finite(parts)
        if bad is not None:
            others = [other for other in self.steps if other != step]
            raise UserError(
                f"{self.directory / str(step)}: {bad} holds NaN or infinity; make this "
                "workdir anew, with a lower learning rate if it was trained"
                + (f", or use another of its checkpoints: {others}" if others else "")
            )

    def _check_fits(self, step: int, parts: dict[str, Any]) -> None:
        # Before anything is read: the message names the array, and Orbax is not
        # stopped half way.
        stored = self._checkpointer.checkpointables_metadata(step).metadata
        where = self.directory / str(step)
        for name, tree in parts.items():
            if name not in stored:
                raise UserError(f"{where} has no {name!r}; it has {sorted(stored)}")
            have, want = _shapes(stored[name]), _shapes(tree)
            for array in sorted(have.keys() | want.keys()):
                if have.get(array) != want.get(array):
                    raise UserError(
                        f"{where} does not fit this model: {name}/{array} is "
                        f"{have.get(array, 'missing')} in the checkpoint and "
                        f"{want.get(array, 'missing')} in the model; make config.model "
                        "match the checkpoint, or use another workdir"
                    )

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
    checkpoints = Checkpoints(directory, keep=None, clean=False)
    step = checkpoints.latest if step is None else step
    if step is None:
        raise UserError(f"{directory} holds no complete checkpoint; finish that stage")
    return checkpoints, step


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape by path; a NamedTuple's fields and a dict's keys are the same path."""

    def name(entry: Any) -> str:
        return str(
            next(getattr(entry, k) for k in ("key", "name", "idx") if hasattr(entry, k))
        )

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(name, path)): tuple(leaf.shape) for path, leaf in leaves}


def _absolute(path: str | os.PathLike) -> str:
    text = os.fspath(path)
    return text if "://" in text else str(Path(text).absolute())
