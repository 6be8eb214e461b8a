"""Chooses the prefix of the prompted GPT by the reward model (paper §3.6, footnote 6).

The paper's authors wrote prefixes for an hour, and took the one whose answers the
reward model scored highest on validation prompts. Here the candidates are draws of
solved examples of the miniature world, or the blocks of a file. The model without a
prefix stands beside them in the table, and is never the choice.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.distributed import first_then_others, is_first
from instructgpt.errors import UserError, about
from instructgpt.evals.intervals import mean_interval
from instructgpt.evals.report.tables import format_interval
from instructgpt.identity import ANSWERS, read_json
from instructgpt.inference import LanguageModel
from instructgpt.paths import resolve
from instructgpt.progress import print_table
from instructgpt.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from instructgpt.stages import common, loading
from instructgpt.stages.asking import forget_answers, short_prompts
from instructgpt.stages.compared import PREFIX, fill
from instructgpt.stages.programs import Models, Program, asking_programs
from instructgpt.world import World

_PROMPT = "{prompt}"
_BETWEEN = "---"  # the line between two blocks of a file
_NONE = "no prefix"


@dataclasses.dataclass(frozen=True)
class PrefixConfig:
    """The candidates, and the data of the choice."""

    # A text file of prefixes, with {prompt} where the prompt stands and a line of ---
    # between two of them; "": the miniature world's examples.
    file: str = ""
    # In the miniature world: numbers of solved examples, and draws of each number.
    examples: tuple[PositiveInt, ...] = (1, 2, 3)
    draws: PositiveInt = 2
    num_prompts: NonNegativeInt = 100  # number of validation prompts; 0: all
    temperature: NonNegativeFloat = 0.7
    batch_size: PositiveInt = 64


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Scores the answers after every prefix, and writes `prefix.json`."""
    context = common.start(config, workdir)
    settings = common.block_of(config, "prefix", PrefixConfig)
    path = context.workdir / PREFIX
    if not settings.file and context.data.world is None:
        common.announce(
            f"{config.name}: only the miniature world has solved examples, so there is "
            "no prompted model; config.prefix.file gives prefixes of your own"
        )
        common.write_json(path, {"template": "", "candidates": []})
    if not path.exists():
        common.write_json(path, _choose(context, settings))
    forget_answers(context)
    found = read_json(path, remedy="delete it, and run the stage again")
    if is_first() and found["candidates"]:
        cells = [
            [row["name"], format_interval(row["rm_score"]), "*" * row["chosen"]]
            for row in found["candidates"]
        ]
        print_table(cells, ["prefix", "RM score", "chosen"])
    common.finish(context)
    return found


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The programs with which the model answers and the reward model scores."""
    keys = dict(policy="init", reward="reward_init")
    return asking_programs(config, mesh, models, block="prefix", **keys)


def _choose(context: common.Context, settings: PrefixConfig) -> dict[str, Any]:
    """The content of `prefix.json`."""
    init = common.block_of(context.config, "init", loading.InitConfig)
    reward_init = common.block_of(context.config, "reward_init", loading.InitConfig)
    templates = first_then_others(lambda: _templates(context, settings))
    records = short_prompts(context, "valid", count=settings.num_prompts)
    if len(records) < 2:
        raise UserError(
            "config.prefix.num_prompts: one prompt has no interval; give two or more"
        )
    with about("config.reward_init"):
        reward = loading.reward_model(reward_init, context)
    with about("config.init"):
        plain = loading.language_model(init, context)
    models = _with_prefixes(context, plain, templates)
    rows: list[dict[str, Any]] = []
    for number, (name, model) in enumerate(models.items()):
        texts = model.generate(
            records,
            temperature=settings.temperature,
            key=context.key,
            batch_size=settings.batch_size,
            name=name,
            keep=context.workdir / ANSWERS / str(number),
        )
        answers = [text.strip("\n") for (text,) in texts]
        scores = reward.score(records, answers, batch_size=settings.batch_size)
        shown = [
            {"prompt": record["prompt"], "response": answer, "rm_score": float(score)}
            for record, answer, score in zip(records, answers, scores, strict=True)
        ]
        common.write_json(context.workdir / "samples" / f"{number}.json", shown)
        rows.append(
            {
                "name": name,
                "template": templates[name],
                "rm_score": list(mean_interval(scores)),
            }
        )
    candidates = [row for row in rows if row["template"]]
    best = max(candidates, key=lambda row: row["rm_score"][0])
    for row in rows:
        row["chosen"] = row is best
    return {"template": best["template"], "candidates": rows}


def _templates(context: common.Context, settings: PrefixConfig) -> dict[str, str]:
    """The candidates by name, each with {prompt}, after "", which is no prefix.

    Raises:
      UserError: a prefix of the file has no place for the prompt.
    """
    if settings.file:
        found = read_templates(Path(resolve(settings.file, context.workdir)))
    else:
        assert context.data.world is not None
        found = _of_world(context.data.world, settings)
    return {_NONE: "", **found}


def _of_world(world: World, settings: PrefixConfig) -> dict[str, str]:
    """Draws of solved examples. A draw may have fewer short ones than are asked for."""
    found: dict[str, str] = {}
    for draw in range(settings.draws):
        for k in settings.examples:
            template = world.format_prompted(_PROMPT, k, draw=draw)
            if template.count("\nA: ") == k:
                found[f"{k} examples, draw {draw}"] = template
    return found


def read_templates(path: Path) -> dict[str, str]:
    """The prefixes of a text file by name, "line N" of their first line.

    Raises:
      UserError: the file cannot be read, or a prefix does not hold {prompt} once.
    """
    try:
        lines = [*path.read_text(encoding="utf-8-sig").splitlines(), _BETWEEN]
    except (OSError, ValueError) as error:
        raise UserError(
            f"config.prefix.file: {path} cannot be read as text ({error})"
        ) from error
    found: dict[str, str] = {}
    first = 1
    for number, line in enumerate(lines, 1):
        if line.strip() != _BETWEEN:
            continue
        template = "\n".join(lines[first - 1 : number - 1]).strip("\n")
        if not template and found:  # after the last line of ---
            break
        if template.count(_PROMPT) != 1:
            raise UserError(
                f"{path}:{first}: this prefix holds {_PROMPT} "
                f"{template.count(_PROMPT)} times; write it once, where the prompt "
                f"stands, and a line of {_BETWEEN} between two prefixes"
            )
        found[f"line {first}"] = template
        first = number + 1
    return found


def _with_prefixes(
    context: common.Context, plain: LanguageModel, templates: dict[str, str]
) -> dict[str, LanguageModel]:
    """The model with each prefix; prints and leaves out those too long for it.

    Raises:
      UserError: all of them are too long.
    """
    models: dict[str, LanguageModel] = {}
    for name, template in templates.items():
        try:
            models[name] = (
                plain.few_shot(functools.partial(fill, template)) if template else plain
            )
        except UserError as error:
            common.announce(f"{context.config.name}: {name} is left out: {error}")
    if set(models) <= {_NONE}:
        raise UserError(
            "config.prefix: no prefix fits the model's context; give shorter ones or "
            "fewer config.prefix.examples, or lower config.data.max_prompt"
        )
    return models
