"""A model from another stage's checkpoint, and what a checkpoint says of its model."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from instructgpt import trained
from instructgpt.data.datasets import Datasets
from instructgpt.errors import UserError
from instructgpt.identity import read_json
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.models.config import ModelConfig
from instructgpt.paths import resolve
from instructgpt.ranges import FolderPath, NonNegativeInt
from instructgpt.stages.common import Context, check_model, model_config
from instructgpt.trained import Loaded, Opened, TextFormat, check_made_alike


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Which checkpoint a model comes from."""

    path: FolderPath  # a finished stage's workdir
    step: NonNegativeInt = 0  # 0: the newest, of a finished stage
    part: str = "params"  # or "ema", the average of a PPO policy
    selected_by: str = ""  # a select stage's workdir whose choice of step counts


@dataclasses.dataclass(frozen=True)
class OptionalInitConfig(InitConfig):
    """As InitConfig; without a path the stage has a model of its own for it."""

    path: str = ""


@contextlib.contextmanager
def _opened(
    init: InitConfig,
    context: Context,
    *,
    scalar: bool | None = False,
    overrides: ConfigDict | None = None,
) -> Iterator[tuple[Opened, ModelConfig]]:
    """The checkpoint of `load` with its model's config, checked."""
    path = Path(resolve(init.path, context.workdir))
    step = selected_step(init, context) or init.step or None
    with trained.opened(path, step=step, verify=context.verify) as found:
        check_made_alike(path, found.meta, made_with(context.data))
        changed = overrides.to_dict() if overrides else {}
        config = model_config({**found.meta["model"], **changed}, context.mesh)
        check_model(context, config)
        if scalar is not None and scalar != (found.meta["kind"] == "scalar"):
            raise UserError(
                f"{path} holds a {found.meta['kind']} model; this stage needs a "
                f"{'scalar' if scalar else 'language'} one, see config's init paths"
            )
        yield found, config


def find(init: InitConfig, context: Context, **how: Any) -> ModelConfig:
    """Looks for a model that a stage loads later; arguments and errors of `load`."""
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
      init: Which checkpoint.
      context: The stage that loads.
      scalar: Whether it must be a reward model (or value net); None: either will do.
      overrides: Keys of ModelConfig that this stage changes: dropout, dtype, remat.

    Raises:
      UserError: there is no such checkpoint, its model is of another kind or does not
        fit the data, or its parameters are not finite.
    """
    how: dict[str, Any] = {"scalar": scalar, "overrides": overrides}
    with _opened(init, context, **how) as (found, config):
        part = "params" if found.meta["kind"] == "scalar" else init.part
        return found.restore(config, part=part, mesh=context.mesh)


def text_format(context: Context) -> TextFormat:
    """How a stage puts text to models: by its data's tokenizer, template and limits."""
    limits = context.data_config
    return TextFormat(
        context.data.prompt_format, limits.max_prompt, limits.max_response
    )


def language_model(init: InitConfig, context: Context) -> LanguageModel:
    """A language model to be asked; errors as of `load`."""
    loaded = load(init, context)
    return LanguageModel.from_loaded(loaded, text_format(context), context.mesh)


def reward_model(init: InitConfig, context: Context) -> RewardModel:
    """A reward model that scores text; errors as of `load`."""
    loaded = load(init, context, scalar=True)
    return RewardModel.from_loaded(loaded, text_format(context), context.mesh)


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
    return trained.checkpoint_steps(Path(resolve(path, context.workdir)))
