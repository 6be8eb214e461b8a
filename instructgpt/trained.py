"""Opens trained models: the checkpoint, the tokenizer and the lengths of a workdir.

A workdir is the folder of a stage, or of an imported public model. The stages and
`inference/` open models with this module.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from instructgpt.arrays import Params
from instructgpt.checkpoints import Checkpoints, Verify, open_checkpoint
from instructgpt.data.datasets import DataConfig, open_prompt_format
from instructgpt.data.templates import PromptFormat
from instructgpt.errors import UserError
from instructgpt.identity import (
    CONFIG,
    IDENTITY,
    Identity,
    finished_steps,
    flat,
    is_finished,
    read_json,
)
from instructgpt.models.config import ModelConfig, for_devices
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.paths import resolve
from instructgpt.ranges import check_values
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.state import check_same_shapes, params_layout
from instructgpt.tokenizer import check_tokenizer, load_tokenizer

_RESPONSE = 256  # default limit of a response in tokens, for an imported model


class Loaded(NamedTuple):
    """A model and its parameters on the mesh."""

    model: Any
    params: Params
    step: int
    source: str  # the checkpoint's path, for messages
    weights: str = ""  # checksum of the checkpoint's arrays


class Opened(NamedTuple):
    """A checkpoint of which only `meta` has been read."""

    workdir: Path
    checkpoints: Checkpoints
    step: int
    meta: dict[str, Any]

    @property
    def source(self) -> str:
        """The checkpoint's folder, for messages."""
        return str(self.checkpoints.directory / str(self.step))

    def part(self, wanted: str) -> str:
        """The name of the part to load; "" means "ema" if it exists, else "params".

        A reward model has only the part "params".
        """
        if self.meta["kind"] == "scalar":
            return "params"
        names = self.checkpoints.part_names(self.step)
        return wanted or ("ema" if "ema" in names else "params")

    def restore(self, config: ModelConfig, *, part: str, mesh: Mesh) -> Loaded:
        """Reads the model's parameters onto a mesh.

        Raises:
          UserError: there is no such part, or it is damaged, does not fit the model or
            is not finite.
        """
        scalar = self.meta["kind"] == "scalar"
        model = ScalarModel(config) if scalar else Transformer(config)
        layout = params_layout(model, mesh)
        parts, _ = self.checkpoints.restore(self.step, {part: layout})
        check_same_shapes(parts[part], layout)
        weights = self.checkpoints.weights(self.step)
        return Loaded(
            model, parts[part], self.step, self.source, f"{part} of {weights}"
        )


@contextlib.contextmanager
def opened(
    workdir: Path, *, step: int | None = None, verify: Verify = "files"
) -> Iterator[Opened]:
    """Opens a checkpoint that a stage or an import has left.

    Args:
      workdir: The workdir, an absolute path.
      step: Step of the checkpoint; None is the newest one, of a finished stage.
      verify: What is compared with checksums, see Checkpoints.

    Raises:
      UserError: there is no such checkpoint, or the stage has not finished.
    """
    if step is None:
        _check_finished(workdir)
    checkpoints, step = open_checkpoint(workdir, step=step, verify=verify)
    try:
        yield Opened(workdir, checkpoints, step, checkpoints.meta(step))
    finally:
        checkpoints.close()


def check_made_alike(
    path: str | Path, meta: dict[str, Any], here: dict[str, Any]
) -> None:
    """Raises UserError if a model was trained with other text settings than a stage's.

    Args:
      path: The workdir of the model's stage.
      meta: The `meta` of the model's checkpoint.
      here: The tokenizer, the template and the held-out data of the stage that loads
        it, in the form that `stages/loading.py` writes into a checkpoint.
    """
    made = meta.get("made_with")
    if made is None:
        return  # the model was imported or made by hand
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


def checkpoint_steps(workdir: Path) -> list[int]:
    """Steps of the checkpoints in a finished stage's or an import's workdir, in order.

    Raises:
      UserError: there are no checkpoints, or the stage is not finished.
    """
    _check_finished(workdir)
    left = finished_steps(workdir)
    if left:
        return left
    checkpoints, _ = open_checkpoint(workdir)
    try:
        return checkpoints.steps
    finally:
        checkpoints.close()


def _check_finished(workdir: Path) -> None:
    """Raises UserError if the stage of a workdir is not finished; an import is."""
    if (workdir / IDENTITY).exists() and not is_finished(workdir):
        raise UserError(
            f"{workdir} is not finished: start that stage again and let it run to its "
            "end"
        )


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How text becomes tokens for a model: tokenizer, template and length limits."""

    prompt_format: PromptFormat
    max_prompt: int  # P, tokens with the template and the dialogue before the prompt
    max_response: int  # R, tokens with the end of text


def read_text_format(
    found: Opened,
    *,
    tokenizer: str = "",
    template: str = "",
    max_prompt: int = 0,
    max_response: int = 0,
) -> TextFormat:
    """The text format of a workdir's model, with replacements if they are given.

    The tokenizer, the template and the lengths are those of the stage's config. An
    imported model has its tokenizer beside it, the template "plain", and a response of
    256 tokens or of half its context.

    Args:
      found: The checkpoint.
      tokenizer: A tokenizer's file or folder; "": the workdir's.
      template: A template of data/templates.py; "": the workdir's.
      max_prompt: Tokens of a prompt; 0: the workdir's, -1: all that the context allows.
      max_response: Tokens of a response; 0: the workdir's.

    Raises:
      UserError: the tokenizer is missing or is not the one that the model was trained
        with, or the lengths do not fit the model's context.
    """
    given = _data_of(found.workdir)
    context = int(found.meta["model"]["context_length"])
    if given is None:
        own = found.workdir / "tokenizer"
        if not tokenizer and not own.exists():
            raise UserError(f"{found.workdir} has no tokenizer; name one, tokenizer=")
        prompt_format = PromptFormat(
            load_tokenizer(tokenizer or own), template or "plain"
        )
        response = max_response or min(_RESPONSE, context // 2)
        prompt = max_prompt or -1
    else:
        given = dataclasses.replace(
            given,
            tokenizer=tokenizer or given.tokenizer,
            template=template or given.template,
        )
        prompt_format = open_prompt_format(given)
        response = max_response or given.max_response
        prompt = max_prompt or given.max_prompt
    _check_format(found, prompt_format)
    prompt = context - response if prompt == -1 else prompt
    if max_response < 0 or max_prompt < -1 or response >= context:
        raise UserError(
            f"{found.workdir}: max_prompt={max_prompt}, max_response={max_response}: "
            f"give lengths that fit the model's context of {context} tokens together"
        )
    if prompt + response > context:
        raise UserError(
            f"{found.workdir}: a prompt of {prompt} and a response of {response} "
            f"tokens do not fit the model's context of {context}; shorten them"
        )
    return TextFormat(prompt_format, prompt, response)


def _check_format(found: Opened, prompt_format: PromptFormat) -> None:
    """Raises UserError if the model was not trained with this tokenizer or template."""
    tokenizer, size = prompt_format.tokenizer, found.meta["model"]
    check_tokenizer(
        tokenizer,
        vocab_size=size["vocab_size"],
        padded_vocab_size=size["padded_vocab_size"],
    )
    made = found.meta.get("made_with")
    if made is None:
        return
    if made["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{found.workdir}: the model was trained with another tokenizer than the "
            "one given, or than the one that lies now where its config says; name its "
            "own, tokenizer="
        )
    if found.meta["templated"] and made["template"] != prompt_format.template:
        raise UserError(
            f"{found.workdir}: the model was trained with template="
            f"{made['template']!r}; give that one, not {prompt_format.template!r}"
        )


def _config_of(workdir: Path) -> dict[str, Any]:
    """The flat config of a workdir's stage; empty for an imported model."""
    if not (workdir / CONFIG).exists():
        return {}
    values = flat(read_json(workdir / CONFIG, remedy="name another workdir"))
    # The identity is preferred, as it has a checksum; it lacks the paths and the mesh.
    if (workdir / IDENTITY).exists():
        values |= Identity.read(workdir / IDENTITY).config
    return values


def _block(workdir: Path, cls: type, name: str) -> dict[str, Any] | None:
    """The values of one block of a workdir's config; None if it has no such block."""
    start = f"{name}."
    values = {
        key.removeprefix(start): tuple(value) if isinstance(value, list) else value
        for key, value in _config_of(workdir).items()
        if key.startswith(start)
    }
    if not values:
        return None
    unknown = values.keys() - {field.name for field in dataclasses.fields(cls)}
    if unknown:
        raise UserError(f"{workdir / CONFIG}: {start}{min(unknown)} does not exist")
    check_values(cls, values, where=f"{workdir / CONFIG}: {name}")
    return values


def _data_of(workdir: Path) -> DataConfig | None:
    """The data block of a workdir's config, with resolved paths."""
    values = _block(workdir, DataConfig, "data")
    if values is None:
        return None
    for key in ("dir", "jsonl", "tokenizer"):
        if values.get(key):
            values[key] = resolve(values[key], workdir)
    return DataConfig(**values)


def read_mesh(workdir: Path) -> Mesh:
    """The mesh of the stage that made a workdir.

    If the devices are not those of the stage, and for an imported model, the mesh has
    all devices and each holds the whole model.

    Raises:
      UserError: the config of the workdir is damaged.
    """
    values = _block(workdir, MeshConfig, "mesh")
    with contextlib.suppress(UserError):
        if values is not None:
            return make_mesh(MeshConfig(**values))
    return make_mesh(MeshConfig())


def model_config_of(found: Opened, mesh: Mesh) -> ModelConfig:
    """The config of a checkpoint's model, in dtypes that the mesh's devices have.

    Raises:
      UserError: the config has a field that does not exist.
    """
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = found.meta["model"].keys() - known
    if unknown:
        raise UserError(f"{found.source}: model.{min(unknown)} does not exist")
    tpu = mesh.devices.flat[0].platform == "tpu"
    return for_devices(ModelConfig(**found.meta["model"]), tpu=tpu, log=print)
