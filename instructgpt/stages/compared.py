"""The models that the evaluate stage compares: their names and their checkpoints."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from instructgpt import trained
from instructgpt.data.templates import PromptFormat
from instructgpt.errors import UserError
from instructgpt.identity import read_json
from instructgpt.named import find_function, is_named
from instructgpt.paths import labelled, resolve
from instructgpt.ranges import NonNegativeFloat
from instructgpt.stages import common, loading

PREFIX = "prefix.json"  # what a prefix stage leaves
Answer = Callable[[Sequence[str]], Sequence[str]]  # texts -> their completions


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One model of the comparison."""

    label: str
    init: ConfigDict  # InitConfig
    temperature: NonNegativeFloat = 1.0
    # Whether solved examples precede the prompt; the answer then ends at a newline.
    prompted: bool = False
    # A prefix stage's workdir, whose chosen examples they are; "": the data's own.
    prefix: str = ""


def build_entries(config: ConfigDict, models: str) -> dict[str, ModelEntry]:
    """Builds the entries of the compared models, by key.

    Args:
      config: The stage's config.
      models: `config.evaluate.models`. If it names some, they replace `config.models`,
        and a policy is its average where it has one.
    """
    if models:
        named = labelled(models)
        inits = {
            k: common.filled(loading.InitConfig, path=p, part="")
            for k, p in named.items()
        }
        return {name: ModelEntry(label=name, init=init) for name, init in inits.items()}
    return {
        name: common.build(ModelEntry, block, where=f"config.models.{name}")
        for name, block in config.models.items()
    }


def check_entries(
    config: ConfigDict, models: str, *, baseline: str
) -> dict[str, ModelEntry]:
    """`build_entries`; raises UserError if the baseline is not among them."""
    entries = build_entries(config, models)
    if baseline not in entries:
        raise UserError(
            f"config.evaluate.baseline={baseline!r} is not among the "
            f"models: {sorted(entries)}"
        )
    return entries


def entry_init(entry: ModelEntry, name: str) -> loading.InitConfig:
    """The checkpoint of a model of the comparison."""
    where = f"config.models.{name}.init"
    return common.build(loading.InitConfig, entry.init, where=where)


def find_functions(entries: Mapping[str, ModelEntry]) -> dict[str, Answer]:
    """The models that are functions, `module:function`, by name.

    Raises:
      UserError: there is no such function.
    """
    found = {}
    for name, entry in entries.items():
        path = entry_init(entry, name).path
        if is_named(path) and not os.path.exists(path):
            found[name] = find_function(
                path, where=f"model {name}", example="my_models:answer"
            )
    return found


def prompt_format_of(init: loading.InitConfig) -> PromptFormat:
    """The tokenizer and the template of a language model, by its absolute path.

    Raises:
      UserError: there is no such model, it has no tokenizer, or it is a reward model.
    """
    path = Path(init.path)
    with trained.opened(path, step=step_of(init)) as found:
        if found.meta["kind"] != "language":
            raise UserError(
                f"{path} holds a {found.meta['kind']} model; name a language model"
            )
        return trained.read_text_format(found).prompt_format


def step_of(init: loading.InitConfig) -> int | None:
    """The step to load: what a select stage chose, a given one, or None: the newest."""
    if init.selected_by:
        chosen = loading.read_selected(Path(init.selected_by) / "selected.json")
        return int(chosen["step"])
    return init.step or None


def fill(template: str, prompt: str) -> str:
    """A template with a prompt in the place of {prompt}."""
    return template.replace("{prompt}", prompt)


def examples_of(
    entry: ModelEntry, context: common.Context
) -> Callable[[str], str] | None:
    """The function that adds solved examples before a prompt of an entry.

    Returns:
      The function; None if the entry is not prompted, or there are no examples.

    Raises:
      UserError: the entry names a prefix stage that has not been run.
    """
    if not entry.prompted:
        return None
    if not entry.prefix:
        return context.data.few_shot
    path = Path(resolve(entry.prefix, context.workdir)) / PREFIX
    template = read_json(path, remedy="run the prefix stage first")["template"]
    return functools.partial(fill, template) if template else None
