"""What every stage does first: check the config, open the workdir, mesh and data.

A ConfigDict stops here: below, only frozen dataclasses and keyword arguments.
Relative paths in a config are relative to the stage's workdir, so that a recipe's
folders can be moved as a whole.
"""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.checkpoints import Checkpoints, open_checkpoint
from instructgpt.data.datasets import DataConfig, Datasets, open_datasets
from instructgpt.data.documents import TokenWindows
from instructgpt.distributed import first_then_others, is_first
from instructgpt.errors import UserError
from instructgpt.loop import LoopConfig
from instructgpt.models.config import ModelConfig, for_devices
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.outputs import new_file
from instructgpt.ranges import Every, NonNegativeInt, PositiveInt, check_integers
from instructgpt.sharding import MeshConfig, check_divides, make_mesh, put_batch
from instructgpt.state import check_same_shapes, params_layout
from instructgpt.tokenizer import check_tokenizer

T = TypeVar("T")
Params = Any

# Keys that may differ when a run is started again in the same workdir. A checkpoint
# fits any mesh, so that a run can go on with other devices.
_FREE_KEYS = (
    *("train.log_every", "train.eval_every", "train.keep", "data.dir"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor"),
)


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Which checkpoint a model comes from."""

    path: str  # a finished stage's workdir
    step: NonNegativeInt = 0  # 0: the newest
    part: str = "params"  # or "ema", the average of a PPO policy
    selected_by: str = ""  # a select stage's workdir whose choice of step counts


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

    def loop(self, steps_per_epoch: int) -> LoopConfig:
        """In steps."""

        def every(value: int) -> int:
            return steps_per_epoch if value == -1 else value

        return LoopConfig(
            num_steps=self.num_steps or self.num_epochs * steps_per_epoch,
            log_every=every(self.log_every),
            eval_every=every(self.eval_every),
            checkpoint_every=every(self.checkpoint_every),
            keep=self.keep,
        )


class Context(NamedTuple):
    """An opened stage."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    key: jax.Array
    data: Datasets
    data_config: DataConfig


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
    check_integers(cls, values, where=where)
    return cls(**values)


def start(config: ConfigDict, workdir: str | os.PathLike[str]) -> Context:
    """Checks what can be checked before any long work, and opens the stage."""
    workdir = Path(workdir).absolute()
    if config.seed < 0:
        raise UserError(f"config.seed={config.seed}: give a whole number, 0 or more")
    mesh = make_mesh(build(MeshConfig, config.mesh, where="config.mesh"))
    data_config = build(DataConfig, config.data, where="config.data")
    if "train" in config:
        check_train(build(TrainConfig, config.train, where="config.train"), mesh)
    workdir.mkdir(parents=True, exist_ok=True)
    first_then_others(lambda: _same_config(config, workdir / "config.json"))
    given = data_config.tokenizer
    data_config = dataclasses.replace(
        data_config,
        dir=resolve(data_config.dir, workdir),
        tokenizer=resolve(given, workdir) if given else "",
    )
    data = first_then_others(lambda: open_datasets(data_config, log=announce))
    key = jax.random.key(config.seed)
    return Context(config, workdir, mesh, key, data, data_config)


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


def _same_config(config: ConfigDict, path: Path) -> None:
    """Writes config.json, or checks that the run in this workdir is the same one."""
    new = _flat(config.to_dict())
    # A run that was refused left its config alone, which may be corrected.
    if path.exists() and any(other != path for other in path.parent.iterdir()):
        old = _flat(json.loads(path.read_text()))
        changed = [
            f"{k}: {old.get(k, 'unset')} -> {new.get(k, 'unset')}"
            for k in sorted(old.keys() | new.keys())
            if old.get(k) != new.get(k) and k not in _FREE_KEYS
        ]
        if changed:
            raise UserError(
                f"{path.parent} holds a run with another config; changed: "
                f"{'; '.join(changed)}. Use another --workdir, or delete this one"
            )
        return
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    partial.replace(path)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out


def resolve(path: str, workdir: Path) -> str:
    """A path of the config: absolute and URLs as they are, else under the workdir."""
    if "://" in path:
        return path
    return os.path.normpath(workdir / Path(path).expanduser())


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


class Loaded(NamedTuple):
    """A model and its parameters on the mesh."""

    model: Any
    params: Params
    step: int
    source: str  # its checkpoint, for messages


@contextlib.contextmanager
def _opened(
    init: InitConfig,
    context: Context,
    *,
    scalar: bool = False,
    overrides: ConfigDict | None = None,
) -> Iterator[tuple[Checkpoints, int, ModelConfig]]:
    """The checkpoint of `load`, with its step and the model's config, checked."""
    path = resolve(init.path, context.workdir)
    step = selected_step(init, context) or init.step or None
    checkpoints, step = open_checkpoint(path, step=step)
    try:
        meta = checkpoints.meta(step)
        values = {**meta["model"], **(overrides.to_dict() if overrides else {})}
        config = model_config(values, context.mesh)
        check_model(context, config)
        if scalar != (meta["kind"] == "scalar"):
            raise UserError(
                f"{path} holds a {meta['kind']} model; this stage needs a "
                f"{'scalar' if scalar else 'language'} one, see config's init paths"
            )
        yield checkpoints, step, config
    finally:
        checkpoints.close()


def find(init: InitConfig, context: Context, **how: Any) -> ModelConfig:
    """Looks for a model that a stage loads later; arguments and errors of `load`."""
    with _opened(init, context, **how) as (_, _, config):
        return config


def load(
    init: InitConfig,
    context: Context,
    *,
    scalar: bool = False,
    overrides: ConfigDict | None = None,
) -> Loaded:
    """Loads a model from another stage's checkpoint.

    Args:
      init: Which checkpoint.
      context: The stage that loads.
      scalar: Whether it is a reward model (or value net).
      overrides: Keys of ModelConfig that this stage changes: dropout, dtype, remat.

    Raises:
      UserError: there is no such checkpoint, its model is of another kind or does not
        fit the data, or its parameters are not finite.
    """
    opened = _opened(init, context, scalar=scalar, overrides=overrides)
    with opened as (checkpoints, step, config):
        model = ScalarModel(config) if scalar else Transformer(config)
        part = "params" if scalar else init.part
        layout = params_layout(model, context.mesh)
        parts, _ = checkpoints.restore(step, {part: layout})
        check_same_shapes(parts[part], layout)
        source = str(checkpoints.directory / str(step))
        return Loaded(model, parts[part], step, source)


def selected_step(init: InitConfig, context: Context) -> int | None:
    """The step a select stage chose, if the init follows one."""
    if not init.selected_by:
        return None
    path = Path(resolve(init.selected_by, context.workdir)) / "selected.json"
    return read_selected(path)["step"]


def read_selected(path: Path) -> dict[str, Any]:
    """What a select stage chose: `step`, and of each epoch what it found."""
    if not path.exists():
        raise UserError(f"{path} is not there; run the select stage first")
    return json.loads(path.read_text())


def model_meta(model: nn.Module, *, kind: str) -> dict[str, Any]:
    """What a checkpoint says of its model."""
    return {"model": dataclasses.asdict(model.config), "kind": kind}


def to_device(mesh: Mesh) -> Callable[[Any], Any]:
    """Moves a batch of this process to its devices."""
    return lambda batch: put_batch(batch, mesh)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, on process 0, so that a kill leaves the old file or the new one."""
    if not is_first():
        return
    with new_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def count_valid(batch: Any) -> int:
    """Real tokens of a TokenBatch on the host."""
    return int(batch.valid.sum())


def checkpoint_steps(path: str, context: Context) -> list[int]:
    """Steps of the checkpoints of another stage, in order."""
    checkpoints, _ = open_checkpoint(resolve(path, context.workdir))
    try:
        return checkpoints.steps
    finally:
        checkpoints.close()
