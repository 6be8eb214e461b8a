"""Opens a stage's workdir, mesh and data, and marks the stage as finished.

All relative paths in a config are relative to the stage's workdir, so that a recipe's
folders can be moved as a whole. Paths on a command line are relative to the current
folder: `take_typed` converts them.
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
from instructgpt.manifest import file_checksum
from instructgpt.metrics import MetricWriter
from instructgpt.named import code_checksums, is_named
from instructgpt.outputs import delete_partial, new_file
from instructgpt.paths import for_config, from_shell, labelled, resolve
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages.blocks import (
    CheckpointsConfig,
    TrainConfig,
    build,
    check_resume,
    check_trackers,
    check_train,
    defaults,
)
from instructgpt.trackers import RunInfo, check_login

# The keys whose paths have labels, see `labelled`.
LABELLED = ("evaluate.models", "best_of.policies")


class Context(NamedTuple):
    """An opened stage: its config, workdir, mesh, data, and writer of metrics."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    key: jax.Array
    data: Datasets
    data_config: DataConfig
    identity: Identity
    verify: Verify
    metrics: MetricWriter


def start(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    reading: bool = False,
    data: Datasets | None = None,
) -> Context:
    """Opens a stage, after checking everything that can be checked before long work.

    No other process can open it until `finish`, or until this process ends.

    Args:
      config: The stage's config.
      workdir: The stage's workdir.
      reading: Whether the workdir is only read. Then other processes may use it, as
        they may if the stage is finished.
      data: The data sets; None: those of the config are opened.

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
    trackers = check_trackers(config)
    if not reading:
        on_first(lambda: check_login(trackers))
        on_first(lambda: _take(workdir))
    first_then_others(lambda: _same_config(config, workdir))
    if data is None:
        data = first_then_others(lambda: open_datasets(data_config, log=announce))
    identity = identity_of(config, workdir, data)
    identity = first_then_others(
        lambda: _same_identity(identity, config, workdir, reading=reading)
    )
    key = jax.random.key(config.seed)
    metrics = MetricWriter(
        workdir,
        names=trackers,
        run=_run_info(config, workdir, identity),
        enabled=is_first(),
    )
    return Context(
        *(config, workdir, mesh, key, data, data_config, identity, verify, metrics)
    )


def _run_info(config: ConfigDict, workdir: Path, identity: Identity) -> RunInfo:
    """What trackers are told of a run: a recipe's stages are one group there."""
    return RunInfo(
        name=f"{workdir.parent.name}/{workdir.name}",
        group=workdir.parent.name,
        identity=identity.digest,
        hyperparameters=flat(config.to_dict()),
    )


def _take(workdir: Path) -> None:
    """Locks the workdir, unless the stage is finished."""
    workdir.mkdir(parents=True, exist_ok=True)
    if is_finished(workdir):
        return
    if locks.take(workdir / locks.LOCK, log=announce):
        delete_partial(workdir.rglob("*"))
    # A listed file is missing. The stage makes it again, with other times inside.
    (workdir / FINISHED).unlink(missing_ok=True)


def data_of(config: ConfigDict, workdir: Path) -> DataConfig:
    """The data block of a stage's config, with resolved paths."""
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
    """Converts paths typed on a command line, which are relative to the current folder.

    Args:
      config: The config of a stage or a recipe, whose typed paths are replaced.
      typed: The keys on the command line, such as "init.path" or "stages.sft.init".
      workdir: The run's workdir; a recipe's stages are folders in it.
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
        if config.get("stage") == "sweep" and own != "sweep.recipe":
            base = Path("/")  # paths stay absolute, as a sweep has a workdir a value
        if own in LABELLED:
            paths = labelled(value).items()
            block[last] = ",".join(f"{k}={_typed(path, base)}" for k, path in paths)
        elif isinstance(value, str):
            block[last] = _typed(value, base)
        else:
            block[last] = type(value)(for_config(from_shell(v), base) for v in value)


def _typed(value: str, base: Path) -> str:
    """A typed path in the form of a config; module:name stays as it is."""
    if is_named(value) and not os.path.exists(value):
        return value
    return for_config(from_shell(value), base)


def identity_of(
    config: ConfigDict,
    workdir: Path,
    data: Datasets,
    known: Mapping[Path, str] | None = None,
) -> Identity:
    """The identity of a run of this config in this workdir.

    Args:
      config: The stage's config.
      workdir: The stage's workdir.
      data: The stage's opened data.
      known: Digests of workdirs that may not exist yet; others are computed.
    """
    values, parents = flat(config.to_dict()), {}
    for key in filter(is_parent, values):
        given = values[key] if isinstance(values[key], list) else [values[key]]
        if key in LABELLED:
            given = list(labelled(values[key]).values())
        paths = [Path(resolve(path, workdir)) for path in given if path]
        digests = [(known or {}).get(path) or of_workdir(path) for path in paths]
        if key in LABELLED:
            names = zip(labelled(values[key]), digests, strict=True)
            digests = [f"{label}={digest}" for label, digest in names]
        if any(digests):
            parents[key] = " ".join(digests)
    return Identity(
        config=own_keys(values),
        data=data.fingerprints,
        tokenizer=data.tokenizer.fingerprint,
        parents=parents,
        code=code_checksums(values) | _inputs(values, workdir),
    )


def finish(context: Context) -> None:
    """Marks the stage as finished; every stage calls this last."""

    def say() -> None:
        if not is_finished(context.workdir):
            write_finished(context.workdir, context.identity)
        locks.give_back(context.workdir / locks.LOCK)

    on_first(say)


def _inputs(values: Mapping[str, Any], workdir: Path) -> dict[str, str]:
    """Checksums of files and functions that a stage reads, by key."""
    out = {}
    keys = ("evaluate.toxicity", "evaluate.judges", "evaluate.people", "prefix.file")
    for key in keys:
        given = values.get(key) or ""
        if given and Path(resolve(given, workdir)).is_file():
            out[key] = file_checksum(Path(resolve(given, workdir)))
    named = {"evaluate.toxicity.name": values.get("evaluate.toxicity") or ""}
    for key in LABELLED:
        for label, function in labelled(values.get(key) or "").items():
            named[f"{key}.{label}.name"] = function
    return out | code_checksums(named)


def _same_config(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError if a run in this workdir has begun with another config."""
    path = workdir / CONFIG
    if not path.exists() or all(p.name in BEGUN for p in workdir.iterdir()):
        return
    if (workdir / IDENTITY).exists():
        old = Identity.read(workdir / IDENTITY)
        if not old.has_trained(newest_step(workdir)):
            return  # the run may return to an earlier identity; `_same_identity` checks
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
    """Writes the run's identity, or checks that it is the stored one.

    Returns:
      The identity, with the run's earlier ones.
    """
    path, text = workdir / IDENTITY, json.dumps(config.to_dict(), indent=2) + "\n"
    # A run that failed its checks has left only its config, which may be corrected.
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
    """Values of a stage's keys where a config does not have them."""
    return own_keys(defaults(config))


def named_as_before(old: Identity, new: Identity, config: ConfigDict) -> Identity:
    """The new identity with the old one's keys, if both differ only by default values.

    With this a workdir stays valid when a stage gets a new key whose default is the
    stage's earlier behaviour.

    Args:
      old: The identity of the run in a workdir.
      new: The identity of the run to be started there.
      config: The config of the new run.
    """
    values = dict(new.config)
    for key, default in unsaid(config).items():
        if key not in old.config and values.get(key, default) == default:
            values.pop(key, None)
        if key not in values and key in old.config and old.config[key] == default:
            values[key] = default
    return dataclasses.replace(new, config=values)


def may_differ(config: ConfigDict, workdir: Path) -> frozenset[str]:
    """The keys of `config.resume`, if the run in this workdir is not finished.

    A finished run may not be changed.
    """
    if is_finished(workdir):
        return frozenset()
    return check_resume(config)


def refuse(workdir: Path, changed: Sequence[str]) -> None:
    """Raises UserError if a run differs from the one that its workdir holds.

    Args:
      workdir: The stage's workdir.
      changed: The result of `differences`.
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
    """Prints a line about what a stage does, on process 0."""
    if is_first():
        print(text, flush=True)
