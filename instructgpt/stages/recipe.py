"""Runs the whole recipe: all stages in order, each in its own folder of a workdir.

Finished stages are checked and left as they are, so the same command resumes wherever
it was stopped, and ends at once when all stages are finished.
"""

import contextlib
import os
import re
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from instructgpt import locks
from instructgpt.checkpoints import open_checkpoint
from instructgpt.data.datasets import DataConfig, Datasets, open_datasets
from instructgpt.distributed import first_then_others, on_first
from instructgpt.errors import UserError, about
from instructgpt.identity import (
    IDENTITY,
    MINUTES,
    Identity,
    changes,
    config_differences,
    flat,
    is_finished,
    is_path,
    newest_step,
    own_keys,
    read_json,
    write_json,
)
from instructgpt.outputs import delete_partial
from instructgpt.paths import one_deeper, resolve
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import Stage, common, find, loading, side_by_side
from instructgpt.stages.blocks import check_config, overrides

# Blocks of the recipe's config whose values hold for all stages that have the key.
_SHARED_BLOCKS = ("data", "model", "mesh")

# The prefix of a stage's own keys in a message, and that of keys all stages share.
_STAGE_KEY = r"(?<![\w./])config\.(?=({})\b)"
_WORLD_SEED = r"(?<![\w./])config\.data\.world_seed\b"


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Runs `config.stages` in order.

    `config.seed` is the seed of all training and sampling, `config.world_seed` that of
    the miniature world. The keys of `config.data`, `config.model` and `config.mesh`
    that are set hold for all stages. A finished reward model's workdir,
    `config.reward_model`, takes the place of the stages label and reward.

    The stages of `config.together` run at the same time if the CPU has a core for each;
    the time that this takes is divided among them. `config.minutes` are those that
    stages took on the machine of `config.minutes_on`; they are printed before a stage.

    Raises:
      UserError: `config.order` names a stage that is not in `config.stages`,
        `config.together` one that is not in the order, or a block has a mistake.
    """
    workdir = Path(workdir).absolute()
    for name in config.order:
        if name not in config.stages:
            raise UserError(
                f"config.order: {name!r} is not in config.stages: "
                f"{sorted(config.stages)}"
            )
    for name in config.together:
        if name not in config.order:
            raise UserError(
                f"config.together: {name!r} is not in config.order={config.order}"
            )
    given = _given_reward_model(config, workdir)
    order = stage_order(config)
    for name in order:
        stage = stage_config(config, name)
        with recipe_keys(name, stage, shared_values(config)):
            mesh = common.build(MeshConfig, stage.get("mesh", {}), where="config.mesh")
            check_config(stage, make_mesh(mesh))
    if given is not None:
        first_then_others(lambda: _check_alike(config, workdir, given))
    on_first(lambda: _take(workdir, order))
    name = config.get("name", "recipe")
    common.announce(f"{name}, in {workdir}: {', '.join(order)}")
    if config.get("minutes"):
        common.announce(f"minutes were measured on {config.minutes_on}")
    try:
        check_same(config, workdir, order)
        _run_all(config, workdir, order)
    finally:
        locks.give_back(workdir / locks.LOCK)


def _take(workdir: Path, order: Sequence[str]) -> None:
    """Locks the workdir, unless all stages are finished."""
    if not all(is_finished(workdir / name) for name in order):
        workdir.mkdir(parents=True, exist_ok=True)
        if locks.take(workdir / locks.LOCK, log=common.announce):
            delete_partial(workdir.glob(".*"))


def _run_all(config: ConfigDict, workdir: Path, order: Sequence[str]) -> None:
    for name in order:
        if name in config.together:
            _run_together(config, workdir, config.together)
        run_stage(config, workdir, name)
    last = _stage(config, order[-1]).exports
    if hasattr(last, "show"):
        last.show(workdir / order[-1])
    _tell_chat(config, workdir, order)


def _tell_chat(config: ConfigDict, workdir: Path, order: Sequence[str]) -> None:
    """Prints the lines that talk to the recipe's first and last policy."""
    policies = [n for n in order if config.stages[n].stage in ("sft", "ppo")]
    if not policies:
        return
    lines = ["\ntalk to the models:"]
    activate = Path(sys.prefix) / "bin" / "activate"
    if activate.exists():
        lines.append(f"  source {shlex.quote(str(activate))}")
    names = dict.fromkeys((policies[0], policies[-1]))
    paths = shlex.join(str(workdir / name) for name in names)
    lines.append(f"  python -m instructgpt.chat {paths}")
    common.announce("\n".join(lines))


def stage_order(config: ConfigDict) -> tuple[str, ...]:
    """The stages to run; without label and reward if a reward model is given."""
    given = bool(config.reward_model)
    return tuple(n for n in config.order if not (given and _stage(config, n).gives))


def _stage(config: ConfigDict, name: str) -> Stage:
    """The table's entry for one of the recipe's stages."""
    return find(config.stages[name].stage)


def _reading_reward_model(config: ConfigDict) -> list[str]:
    """Names of the stages that read the recipe's reward model."""
    return [name for name in config.order if _stage(config, name).reward_keys]


def _check_alike(config: ConfigDict, workdir: Path, meta: dict[str, Any]) -> None:
    """Raises UserError if the text settings of a given reward model differ."""
    path = Path(resolve(config.reward_model, workdir))
    reads = next(iter(_reading_reward_model(config)), config.order[-1])
    stage = stage_config(config, reads)
    what = f"config.reward_model={config.reward_model}"
    with about(what), recipe_keys(reads, stage, shared_values(config)):
        found = common.data_of(stage, workdir / reads)
        data = open_datasets(found, log=common.announce)
        loading.check_made_alike(path, meta, loading.made_with(data))


def _read_given(config: ConfigDict, path: Path) -> dict[str, Any]:
    """Reads the `meta` of a given reward model's checkpoint.

    Raises:
      UserError: the reward model cannot be used.
    """
    with about(f"config.reward_model={config.reward_model}"):
        if not (path / "checkpoints").is_dir():
            raise UserError(
                "holds no checkpoints; name the workdir of a finished reward stage"
            )
        if (path / IDENTITY).exists() and not is_finished(path):
            raise UserError("is not finished; let that stage run to its end first")
        # Checksums are compared by the stages that load the model.
        checkpoints, step = open_checkpoint(path, verify="nothing")
        meta = checkpoints.meta(step)
        checkpoints.close()
        if meta["kind"] != "scalar":
            raise UserError(
                f"holds a {meta['kind']} model; name the workdir of a reward stage"
            )
        return meta


def check_same(config: ConfigDict, workdir: Path, order: Sequence[str]) -> None:
    """Raises UserError if a begun stage has another identity than it would have now.

    The keys in the stage's block `resume` may differ.
    """
    begun = {
        name: Identity.read(workdir / name / IDENTITY)
        for name in order
        if (workdir / name / IDENTITY).exists()
    }
    shared = shared_values(config)
    # Configs are compared first, because opening data may take long.
    for name, made in begun.items():
        stage = stage_config(config, name)
        unsaid = common.unsaid(stage)
        wanted = {**unsaid, **own_keys(flat(stage.to_dict()))}
        with recipe_keys(name, stage, shared):
            free = common.may_differ(stage, workdir / name)
            if made.has_trained(newest_step(workdir / name)):
                before = {**unsaid, **made.config}
                changed = config_differences(before, wanted, but=free)
                common.refuse(workdir / name, changed)
    opened: dict[DataConfig, Datasets] = {}
    known: dict[Path, str] = {}
    for name in order if begun else ():
        stage, path = stage_config(config, name), workdir / name
        found = common.data_of(stage, path)
        if found not in opened:
            opened[found] = open_datasets(found, log=common.announce)
        identity = common.identity_of(stage, path, opened[found], known)
        if name in begun:
            identity = common.named_as_before(begun[name], identity, stage)
            with recipe_keys(name, stage, shared):
                free = common.may_differ(stage, path)
                step = newest_step(path)
                changed = changes(begun[name], identity, step=step, but=free)
                common.refuse(path, changed)
            identity = identity.after(begun[name], step=step)
        known[path] = identity.digest


@contextlib.contextmanager
def recipe_keys(
    name: str, stage: ConfigDict, shared: Collection[str]
) -> Iterator[None]:
    """Makes a stage's errors name its keys in the form of the recipe's config.

    Args:
      name: The stage's name in the recipe.
      stage: The stage's config.
      shared: Keys that the recipe sets for all stages.
    """
    try:
        yield
    except UserError as error:
        text = re.sub(_WORLD_SEED, "config.world_seed", str(error))
        blocks = "|".join(key for key in stage if isinstance(stage[key], ConfigDict))
        own = _STAGE_KEY.format(blocks)
        text = re.sub(own, f"config.stages.{name}.", text)
        for key in shared:
            text = re.sub(
                rf"config\.stages\.{name}\.({re.escape(key)})\b", r"config.\1", text
            )
        raise type(error)(text) from error


def shared_values(config: ConfigDict) -> dict[str, Any]:
    """The keys of the recipe's blocks that are set, such as "data.jsonl"."""
    blocks = {
        name: overrides(config[name]) for name in _SHARED_BLOCKS if name in config
    }
    values = flat({name: block.to_dict() for name, block in blocks.items()})
    for key, value in values.items():
        if value and is_path(key):
            values[key] = one_deeper(value)
        elif isinstance(value, list):
            values[key] = tuple(value)
    return values


def _given_reward_model(config: ConfigDict, workdir: Path) -> dict[str, Any] | None:
    """The `meta` of the given reward model; None if none is given.

    Raises:
      UserError: the given one cannot be used, or one is needed but neither given nor
        trained.
    """
    given = config.reward_model
    if given:
        return _read_given(config, Path(resolve(given, workdir)))
    given_by = {_stage(config, name).gives for name in config.order}
    if _reading_reward_model(config) and "reward_model" not in given_by:
        raise UserError(
            "config.reward_model is not set. The paper has one 6B reward model for the "
            "policies of every size: run --config=configs/recipe.py:6b up to its stage "
            "reward, and name that stage's workdir here"
        )
    return None


def run_stage(config: ConfigDict, workdir: str | Path, name: str) -> Path:
    """Runs one stage of the recipe unless it is finished; returns its workdir."""
    workdir = Path(workdir).absolute()
    if is_finished(workdir / name):
        took = _minutes(workdir).get(name)
        common.announce(f"{name}: done" + (f" ({took:.1f} min)" if took else ""))
        return workdir / name
    common.announce(f"\n=== {name}{_expected(config, [name])} ===")
    began = time.monotonic()
    stage, shared = stage_config(config, name).to_dict(), tuple(shared_values(config))
    _run_one(stage, workdir / name, shared)
    _add_minutes(workdir, [name], time.monotonic() - began)
    return workdir / name


def _expected(config: ConfigDict, names: Sequence[str]) -> str:
    """What stages of this recipe took together where they were measured; or ""."""
    known = config.get("minutes", {})
    if not all(name in known for name in names):
        return ""
    return f", about {sum(known[name] for name in names):.1f} min"


def _run_one(stage: dict[str, Any], workdir: Path, shared: Collection[str]) -> None:
    try:
        with recipe_keys(workdir.name, ConfigDict(stage), shared):
            find(stage["stage"]).exports.run(ConfigDict(stage), workdir)
    finally:
        locks.give_back(workdir / locks.LOCK)


def _run_on_share(
    stage: dict[str, Any], workdir: Path, shared: Collection[str]
) -> None:
    """Runs a stage in its own process, with at most one device per core if allowed."""
    cores = len(os.sched_getaffinity(0))
    if (
        -1 in stage["mesh"].values()
        and jax.config.values["jax_num_cpu_devices"] > cores
    ):
        jax.config.update("jax_num_cpu_devices", cores)
    _run_one(stage, workdir, shared)


def _run_together(config: ConfigDict, workdir: Path, names: Sequence[str]) -> None:
    """Runs unfinished stages at once, if there are several and each has a core."""
    left = [name for name in names if not is_finished(workdir / name)]
    cores = side_by_side.shares(len(left)) if len(left) > 1 else []
    if not cores:
        return
    expected = _expected(config, left)
    common.announce(f"\n=== {' and '.join(left)}, side by side{expected} ===")
    began = time.monotonic()
    shared = tuple(shared_values(config))
    calls: dict[str, side_by_side.Call] = {}
    for name in left:
        stage = stage_config(config, name).to_dict()
        calls[name] = (_run_on_share, (stage, workdir / name, shared))
    side_by_side.run(calls, cores)
    _add_minutes(workdir, left, time.monotonic() - began)


def _minutes(workdir: Path) -> dict[str, float]:
    """The minutes that each finished stage took."""
    path = workdir / MINUTES
    remedy = "delete it: no more than these numbers is lost"
    return read_json(path, remedy=remedy) if path.exists() else {}


def _add_minutes(workdir: Path, names: Sequence[str], seconds: float) -> None:
    share = round(seconds / 60 / len(names), 2)
    minutes = _minutes(workdir) | dict.fromkeys(names, share)
    write_json(workdir / MINUTES, minutes)


def stage_config(config: ConfigDict, name: str) -> ConfigDict:
    """A stage's own config, with what the recipe's config says for all stages."""
    stage = config.stages[name].copy_and_resolve_references()
    stage.seed = config.seed
    if "trackers" in config:
        stage.trackers = config.trackers
    if "data" in stage:
        stage.data.world_seed = config.world_seed
    known = flat(stage.to_dict())
    shared = shared_values(config)
    stage.update_from_flattened_dict({k: v for k, v in shared.items() if k in known})
    if config.reward_model:
        path, found = one_deeper(config.reward_model), find(stage.stage)
        given = dict.fromkeys(found.reward_keys, path) | dict.fromkeys(
            found.label_keys, ""
        )
        stage.update_from_flattened_dict(given)
    return stage
