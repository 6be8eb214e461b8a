"""Blocks of a config: made from frozen dataclasses, and made into them.

A ConfigDict stops here: below, only frozen dataclasses and keyword arguments. A config
file starts from `default_config`, which holds every field of every block, so that each
can be given by a flag and stands in `config.json`. None stands for a field that is not
set: one without a default, or one of the model that a stage starts from.
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

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The size of a run and when it logs, evaluates and saves."""

    batch_size: PositiveInt  # rows over all devices
    num_steps: NonNegativeInt = 0  # optimiser steps (PPO: iterations)
    num_epochs: NonNegativeInt = 0  # or passes over the data (PPO: the prompts)
    microbatches: PositiveInt = 1  # parts of a batch in memory one at a time
    # 0: at the end; -1: after every epoch.
    log_every: Every = 10
    eval_every: Every = 0
    checkpoint_every: Every = 0
    keep: NonNegativeInt = 1  # checkpoints to keep; 0 keeps all

    def loop(self, steps_per_epoch: int, *, verify: Verify) -> LoopConfig:
        """In steps, with what is compared of a checkpoint that is gone on from."""

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

    verify: Verify = "files"  # what is compared with its checksum, see Checkpoints


def default_config(stage: str, **values: Any) -> ConfigDict:
    """A config of a stage that holds every field of every block, with its default.

    Args:
      stage: As `config.stage` names it.
      values: Top-level keys besides: `name`, `seed`, or blocks of a kind of their own.

    Raises:
      UserError: there is no such stage.
    """
    found = find(stage)
    config = ConfigDict(dict(stage=stage, name=stage, seed=0))
    config.update(values)
    for name, cls in found.classes().items():
        config[name] = filled(cls, partial=name == "model" and bool(found.models))
    return config


def filled(cls: type, *, partial: bool = False, **values: Any) -> ConfigDict:
    """A block that holds every field of a dataclass.

    Args:
      cls: The dataclass.
      partial: Whether fields are not set but for the values, so that the block changes
        a part of what is there already.
      values: By field.
    """
    block = ConfigDict()
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, default = _kind(hints[field.name]), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if partial or default in (None, dataclasses.MISSING):
            block[field.name] = config_dict.placeholder(kind)
        else:
            # The type of a field is that of its value, and 0 is no float.
            block[field.name] = float(default) if kind is float else default
    block.update(values)
    return block


def _kind(hint: Any) -> type:
    """The type that a flag for a field is read as."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(x for x in inner if x is not type(None)))
    return origin or hint


def build(cls: type[T], block: Any, *, where: str) -> T:
    """A frozen dataclass from a config block.

    Args:
      cls: The dataclass.
      block: A ConfigDict or a dict; a field that is None is not set, unless it may be.
      where: What comes before a key in an error: "config.train".

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
    """What a block of a part of the model's fields does set."""
    values = block.to_dict()
    return ConfigDict({k: v for k, v in values.items() if v is not None})


def block_of(config: ConfigDict, name: str, cls: type[T]) -> T:
    """`build` of a config's block of this name."""
    return build(cls, config[name], where=f"config.{name}")


def check_config(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Checks a stage's config, as far as that goes before any stage has run.

    Args:
      config: A stage's.
      mesh: Where it is to run.

    Returns:
      The blocks that there are, built; of `model` only where the stage has all of it.

    Raises:
      UserError: a block has a key that does not exist, or a value that it may not
        have, or numbers do not go together or with the mesh.
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
    if "train" in built:
        check_train(built["train"], mesh)
    if hasattr(found.exports, "check"):
        found.exports.check(config, built, mesh)
    return built


def check_part(cls: type, block: ConfigDict, *, where: str) -> None:
    """Raises UserError if what a block sets of a dataclass's fields cannot be."""
    values = overrides(block).to_dict()
    known = {field.name for field in dataclasses.fields(cls)}
    for key in block:
        if key not in known:
            raise UserError(f"{where}.{key} does not exist; known: {sorted(known)}")
    check_values(cls, values, where=where)


def check_train(train: TrainConfig, mesh: Mesh) -> None:
    """Raises UserError if a run has no length, or two, or its batch does not divide.

    Args:
      train: The run's size.
      mesh: Over which the batch is cut.
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
    """The keys of `config.resume`; none where a stage does not go on from checkpoints.

    Args:
      config: A stage's.

    Raises:
      UserError: the config has no such key.
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


def defaults(config: ConfigDict) -> dict[str, Any]:
    """What the fields of a stage's blocks are where nobody sets them, by flat key."""
    found = find(config.stage)
    out: dict[str, Any] = {}
    for name, cls in found.classes_in(config).items():
        block = filled(cls, partial=name == "model" and bool(found.models))
        out |= flat({name: block.to_dict()})
    return out
