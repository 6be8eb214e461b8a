"""Sharded, asynchronous Orbax checkpoints; an incomplete one is never visible.

A checkpoint is a folder `checkpoints/STEP` with named parts (`params`,
`opt_state`, ...) that can be restored one by one, and a small JSON part `meta`
(iterator position, key, model config). `meta` holds its own checksum, and the shape and
the checksum of every array. All are compared when they are read.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from instructgpt.checksums import array_checksums
from instructgpt.distributed import on_first
from instructgpt.errors import UserError
from instructgpt.finite import first_not_finite
from instructgpt.manifest import MANIFEST, first_damaged, value_checksum, write_manifest
from instructgpt.outputs import not_writable
from instructgpt.paths import without_patterns

T = TypeVar("T")

# What is compared with checksums when a checkpoint is read. "files": all files, read
# by the first process, and all arrays, summed up on their devices. "arrays": only the
# arrays, so that damage is found after loading and no file is named.
Verify = Literal["files", "arrays", "nothing"]

META = "meta"
# Keys that this module adds to `meta`.
_ARRAYS, _OWN = "arrays", "checksum"
_HALF = ".orbax-checkpoint-tmp"  # Orbax's suffix of an incomplete checkpoint


class Checkpoints:
    """A folder of checkpoints, numbered by step.

    Args:
      directory: Local path or `gs://` URL.
      keep: Number of newest checkpoints to keep; None keeps all.
      named: Whether the run's config asks for a checkpoint at a step. A checkpoint at
        another step, where a run was stopped, is kept only while it is the newest.
      clean: Whether to delete checkpoints that are not kept, and incomplete ones of a
        killed run. Off for readers, as another process may be writing these now.
      verify: What is compared when a checkpoint is restored. Files get checksums only
        for "files", and none in a `gs://` folder.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int | None = 1,
        named: Callable[[int], bool] = lambda step: True,
        clean: bool = True,
        verify: Verify = "files",
    ):
        self.directory = epath.Path(_absolute(directory))
        self._keep, self._named = keep, named
        self._clean, self._verify = clean, verify
        self._files = verify == "files" and "://" not in os.fspath(self.directory)
        self._whole: set[int] = set()  # steps whose files have been compared
        # `meta` and its list of arrays, by step; read once, as every use needs them.
        self._metas: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._checkpointer = ocp.training.Checkpointer(
            without_patterns(self.directory),
            # Orbax keeps all: `_prune` deletes, in an order that a kill cannot harm.
            preservation_policy=ocp.training.preservation_policies.PreserveAll(),
            cleanup_tmp_directories=clean,
        )
        self._prune()

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self.steps[-1] if self.steps else None

    def save(self, step: int, parts: dict[str, Any], meta: dict[str, Any]) -> None:
        """Starts writing and returns as soon as the arrays are copied off the devices.

        Raises:
          UserError: there is no room for this checkpoint or for the previous one, which
            was still being written, or the folder cannot be written.
        """
        self.wait()
        without_patterns(self.directory)  # restores a link that a cleaner has deleted
        arrays = _by_path(parts)
        sums = array_checksums(arrays)
        listed = {name: [*map(int, arrays[name].shape), sums[name]] for name in arrays}
        whole = {**meta, _ARRAYS: listed}
        whole[_OWN] = value_checksum(whole)
        self._metas.pop(step, None)
        with self._writing(step), _meta_as_json():
            self._checkpointer.save_checkpointables_async(
                step, {**parts, META: whole}, force=True
            )

    def wait(self) -> None:
        """Blocks until saved checkpoints are on disk, and deletes those they replace.

        Raises:
          UserError: see `save`.
        """
        with self._writing(None):
            self._checkpointer.wait()
        self._prune()

    def _prune(self) -> None:
        """Deletes checkpoints that are not kept, and writes manifests of the others."""
        steps = self.steps
        if not self._clean or not steps:
            return
        older = [step for step in steps[:-1] if self._named(step)]
        more = len(older) if self._keep is None else self._keep - 1
        kept = {steps[-1], *older[max(0, len(older) - more) :]}
        unwanted = [step for step in steps if step not in kept]
        if unwanted:
            on_first(lambda: _delete(self.directory / str(s) for s in unwanted))
            self._checkpointer.reload()
        if self._files:
            on_first(lambda: self._write_manifests(kept))

    def _write_manifests(self, steps: Iterable[int]) -> None:
        for step in steps:
            folder = Path(self.directory / str(step))
            if not (folder / MANIFEST).exists():
                with self._writing(step):
                    write_manifest(folder)

    def restore(
        self, step: int, parts: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Restores named parts into abstract trees (shapes, dtypes, shardings).

        Returns:
          (parts, meta).

        Raises:
          UserError: there is no such checkpoint or part, a shape differs, or the
            checkpoint is damaged or not finite.
        """
        if step not in self.steps:
            raise UserError(
                f"{self.directory} has no checkpoint {step}; it has {self.steps}"
            )
        if self._files and step not in self._whole:
            on_first(lambda: self._check_files(step))
            self._whole.add(step)
        meta, listed = self._meta(step)
        if not parts:
            return {}, meta
        with _meta_as_json():
            stored = self._read(
                step,
                "a file",
                lambda: self._checkpointer.checkpointables_metadata(step).metadata,
            )
        self._check_fits(step, stored, parts, listed)
        found = {name: self._load(step, name, layout) for name, layout in parts.items()}
        self._check_arrays(step, found, listed)
        self._check_finite(step, found)
        return found, meta

    def _check_files(self, step: int) -> None:
        name = first_damaged(Path(self.directory / str(step)))
        if name is not None:
            raise self._damaged(step, name)

    def _meta(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """A copy of `meta`, and the shape and checksum of every array by path."""
        if step not in self._metas:
            with _meta_as_json():
                meta = self._load(step, META, None)
            checksum = meta.pop(_OWN, None) if isinstance(meta, dict) else None
            if checksum is None or checksum != value_checksum(meta):
                raise self._damaged(step, META)
            self._metas[step] = meta, meta.pop(_ARRAYS)
        meta, listed = self._metas[step]
        return copy.deepcopy(meta), listed

    def _check_arrays(
        self, step: int, parts: dict[str, Any], listed: dict[str, Any]
    ) -> None:
        if self._verify == "nothing":
            return
        for name, found in array_checksums(_by_path(parts)).items():
            if found != listed[name][-1]:
                raise self._damaged(step, name)

    def _check_finite(self, step: int, parts: dict[str, Any]) -> None:
        bad = first_not_finite(parts)
        if bad is not None:
            others = [other for other in self.steps if other != step]
            raise UserError(
                f"{self.directory / str(step)}: {bad} holds NaN or infinity; make this "
                "workdir anew, with a lower learning rate if it was trained"
                + (f", or use another of its checkpoints: {others}" if others else "")
            )

    def _check_fits(
        self,
        step: int,
        stored: dict[str, Any],
        parts: dict[str, Any],
        listed: dict[str, Any],
    ) -> None:
        # Checked before anything is read, so that the message names the array and Orbax
        # is not interrupted.
        where = self.directory / str(step)
        whole = {name.partition("/")[0] for name in listed}
        for name, tree in parts.items():
            if name not in whole:
                raise UserError(f"{where} has no {name!r}; it has {sorted(whole)}")
            if name not in stored or stored[name] is None:
                raise self._damaged(step, name)
            have, want = _shapes(stored[name]), _shapes(tree)
            saved = {
                array.removeprefix(f"{name}/"): tuple(shape[:-1])
                for array, shape in listed.items()
                if array.startswith(f"{name}/")
            }
            if saved != have:
                raise self._damaged(step, name)
            for array in sorted(have.keys() | want.keys()):
                if have.get(array) != want.get(array):
                    raise UserError(
                        f"{where} does not fit this model: {name}/{array} is "
                        f"{have.get(array, 'missing')} in the checkpoint and "
                        f"{want.get(array, 'missing')} in the model; make config.model "
                        "match the checkpoint, or use another workdir"
                    )

    def _damaged(self, step: int, what: str) -> UserError:
        where = self.directory / str(step)
        before = [other for other in self.steps if other < step]
        return UserError(
            f"{where} is damaged: {what} is not what was saved; "
            + (
                f"delete this folder, and the one before it, {before[-1]}, is gone on "
                "from"
                if before
                else "there is none before it, so delete the workdir and make it anew"
            )
        )

    def _load(self, step: int, name: str, layout: Any) -> Any:
        """Loads one part of a checkpoint."""
        load = self._checkpointer.load_checkpointables
        return self._read(step, name, lambda: load(step, {name: layout})[name])

    def _read(self, step: int, what: str, read: Callable[[], T]) -> T:
        """Calls read(); Orbax's many errors for damaged files become a UserError."""
        try:
            return read()
        except (jax.errors.JaxRuntimeError, MemoryError):
            raise
        except Exception as error:
            raise self._damaged(step, what) from error

    @contextlib.contextmanager
    def _writing(self, step: int | None) -> Iterator[None]:
        """Raises UserError, in one line, if the block cannot write a checkpoint."""
        try:
            yield
        except Exception as error:
            reason = not_writable(error)
            if reason is None:
                raise
            what = "a checkpoint" if step is None else f"checkpoint {step}"
            raise UserError(
                f"{self.directory}: {what} cannot be written ({reason}); those that "
                f"are whole stay: {self.steps}. Make room there, and start the same "
                "line again"
            ) from error

    def weights(self, step: int) -> str:
        """A checksum of all arrays, computed from their checksums."""
        return value_checksum(self._meta(step)[1])

    def part_names(self, step: int) -> set[str]:
        """Names of the parts that hold arrays."""
        return {name.partition("/")[0] for name in self._meta(step)[1]}

    def meta(self, step: int) -> dict[str, Any]:
        """Reads only the JSON part."""
        return self.restore(step, {})[1]

    def close(self) -> None:
        """Calls `wait` and ends Orbax's threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()


def newest_weights(workdir: Path) -> str:
    """Checksum of the arrays of a workdir's newest checkpoint; "" if there is none."""
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        return ""
    checkpoints = Checkpoints(directory, keep=None, clean=False, verify="nothing")
    try:
        step = checkpoints.latest
        return "" if step is None else checkpoints.weights(step)
    finally:
        checkpoints.close()


def open_checkpoint(
    path: str | os.PathLike, *, step: int | None = None, verify: Verify = "files"
) -> tuple[Checkpoints, int]:
    """Opens a finished stage's checkpoint for reading.

    Args:
      path: The stage's workdir.
      step: Step of the checkpoint; None is the newest.
      verify: What is compared with checksums, see Checkpoints.

    Returns:
      (Checkpoints, step).

    Raises:
      UserError: there is no complete checkpoint.
    """
    directory = epath.Path(_absolute(path)) / "checkpoints"
    if not directory.exists():
        stages = [p.parent.name for p in Path(_absolute(path)).glob("*/checkpoints")]
        raise UserError(
            f"no checkpoint in {path}; "
            + (
                f"name one of the stages in it: {', '.join(sorted(stages))}"
                if stages
                else "run the stage that makes it first, or name another workdir"
            )
        )
    checkpoints = Checkpoints(directory, keep=None, clean=False, verify=verify)
    step = checkpoints.latest if step is None else step
    if step is None:
        raise UserError(f"{directory} holds no complete checkpoint; finish that stage")
    return checkpoints, step


def _meta_as_json() -> ocp.Context:
    """A context in which Orbax writes `meta` as JSON, not each number as an array."""
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name=META)
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


def _delete(folders: Iterable[epath.Path]) -> None:
    """Deletes checkpoints, each renamed first, so that a kill leaves none partial."""
    for folder in folders:
        if "://" not in os.fspath(folder):
            folder = folder.rename(folder.with_name(f"{folder.name}{_HALF}"))
        folder.rmtree()


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by path; fields of a NamedTuple and keys of a dict give equal paths."""

    def name(entry: Any) -> str:
        return str(
            next(getattr(entry, k) for k in ("key", "name", "idx") if hasattr(entry, k))
        )

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(name, path)): leaf for path, leaf in leaves}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in _by_path(tree).items()}


def _absolute(path: str | os.PathLike) -> str:
    text = os.fspath(path)
    return text if "://" in text else str(Path(text).absolute())
