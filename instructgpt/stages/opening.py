"""What every stage does first and last: opens its workdir, mesh and data, and ends.

Relative paths in a config are relative to the stage's workdir, all of them, so that a
recipe's folders can be moved as a whole. What is typed on a command line is relative to
the current folder: `take_typed` makes the one into the other.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt import locks
from instructgpt.checkpoints import Verify
from instructgpt.data.datasets import DataConfig, Datasets, open_datasets
from instructgpt.distributed import first_then_others, is_first, on_first
from instructgpt.errors import UserError
from instructgpt.identity import (
    BEGUN,
    CONFIG,
    FINISHED,
    IDENTITY,
    Identity,
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
from instructgpt.outputs import delete_partial, new_file
from instructgpt.paths import for_config, from_shell, resolve
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages.blocks import (
    CheckpointsConfig,
    TrainConfig,
    build,
    check_resume,
    check_train,
    defaults,
)


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


def _same_config(config: ConfigDict, workdir: Path) -> None:
    """Checks that the run in this workdir, if one has begun, has the same config."""
    path = workdir / CONFIG
    if not path.exists() or all(p.name in BEGUN for p in workdir.iterdir()):
        return
    if (workdir / IDENTITY).exists():
        old = Identity.read(workdir / IDENTITY)
        if not old.has_trained(newest_step(workdir)):
            return  # it may go back to what it was before, which `_same_identity` knows
        before = {**unsaid(config), **old.config}
    else:
        remedy = "delete this workdir, or name another --workdir"
        before = unsaid(config) | own_keys(flat(read_json(path, remedy=remedy)))
    now = {**unsaid(config), **own_keys(flat(config.to_dict()))}
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
        identity = named_as_before(old, identity, config)
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


def unsaid(config: ConfigDict) -> dict[str, Any]:
    """What the keys of a stage are in a config that does not name them."""
    return own_keys(defaults(config))


def named_as_before(old: Identity, new: Identity, config: ConfigDict) -> Identity:
    """The new identity with the keys of the old one, where defaults are all between.

    So a workdir stays what it was when a stage gets another key, whose default is what
    the stage did before.

    Args:
      old: That of the run in a workdir.
      new: What would run there.
      config: Of the new one.
    """
    values = dict(new.config)
    for key, default in unsaid(config).items():
        if key not in old.config and values.get(key, default) == default:
            values.pop(key, None)
        if key not in values and key in old.config and old.config[key] == default:
            values[key] = default
    return dataclasses.replace(new, config=values)


def may_differ(config: ConfigDict, workdir: Path) -> frozenset[str]:
    """The keys of `config.resume`, if the run in this workdir can go on.

    What has run to its end is what it is.
    """
    if is_finished(workdir):
        return frozenset()
    return check_resume(config)


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
