"""The values of a sweep: what its keys name, and the config of every run.

A sweep's config is a recipe's, with two blocks more. Its stages read what a finished
recipe has left, except for what the sweep's own earlier stages make.
"""

import ast
import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from instructgpt.errors import UserError, about
from instructgpt.identity import RUNS, flat, is_path
from instructgpt.paths import from_shell, resolve
from instructgpt.ranges import FolderPath
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import find, recipe
from instructgpt.stages.blocks import build, check_config, kind_of

SEED = "seed"  # the one key outside of a block that can be swept
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}
_ORIGINS = ("data.dir", "data.jsonl", "data.tokenizer")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What is run, and with which values."""

    # The stage that is run for each value; or several, with commas and in their order,
    # each of which reads what the ones before it have made for the same value.
    stage: str = ""
    # The key that is set, such as ppo.kl_coef. With commas: keys that are set together.
    # A key of an earlier stage has that stage's name before it.
    key: str = ""
    # The values, with commas, or with semicolons where a value itself has commas.
    # Values of keys that are set together have slashes between them: 1/64,2/128.
    grid: str = ""
    recipe: FolderPath = "../.."  # the workdir of a finished recipe
    measured: str = ""  # names of the stages that are measured; "": the last
    axis: str = ""  # what the figure calls the values; "": the keys


class Point(NamedTuple):
    """One value of a sweep: what it sets, and its folder."""

    text: str  # as it was given
    values: Mapping[tuple[str, str], Any]  # (stage, flat key) -> value

    @property
    def folder(self) -> str:
        """The name of the value's folder."""
        return re.sub(r"[^\w.,+-]", "_", self.text)


class Sweep(NamedTuple):
    """A sweep whose values have been read and checked."""

    settings: SweepConfig
    chain: tuple[str, ...]  # names of the stages that are run
    measured: tuple[str, ...]  # names of those that are measured
    points: tuple[Point, ...]
    recipe: Path
    workdir: Path
    reward: Path | None  # the reward model that is given in place of the recipe's

    @property
    def axis(self) -> str:
        """What the values are called."""
        return self.settings.axis or self.settings.key

    def folder(self, point: Point) -> Path:
        """The folder of a value, in which each of its stages has a workdir."""
        return self.workdir / RUNS / point.folder

    def source(self, name: str, point: Point | None = None) -> Path:
        """The workdir of a stage: the value's own if it makes one, or the recipe's."""
        own = point is not None and name in self.chain
        return (self.folder(point) if own and point else self.recipe) / name


def read_sweep(config: ConfigDict, workdir: Path) -> Sweep:
    """Reads the values of a sweep and checks the config of each of its runs.

    Args:
      config: The sweep's config.
      workdir: The sweep's workdir, absolute.

    Raises:
      UserError: a stage or a key does not exist, a value is of the wrong type or out of
        its range, two values are the same, or a run's blocks contradict each other.
    """
    settings = build(SweepConfig, config.sweep, where="config.sweep")
    chain = _chain(config, settings)
    measured = _names(settings.measured) or chain[-1:]
    for name in measured:
        if name not in chain:
            raise UserError(
                f"config.sweep.measured: {name!r} is not in config.sweep.stage="
                f"{settings.stage!r}"
            )
    keys = [_find_key(config, chain, key) for key in _names(settings.key)]
    if len(set(keys)) < len(keys):
        raise UserError(f"config.sweep.key={settings.key!r} names a key twice")
    if not keys:
        raise UserError(
            "config.sweep.key is empty; name a key of the stage, such as ppo.kl_coef"
        )
    points = _points(config, settings, keys)
    found = Path(resolve(settings.recipe, workdir))
    given = config.reward_model
    reward = Path(resolve(given, workdir)) if given else None
    sweep = Sweep(settings, chain, measured, points, found, workdir, reward)
    for point in points:
        run = point_config(config, sweep, point)
        for name in chain:
            stage = recipe.stage_config(run, name)
            what = f"config.sweep.grid, at {point.text}"
            with about(what), recipe.recipe_keys(name, stage, ()):
                mesh = build(MeshConfig, stage.mesh, where="config.mesh")
                check_config(stage, make_mesh(mesh))
    return sweep


def point_config(config: ConfigDict, sweep: Sweep, point: Point) -> ConfigDict:
    """The config of a value's runs: a recipe of the sweep's stages.

    Its paths lead from the value's folders to the finished recipe.
    """
    run = ConfigDict(dict(stage="recipe", name=f"{config.name} {point.text}"))
    run.update(seed=config.seed, world_seed=config.world_seed, reward_model="")
    run.update(trackers=config.trackers, order=sweep.chain, together=())
    run.stages = {}
    for name in sweep.chain:
        stage = recipe.stage_config(config, name)
        moved = _moved(stage, name, sweep, sweep.folder(point) / name)
        stage.update_from_flattened_dict(moved)
        run.stages[name] = stage
    for (name, key), value in point.values.items():
        if key == SEED:
            run.seed = value
        else:
            run.stages[name].update_from_flattened_dict({key: value})
    return run


def data_block(config: ConfigDict, sweep: Sweep) -> ConfigDict:
    """The block `data` of the last stage, with paths that count from the sweep."""
    name = sweep.chain[-1]
    stage = recipe.stage_config(config, name)
    moved = _moved(stage, name, sweep, sweep.workdir)
    stage.update_from_flattened_dict({k: moved[k] for k in _ORIGINS if k in moved})
    return stage.data


def _moved(
    stage: ConfigDict, name: str, sweep: Sweep, here: Path
) -> dict[str, str | tuple[str, ...]]:
    """The stage's paths, which count from the recipe, as they are from here."""

    def move(path: str) -> str:
        if not path or os.path.isabs(path) or "://" in path:
            return path
        target = Path(resolve(path, sweep.recipe / name))
        if target.parent == sweep.recipe and target.name in sweep.chain:
            return f"../{target.name}"
        absolute = os.path.isabs(sweep.settings.recipe)
        return str(target) if absolute else os.path.relpath(target, here)

    out: dict[str, str | tuple[str, ...]] = {}
    for key, value in flat(stage.to_dict()).items():
        if is_path(key) and value:
            several = isinstance(value, list)
            out[key] = tuple(map(move, value)) if several else move(value)
    return out


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def _chain(config: ConfigDict, settings: SweepConfig) -> tuple[str, ...]:
    """The stages of a sweep, each of which must train a model."""
    trained = [
        n for n in config.stages if "train" in find(config.stages[n].stage).blocks
    ]
    chain = _names(settings.stage)
    for name in chain:
        if name not in trained:
            raise UserError(
                f"config.sweep.stage: {name!r} is no stage that trains a model; give "
                f"one of {', '.join(trained)}"
            )
    if not chain or len(set(chain)) < len(chain):
        raise UserError(
            f"config.sweep.stage={settings.stage!r}: name each stage once, at least "
            f"one of {', '.join(trained)}"
        )
    return chain


def _find_key(config: ConfigDict, chain: Sequence[str], key: str) -> tuple[str, str]:
    """The stage and the flat key that a key of the sweep names.

    Raises:
      UserError: there is no such key, or it is not the stage's own.
    """
    if key == SEED:
        return chain[-1], key
    name, own = chain[-1], key
    known = flat(config.stages[name].to_dict())
    first, _, rest = key.partition(".")
    if key not in known and first in chain:
        name, own = first, rest
        known = flat(config.stages[name].to_dict())
    if own == "data.world_seed":
        raise UserError(
            "config.sweep.key=data.world_seed: the recipe's models know one world; run "
            "the recipe with another --config.world_seed"
        )
    can = [k for k in known if "." in k]
    if own not in can:
        near = difflib.get_close_matches(own, can, n=1, cutoff=0.5)
        raise UserError(
            f"config.sweep.key: the stage {name} has no key {own!r}; "
            + (f"did you mean {near[0]!r}?" if near else "give such as ppo.kl_coef")
        )
    return name, own


def _points(
    config: ConfigDict, settings: SweepConfig, keys: Sequence[tuple[str, str]]
) -> tuple[Point, ...]:
    split = ";" if ";" in settings.grid else ","
    texts = [text.strip() for text in settings.grid.split(split) if text.strip()]
    if not texts:
        raise UserError(
            "config.sweep.grid is empty; give values with commas between them"
        )
    points: list[Point] = []
    for text in texts:
        parts = text.split("/") if len(keys) > 1 else [text]
        if len(parts) != len(keys):
            raise UserError(
                f"config.sweep.grid: {text!r} has {len(parts)} parts, and "
                f"config.sweep.key={settings.key} names {len(keys)} keys; give a part "
                "for each, with slashes between them"
            )
        values = {
            key: _value(config, *key, part.strip())
            for key, part in zip(keys, parts, strict=True)
        }
        for other in points:
            if other.values == values or other.folder == Point(text, values).folder:
                raise UserError(
                    f"config.sweep.grid: {other.text!r} and {text!r} are the same; "
                    "give each value once"
                )
        if any(key == SEED and value < 0 for (_, key), value in values.items()):
            raise UserError(f"config.sweep.grid: seed {text}; give 0 or more")
        points.append(Point(text, values))
    return tuple(points)


def _value(config: ConfigDict, name: str, key: str, text: str) -> Any:
    """The value that a text stands for, in the type of its key.

    Raises:
      UserError: the text is no such value.
    """
    kind: type = int
    if key != SEED:
        block, _, field = key.partition(".")
        cls = find(config.stages[name].stage).classes()[block]
        kind = kind_of(typing.get_type_hints(cls)[field])
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is tuple:
            return tuple(ast.literal_eval(text))
        if kind is str:
            return from_shell(text) if is_path(key) else text
        return kind(text)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        words = _WORDS.get(kind, "several values with commas between them")
        raise UserError(
            f"config.sweep.grid: {text!r} is not {words}, which "
            f"config.stages.{name}.{key} must be"
        ) from error
