"""A model from another stage's checkpoint, and what a checkpoint says of its model."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flax import linen as nn
from ml_collections import ConfigDict

from instructgpt.checkpoints import Checkpoints, open_checkpoint
from instructgpt.data.datasets import Datasets
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.paths import resolve
from instructgpt.ranges import FolderPath, NonNegativeInt
from instructgpt.stages.common import Context, check_model, model_config
from instructgpt.stages.identity import (
    IDENTITY,
    finished_steps,
    is_finished,
    read_json,
)
from instructgpt.state import check_same_shapes, params_layout

Params = Any


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Which checkpoint a model comes from."""

    path: FolderPath  # a finished stage's workdir
    step: NonNegativeInt = 0  # 0: the newest, of a finished stage
    part: str = "params"  # or "ema", the average of a PPO policy
    selected_by: str = ""  # a select stage's workdir whose choice of step counts


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
    path = Path(resolve(init.path, context.workdir))
    step = selected_step(init, context) or init.step or None
    if step is None and (path / IDENTITY).exists() and not is_finished(path):
        raise UserError(
            f"{path} is not finished: start that stage again and let it run to its end"
        )
    checkpoints, step = open_checkpoint(path, step=step, verify=context.verify)
    try:
        meta = checkpoints.meta(step)
        check_made_alike(path, meta, made_with(context.data))
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


def check_made_alike(
    path: str | Path, meta: dict[str, Any], here: dict[str, Any]
) -> None:
    """Raises UserError if a model was made with what a stage that loads it has not.

    Args:
      path: Of the model's stage.
      meta: What its checkpoint says.
      here: `made_with` of the stage that loads it.
    """
    made = meta.get("made_with")
    if made is None:
        return  # imported, or made by hand
    if made["tokenizer"] != here["tokenizer"]:
        raise UserError(
            f"{path}: the model was trained with another tokenizer than this stage's, "
            "config.data.tokenizer; give both the same, from the same data"
        )
    if meta["templated"] and made["template"] != here["template"]:
        raise UserError(
            f"{path}: the model was trained with config.data.template="
            f"{made['template']!r}, and this stage has {here['template']!r}; give both "
            "the same"
        )
    there, own = made["held_out"], here["held_out"]
    for name in sorted(there.keys() & own.keys()):
        if there[name] != own[name]:
            key = "world_seed" if name == "world" else f"jsonl, {name}"
            raise UserError(
                f"{path}: the model was trained beside other held-out records than "
                f"this stage's (config.data.{key}), so it may have been trained on "
                "these; give both the same data"
            )


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
    return read_json(path, remedy="run the select stage, or run it again, first")


def made_with(data: Datasets) -> dict[str, Any]:
    """What a model that is trained on these data can only be used with."""
    return {
        "tokenizer": data.tokenizer.fingerprint,
        "template": data.prompt_format.template,
        "held_out": data.held_out,
    }


def model_meta(
    model: nn.Module,
    *,
    kind: str,
    context: Context | None = None,
    templated: bool = True,
) -> dict[str, Any]:
    """What a checkpoint says of its model.

    Args:
      model: Its module.
      kind: language or scalar.
      context: The stage that trains it; None of a model that no stage has trained.
      templated: Whether it was trained on prompts in the stage's template.
    """
    meta: dict[str, Any] = {"model": dataclasses.asdict(model.config), "kind": kind}
    if context is not None:
        meta["templated"] = templated
        meta["made_with"] = made_with(context.data)
        meta["identity"] = context.identity.digest
    return meta


def checkpoint_steps(path: str, context: Context) -> list[int]:
    """Steps of the checkpoints that another stage has left, in order.

    Raises:
      UserError: there are none, or the stage is not finished.
    """
    workdir = Path(resolve(path, context.workdir))
    if (workdir / IDENTITY).exists() and not is_finished(workdir):
        raise UserError(
            f"{workdir} is not finished: start that stage again, and let it run to its "
            "end"
        )
    left = finished_steps(workdir)
    if left:
        return left
    checkpoints, _ = open_checkpoint(workdir)
    try:
        return checkpoints.steps
    finally:
        checkpoints.close()
