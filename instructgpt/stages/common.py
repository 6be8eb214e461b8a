"""What every stage does first: check the config, open the workdir, mesh and data.

A ConfigDict stops here: below, only frozen dataclasses and keyword arguments.
Relative paths in a config are relative to the stage's workdir, all of them, so that a
recipe's folders can be moved as a whole. What is typed on a command line is relative to
the current folder: `take_typed` makes the one into the other.
"""

import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt import locks
from instructgpt.checkpoints import Verify
from instructgpt.data.datasets import DataConfig, Datasets, open_datasets
from instructgpt.data.documents import TokenWindows
from instructgpt.distributed import first_then_others, is_first, on_first
from instructgpt.errors import UserError
from instructgpt.identity import (
    BEGUN,
    CONFIG,
    FINISHED,
    IDENTITY,
    Identity,
    ResumeConfig,
    changes,
    config_differences,
    differences,
    flat,
    is_finished,
    is_parent,
    is_path,
    newest_step,
    of_workdir,
    own_keys,
    read_json,
    write_finished,
    write_json,
)
from instructgpt.loop import LoopConfig
from instructgpt.models.config import ModelConfig, for_devices
from instructgpt.outputs import delete_partial, new_file
from instructgpt.paths import for_config, from_shell, resolve
from instructgpt.ranges import Every, NonNegativeInt, PositiveInt, check_values
from instructgpt.sharding import MeshConfig, check_divides, make_mesh, put_batch
from instructgpt.tokenizer import check_tokenizer

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


class Context(NamedTuple):
    """An opened stage."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    key: jax.Array
    data: Datasets
    data_config: DataConfig
    identity: Identity
    verify: Verify


def build(cls: type[T], block: Any, *, where: str) -> T:
    """A frozen dataclass from a config block.

    Raises:
      UserError: a key is unknown, missing or out of its range; the message names it.
    """
    values = block.to_dict() if isinstance(block, ConfigDict) else dict(block)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UserError(f"{where}.{key} does not exist; known: {sorted(fields)}")
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(f"{where}.{name} is not set; add it to the config file")
    check_values(cls, values, where=where)
    return cls(**values)


def start(
    config: ConfigDict, workdir: str | os.PathLike[str], *, reading: bool = False
) -> Context:
    """Checks what can be checked before any long work, and opens the stage.

    No other process can open it until `finish`, or until this one ends.

    Args:
      config: The stage's.
      workdir: The stage's.
      reading: Whether nothing is to be written there. Then, as where the stage is
        finished, others may be at work.

    Raises:
      UserError: the config has a mistake, the workdir holds another run, or another
        process is at work there.
    """
    workdir = Path(workdir).absolute()
    if config.seed < 0:
        raise UserError(f"config.seed={config.seed}: give a whole number, 0 or more")
    mesh = make_mesh(build(MeshConfig, config.mesh, where="config.mesh"))
    data_config = data_of(config, workdir)
    if "train" in config:
        check_train(build(TrainConfig, config.train, where="config.train"), mesh)
    block = config.get("checkpoints", {})
    verify = build(CheckpointsConfig, block, where="config.checkpoints").verify
    check_resume(config)
    if not reading:
        on_first(lambda: _take(workdir))
    first_then_others(lambda: _same_config(config, workdir))
    data = first_then_others(lambda: open_datasets(data_config, log=announce))
    identity = identity_of(config, workdir, data)
    identity = first_then_others(
        lambda: _same_identity(identity, config, workdir, reading=reading)
    )
    key = jax.random.key(config.seed)
    return Context(config, workdir, mesh, key, data, data_config, identity, verify)


def _take(workdir: Path) -> None:
    """Keeps other processes out, unless all that was to be written is."""
    workdir.mkdir(parents=True, exist_ok=True)
    if is_finished(workdir):
        return
    if locks.take(workdir / locks.LOCK, log=announce):
        delete_partial(workdir.rglob("*"))
    # Something that it lists is missing. The stage makes it anew, with other times.
    (workdir / FINISHED).unlink(missing_ok=True)


def data_of(config: ConfigDict, workdir: Path) -> DataConfig:
    """The data block of a stage's config, its paths resolved."""
    block = build(DataConfig, config.data, where="config.data")
    return dataclasses.replace(
        block,
        dir=resolve(block.dir, workdir),
        jsonl=resolve(block.jsonl, workdir) if block.jsonl else "",
        tokenizer=resolve(block.tokenizer, workdir) if block.tokenizer else "",
    )


def take_typed(
    config: ConfigDict, typed: Mapping[str, Any], workdir: str | os.PathLike[str]
) -> None:
    """Has the paths that were typed on a command line count from the current folder.

    Args:
      config: A stage's or a recipe's, in which they stand as they were typed; they are
        replaced.
      typed: The keys that were given there, as in "init.path" or "stages.sft.init".
      workdir: Of the run; a recipe's stages lie in it under their names.
    """
    blocks = {
        k: v.to_dict() if isinstance(v, ConfigDict) else v for k, v in typed.items()
    }
    for key in flat(blocks):
        stage, own = "", key
        if key.startswith("stages."):
            _, stage, own = key.split(".", 2)
        if not is_path(own):
            continue
        *names, last = key.split(".")
        block = functools.reduce(lambda part, name: part[name], names, config)
        base, value = Path(workdir) / stage, block[last]
        if isinstance(value, str):
            block[last] = for_config(from_shell(value), base)
        else:
            block[last] = type(value)(for_config(from_shell(v), base) for v in value)


def identity_of(
    config: ConfigDict,
    workdir: Path,
    data: Datasets,
    known: Mapping[Path, str] | None = None,
) -> Identity:
    """What a run of this config in this workdir is made of.

    Args:
      config: The stage's.
      workdir: The stage's.
      data: Its opened sets.
      known: Digests of workdirs that need not be there yet; others are looked at.
    """
    values, parents = flat(config.to_dict()), {}
    for key in filter(is_parent, values):
        given = values[key] if isinstance(values[key], list) else [values[key]]
        paths = [Path(resolve(path, workdir)) for path in given if path]
        digests = [(known or {}).get(path) or of_workdir(path) for path in paths]
        if any(digests):
            parents[key] = " ".join(digests)
    return Identity(
        config=own_keys(values),
        data=data.fingerprints,
        tokenizer=data.tokenizer.fingerprint,
        parents=parents,
    )


def finish(context: Context) -> None:
    """Says that the stage has run to its end; the last thing that it does."""

    def say() -> None:
        if not is_finished(context.workdir):
            write_finished(context.workdir, context.identity)
        locks.give_back(context.workdir / locks.LOCK)

    on_first(say)


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


def _same_config(config: ConfigDict, workdir: Path) -> None:
    """Checks that the run in this workdir, if one has begun, has the same config."""
    path = workdir / CONFIG
    if not path.exists() or all(p.name in BEGUN for p in workdir.iterdir()):
        return
    if (workdir / IDENTITY).exists():
        old = Identity.read(workdir / IDENTITY)
        if not old.has_trained(newest_step(workdir)):
            return  # it may go back to what it was before, which `_same_identity` knows
        before = old.config
    else:
        remedy = "delete this workdir, or name another --workdir"
        before = own_keys(flat(read_json(path, remedy=remedy)))
    now = own_keys(flat(config.to_dict()))
    free = may_differ(config, workdir)
    refuse(workdir, config_differences(before, now, but=free))


def _same_identity(
    identity: Identity, config: ConfigDict, workdir: Path, *, reading: bool
) -> Identity:
    """Writes down what the run is made of, or checks that it is the same.

    Returns:
      The identity, with what the run was before.
    """
    path, text = workdir / IDENTITY, json.dumps(config.to_dict(), indent=2) + "\n"
    # A run that was refused left its config alone, which may be corrected.
    if path.exists() and any(p.name not in BEGUN for p in workdir.iterdir()):
        old, free = Identity.read(path), may_differ(config, workdir)
        step = newest_step(workdir)
        refuse(workdir, changes(old, identity, step=step, but=free))
        goes_on_as_it_was = not differences(old, identity)
        identity = identity.after(old, step=step)
        if goes_on_as_it_was:
            return identity
    if not reading:
        with new_file(workdir / CONFIG) as partial:
            partial.write_text(text)
        write_json(path, dataclasses.asdict(identity))
    return identity


def may_differ(config: ConfigDict, workdir: Path) -> frozenset[str]:
    """The keys of `config.resume`, if the run in this workdir can go on.

    What has run to its end is what it is.
    """
    if is_finished(workdir):
        return frozenset()
    return check_resume(config)


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


def refuse(workdir: Path, changed: Sequence[str]) -> None:
    """Raises UserError if a run differs from the one that its workdir holds.

    Args:
      workdir: The stage's.
      changed: What `differences` gives.
    """
    if not changed:
        return
    goes_on = not is_finished(workdir) and newest_step(workdir)
    raise UserError(
        f"{workdir} holds a run of something else; changed: {'; '.join(changed)}. "
        "Use another --workdir, or delete this one"
        + ", or name the keys in --config.resume.changed to go on with the new values"
        * bool(goes_on)
    )


def announce(text: str) -> None:
    """Tells the user what a stage is doing, on process 0."""
    if is_first():
        print(text, flush=True)


_announce_once = functools.cache(announce)  # not of each model of each stage


def check_model(context: Context, config: ModelConfig, *, extra: int = 0) -> None:
    """Raises UserError if the data cannot be fed to a model of this config.

    Args:
      context: The stage.
      config: The model's.
      extra: Tokens put before every prompt (a few-shot prefix).
    """
    check_tokenizer(
        context.data.tokenizer,
        vocab_size=config.vocab_size,
        padded_vocab_size=config.padded_vocab_size,
    )
    data = context.data_config
    longest = data.max_prompt + data.max_response + extra
    if longest > config.context_length:
        raise UserError(
            f"config.data: max_prompt={data.max_prompt} + max_response="
            f"{data.max_response}{f' + prefix of {extra}' if extra else ''} = "
            f"{longest} tokens do not fit config.model.context_length="
            f"{config.context_length}; shorten them or use a longer context"
        )


def text_windows(
    context: Context, split: str, config: ModelConfig, length: int, *, key: str
) -> TokenWindows:
    """Pretraining text of a split in rows of `length` tokens.

    Args:
      context: The stage.
      split: train, valid or test.
      config: The model's.
      length: Tokens; 0 is the model's context length.
      key: The config key that `length` comes from, for the error.

    Raises:
      UserError: the rows are longer than the context, or nothing can be predicted.
    """
    if length == 1:
        raise UserError(f"{key}=1: one token predicts nothing; give 0, or 2 or more")
    if length > config.context_length:
        raise UserError(
            f"{key}={length} is longer than the model's "
            f"context_length={config.context_length}; lower it"
        )
    tokens = first_then_others(lambda: context.data.tokens(split))
    return TokenWindows(tokens, length or config.context_length)


def model_config(values: Any, mesh: Mesh) -> ModelConfig:
    """A model's config as the mesh's devices can compute it."""
    config = build(ModelConfig, values, where="config.model")
    tpu = mesh.devices.flat[0].platform == "tpu"
    return for_devices(config, tpu=tpu, log=_announce_once)


def to_device(mesh: Mesh) -> Callable[[Any], Any]:
    """Moves a batch of this process to its devices."""
    return lambda batch: put_batch(batch, mesh)


def count_valid(batch: Any) -> int:
    """Real tokens of a TokenBatch on the host."""
    return int(batch.valid.sum())
