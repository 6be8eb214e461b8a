"""Converts frozen dataclasses to the blocks of a config, and blocks to dataclasses.

ConfigDicts are used only here and above; lower modules take frozen dataclasses and
keyword arguments. A config file starts from `default_config`, which holds every field
of every block, so that each can be set by a flag and is in `config.json`. None means
that a field is not set: it has no default, or it is the starting model's.
"""

import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

from jax.sharding import Mesh
from ml_collections import ConfigDict, config_dict

from instructgpt.checkpoints import Verify
from instructgpt.errors import UserError
from instructgpt.identity import ResumeConfig, flat
from instructgpt.loop import LoopConfig
from instructgpt.ranges import Every, NonNegativeInt, PositiveInt, check_values
from instructgpt.sharding import check_divides
from instructgpt.stages import find
from instructgpt.trackers import DEFAULT, find_trackers

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The size of a run and when it logs, evaluates and saves."""

    batch_size: PositiveInt  # rows over all devices
    num_steps: NonNegativeInt = 0  # optimiser steps (PPO: iterations)
    num_epochs: NonNegativeInt = 0  # alternative: passes over the data (PPO: prompts)
    microbatches: PositiveInt = 1  # parts of a batch, in memory one at a time
    # Steps between two lines of the log. 0: at the end; -1: after every epoch.
    log_every: Every = 10
    eval_every: Every = 0
    checkpoint_every: Every = 0
    keep: NonNegativeInt = 1  # checkpoints to keep; 0 keeps all

    def loop(self, steps_per_epoch: int, *, verify: Verify) -> LoopConfig:
        """The loop's schedule in steps; `verify` is that of the restored checkpoint."""

        def every(value: int) -> int:
            return steps_per_epoch if value == -1 else value

        return LoopConfig(
            num_steps=self.num_steps or self.num_epochs * steps_per_epoch,
            log_every=every(self.log_every),
            eval_every=every(self.eval_every),
            checkpoint_every=every(self.checkpoint_every),
            keep=self.keep,
            verify=verify,
        )


@dataclasses.dataclass(frozen=True)
class CheckpointsConfig:
    """How checkpoints are read."""

    verify: Verify = "files"  # what is compared with checksums, see Checkpoints


def default_config(stage: str, **values: Any) -> ConfigDict:
    """A stage's config with every field of every block, set to its default.

    Args:
      stage: The value of `config.stage`.
      values: Further top-level keys: `name`, `seed`, `trackers`, or additional blocks.

    Raises:
      UserError: there is no such stage.
    """
    found = find(stage)
    config = ConfigDict(dict(stage=stage, name=stage, seed=0, trackers=DEFAULT))
    config.update(values)
    for name, cls in found.classes().items():
        config[name] = filled(cls, partial=name == "model" and bool(found.models))
    return config


def filled(cls: type, *, partial: bool = False, **values: Any) -> ConfigDict:
    """A config block with every field of a dataclass.

    Args:
      cls: The dataclass.
      partial: Whether only the given values are set, so that the block holds changes
        to another block.
      values: Values by name of the field.
    """
    block = ConfigDict()
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, default = kind_of(hints[field.name]), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if partial or default in (None, dataclasses.MISSING):
            block[field.name] = config_dict.placeholder(kind)
        else:
            # A ConfigDict takes the type of a field from its value, so 0 must be 0.0.
            block[field.name] = float(default) if kind is float else default
    block.update(values)
    return block


def kind_of(hint: Any) -> type:
    """The type as which a flag for the field is parsed."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return kind_of(next(x for x in inner if x is not type(None)))
    return origin or hint


def build(cls: type[T], block: Any, *, where: str) -> T:
    """Builds a frozen dataclass from a config block.

    Args:
      cls: The dataclass.
      block: A ConfigDict or a dict; None means "not set", unless the field allows None.
      where: Prefix of a key in an error, such as "config.train".

    Raises:
      UserError: a key is unknown, missing or out of its range; the message names it.
    """
    given = block.to_dict() if isinstance(block, ConfigDict) else dict(block)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in given:
        if key not in fields:
            raise UserError(f"{where}.{key} does not exist; known: {sorted(fields)}")
    values = {name: value for name, value in given.items() if value is not None}
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(f"{where}.{name} is not set; add it to the config file")
    check_values(cls, values, where=where)
    return cls(**values)


def overrides(block: ConfigDict) -> ConfigDict:
    """The fields of a partial block that are set."""
    values = block.to_dict()
    return ConfigDict({k: v for k, v in values.items() if v is not None})


def block_of(config: ConfigDict, name: str, cls: type[T]) -> T:
    """Builds the dataclass of a config's block of this name."""
    return build(cls, config[name], where=f"config.{name}")


def check_config(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Checks a stage's config as far as possible before any stage has run.

    Args:
      config: The stage's config.
      mesh: The mesh of the run.

    Returns:
      The built blocks by name; `model` only if the config has all of its fields.

    Raises:
      UserError: a block has a key that does not exist or a value that is not allowed,
        or numbers do not fit each other or the mesh.
    """
    found = find(config.stage)
    built: dict[str, Any] = {}
    for name, cls in found.classes().items():
        if name not in config:
            continue
        if name == "model" and found.models:
            check_part(cls, config[name], where=f"config.{name}")
        else:
            built[name] = block_of(config, name, cls)
    check_resume(config)
    check_trackers(config)
    if "train" in built:
        check_train(built["train"], mesh)
    if hasattr(found.exports, "check"):
        found.exports.check(config, built, mesh)
    return built


def check_part(cls: type, block: ConfigDict, *, where: str) -> None:
    """Raises UserError if a partial block sets an unknown field or a bad value."""
    values = overrides(block).to_dict()
    known = {field.name for field in dataclasses.fields(cls)}
    for key in block:
        if key not in known:
            raise UserError(f"{where}.{key} does not exist; known: {sorted(known)}")
    check_values(cls, values, where=where)


def check_train(train: TrainConfig, mesh: Mesh) -> None:
    """Raises UserError unless a run has one length and its batch divides.

    Args:
      train: The size of the run.
      mesh: The mesh that the batch is sharded over.
    """
    if bool(train.num_steps) == bool(train.num_epochs):
        raise UserError(
            f"config.train: num_steps={train.num_steps} and num_epochs="
            f"{train.num_epochs}; give one of them a number of 1 or more, the other 0"
        )
    check_divides(mesh, train__batch_size=train.batch_size)
    if train.batch_size % train.microbatches:
        raise UserError(
            f"config.train.microbatches={train.microbatches} does not divide "
            f"config.train.batch_size={train.batch_size}"
        )


def check_resume(config: ConfigDict) -> frozenset[str]:
    """The keys of `config.resume`; none if the stage does not resume from checkpoints.

    Args:
      config: The stage's config.

    Raises:
      UserError: the config does not have one of the keys.
    """
    if "resume" not in config:
        return frozenset()
    keys = build(ResumeConfig, config.resume, where="config.resume").keys
    known = flat(config.to_dict())
    for key in sorted(keys - known.keys()):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        raise UserError(
            f"config.resume.changed: the stage has no key {key!r}; "
            + (f"did you mean {near[0]!r}?" if near else "give such as seed")
        )
    return keys


def check_trackers(config: ConfigDict) -> str:
    """The names of a run's trackers, which show its metrics while it trains.

    Args:
      config: The stage's config; without the key `trackers` it has the default.

    Raises:
      UserError: a tracker is not known, or its package is not installed.
    """
    names = config.get("trackers", DEFAULT)
    find_trackers(names, where="config.trackers")
    return names


def defaults(config: ConfigDict) -> dict[str, Any]:
    """The defaults of all fields of a stage's blocks, by flat key."""
    found = find(config.stage)
    out: dict[str, Any] = {}
    for name, cls in found.classes_in(config).items():
        block = filled(cls, partial=name == "model" and bool(found.models))
        out |= flat({name: block.to_dict()})
    return out
