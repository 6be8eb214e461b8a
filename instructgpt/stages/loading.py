"""Loads models of other stages' checkpoints, and describes models in checkpoints."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from instructgpt import trained
from instructgpt.checkpoints import open_checkpoint
from instructgpt.data.datasets import Datasets
from instructgpt.errors import UserError, about
from instructgpt.identity import read_json
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.models.config import ModelConfig
from instructgpt.paths import resolve
from instructgpt.ranges import FolderPath, NonNegativeInt
from instructgpt.stages.common import Context, check_model, model_config
from instructgpt.trained import Loaded, Opened, TextFormat, check_made_alike


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """The checkpoint that a model comes from."""

    path: FolderPath  # a finished stage's workdir
    step: NonNegativeInt = 0  # 0: the newest, of a finished stage
    part: str = "params"  # part of the checkpoint; "ema" is a PPO policy's average
    selected_by: str = ""  # a select stage's workdir, whose chosen step is used


@dataclasses.dataclass(frozen=True)
class OptionalInitConfig(InitConfig):
    """An InitConfig whose path may be empty; the stage then uses a default model."""

    path: str = ""


@contextlib.contextmanager
def _opened(
    init: InitConfig,
    context: Context,
    *,
    scalar: bool | None = False,
    overrides: ConfigDict | None = None,
) -> Iterator[tuple[Opened, ModelConfig]]:
    """Opens the checkpoint for `load`, and checks its model's config."""
    path = Path(resolve(init.path, context.workdir))
    _check_there(init, context)
    step = selected_step(init, context) or init.step or None
    with trained.opened(path, step=step, verify=context.verify) as found:
        check_made_alike(path, found.meta, made_with(context.data))
        changed = overrides.to_dict() if overrides else {}
        config = model_config({**found.meta["model"], **changed}, context.mesh)
        check_model(context, config)
        if scalar is not None and scalar != (found.meta["kind"] == "scalar"):
            raise UserError(
                f"{path} holds a {found.meta['kind']} model; this stage needs a "
                f"{'scalar' if scalar else 'language'} one"
            )
        if init.part == "value" and found.meta["kind"] != "scalar":
            raise UserError(
                f"part='value' of {path} is a value net, which has another head than "
                "its model; give 'params' or 'ema', or the workdir of a reward model"
            )
        names = found.checkpoints.part_names(found.step)
        if found.part(init.part) not in names:
            raise UserError(
                f"{path} has no part {init.part!r}; give one of {', '.join(names)}"
            )
        yield found, config


def _check_there(init: InitConfig, context: Context) -> None:
    """Raises UserError, which says how the path is read, if it has no checkpoints."""
    path = Path(resolve(init.path, context.workdir))
    if (path / "checkpoints").exists():
        return
    where = f", which counts from this stage's workdir, {context.workdir}"
    with about(f"path={init.path!r}{'' if Path(init.path).is_absolute() else where}"):
        open_checkpoint(path)


def find(init: InitConfig, context: Context, **how: Any) -> ModelConfig:
    """Checks a model that a stage loads later; see `load` for arguments and errors."""
    with _opened(init, context, **how) as (_, config):
        return config


def load(
    init: InitConfig,
    context: Context,
    *,
    scalar: bool | None = False,
    overrides: ConfigDict | None = None,
) -> Loaded:
    """Loads a model from another stage's checkpoint.

    Args:
      init: The checkpoint.
      context: The opened stage that loads the model.
      scalar: Whether it must be a reward model (or value net); None: either kind.
      overrides: Fields of ModelConfig that this stage changes: dropout, dtype, remat.

    Raises:
      UserError: there is no such checkpoint, its model is of another kind or does not
        fit the data, or its parameters are not finite.
    """
    how: dict[str, Any] = {"scalar": scalar, "overrides": overrides}
    with _opened(init, context, **how) as (found, config):
        return found.restore(config, part=found.part(init.part), mesh=context.mesh)


def text_format(context: Context) -> TextFormat:
    """The text format of a stage: its data's tokenizer, template and limits."""
    limits = context.data_config
    return TextFormat(
        context.data.prompt_format, limits.max_prompt, limits.max_response
    )


def language_model(init: InitConfig, context: Context) -> LanguageModel:
    """Loads a language model that works on text; see `load` for errors."""
    loaded = load(init, context)
    return LanguageModel.from_loaded(loaded, text_format(context), context.mesh)


def reward_model(init: InitConfig, context: Context) -> RewardModel:
    """Loads a reward model that works on text; see `load` for errors."""
    loaded = load(init, context, scalar=True)
    return RewardModel.from_loaded(loaded, text_format(context), context.mesh)


def selected_step(init: InitConfig, context: Context) -> int | None:
    """The step that a select stage chose; None if the init names no such stage."""
    if not init.selected_by:
        return None
    path = Path(resolve(init.selected_by, context.workdir)) / "selected.json"
    return read_selected(path)["step"]


def read_selected(path: Path) -> dict[str, Any]:
    """Reads a select stage's result: the chosen `step`, and each epoch's scores."""
    return read_json(path, remedy="run the select stage, or run it again, first")


def made_with(data: Datasets) -> dict[str, Any]:
    """The text settings of a model trained on these data; its users must share them."""
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
    """The entries of a checkpoint's `meta` about its model.

    Args:
      model: The model's module.
      kind: "language" or "scalar".
      context: The stage that trains the model; None if no stage has trained it.
      templated: Whether it was trained on prompts in the stage's template.
    """
    meta: dict[str, Any] = {"model": dataclasses.asdict(model.config), "kind": kind}
    if context is not None:
        meta["templated"] = templated
        meta["made_with"] = made_with(context.data)
        meta["identity"] = context.identity.digest
    return meta


def checkpoint_steps(path: str, context: Context) -> list[int]:
    """Steps of the checkpoints of another stage, in order.

    Raises:
      UserError: there are no checkpoints, or the stage is not finished.
    """
    return trained.checkpoint_steps(Path(resolve(path, context.workdir)))
