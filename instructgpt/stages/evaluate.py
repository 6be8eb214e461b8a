"""Compares the models: gold win rates, Likert, flags, losses, and the report.

The five models of the paper's Fig. 1 (GPT, GPT-prompted, SFT, PPO, PPO-ptx) answer
the same prompts, of customers that training has not and with questions that it does
not hold word for word. In the
miniature world the gold judge decides; it has trained nothing.
"""

import dataclasses
import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Literal

import jax
from ml_collections import ConfigDict

from instructgpt.data.documents import TokenWindows
from instructgpt.distributed import on_first
from instructgpt.errors import UserError, about
from instructgpt.evals.gold import judge_all, summarise
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.evals.preferences import (
    Rankings,
    accuracy_interval,
    count_untied,
    make_ranking_evaluator,
    shared_pair_counts,
)
from instructgpt.evals.report import load_results, write_report
from instructgpt.evals.tables import describe_results, format_results_table
from instructgpt.models.config import ModelConfig
from instructgpt.paths import resolve
from instructgpt.ranges import (
    FolderPath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RankedInt,
)
from instructgpt.sampling import SamplingConfig
from instructgpt.stages import common, loading
from instructgpt.stages.identity import MINUTES, check_left, is_finished, read_json
from instructgpt.stages.label import open_comparisons
from instructgpt.stages.reward import comparison_encoder
from instructgpt.stages.sampling import Prompts, ScoreTexts, stage_sampler

_AGAIN = "delete this workdir, and evaluate again"
# Splits of a label stage -> whose rankings they are, in the results.
_LABELERS = {"valid": "train", "heldout": "heldout"}


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One model of the comparison."""

    label: str
    init: ConfigDict  # InitConfig
    temperature: NonNegativeFloat = 1.0
    prompted: bool = False  # few-shot prefix, cut at the first newline


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is compared on how many prompts."""

    baseline: str  # key of the model the others are compared with
    reward: FolderPath  # a reward stage's workdir
    # A label stage's workdir; "": the rankings of the reward model are not here.
    comparisons: str
    select: FolderPath  # a select stage's workdir, for the table of epochs
    max_responses: RankedInt
    # Whose prompts and documents: tune on valid, report test once.
    split: Literal["valid", "test"] = "test"
    curves: tuple[FolderPath, ...] = ()  # stages' workdirs whose metrics are plotted
    num_prompts: NonNegativeInt = 0  # prompts of the split; 0: all
    batch_size: PositiveInt = 64
    num_samples: NonNegativeInt = 12  # side-by-side samples in the report
    # Tokens of a row of the pretraining loss; 0: the context length.
    window: NonNegativeInt = 0


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Evaluates every model and writes `results.json` and `report.html`."""
    context = common.start(config, workdir)
    settings = common.build(EvaluateConfig, config.evaluate, where="config.evaluate")
    path = context.workdir / "results.json"
    if not path.exists():
        common.write_json(path, _evaluate(context, config, settings))
    check_left(path, remedy=_AGAIN)
    if not is_finished(context.workdir):
        on_first(lambda: common.announce(f"{config.name}: wrote {write_report(path)}"))
    common.finish(context)
    return read_json(path, remedy=_AGAIN)


def show(workdir: Path) -> None:
    """Prints the table of a finished evaluation and where its report is."""
    check_left(workdir / "results.json", remedy=_AGAIN)
    results = load_results(workdir / "results.json")
    common.announce(f"\n{describe_results(results)}\n")
    common.announce(format_results_table(results))
    common.announce(f"report: {workdir / 'report.html'}")


def _evaluate(
    context: common.Context, config: ConfigDict, settings: EvaluateConfig
) -> dict[str, Any]:
    if context.data.world is None:
        raise UserError(
            "the evaluate stage needs the miniature world's gold judge; with data of "
            "your own compare models by reward score in the select stage"
        )
    entries = check_entries(config, settings)
    _check_needs(context, config, settings, entries)
    prompts = Prompts(context, settings.split, count=settings.num_prompts)
    with jax.set_mesh(context.mesh):
        reward = loading.load(loading.InitConfig(settings.reward), context, scalar=True)
        score = ScoreTexts(context, reward, batch_size=settings.batch_size)
        texts, scores, losses = {}, {}, {}
        for name, entry in entries.items():
            loaded = load_entry(context, entry, name)
            with about(loaded.source):
                losses[name] = _pretrain_loss(context, loaded, settings)
                texts[name] = _respond(context, settings, prompts, entry, loaded, name)
            scores[name] = float(score(prompts.records, texts[name]).mean())
        rl_init = loading.load(_rl_init(config), context)
        with about(rl_init.source):
            losses["rl_init"] = _pretrain_loss(context, rl_init, settings)
        accuracy = _reward_accuracy(context, settings, reward)
    judged = {
        name: judge_all(context.data.world, prompts.records, responses)
        for name, responses in texts.items()
    }
    baseline = judged[settings.baseline]
    models = {
        name: {
            "label": entry.label,
            "mean_score": scores[name],
            **summarise(
                prompts.records,
                judged[name],
                None if name == settings.baseline else baseline,
            ),
        }
        for name, entry in entries.items()
    }
    return {
        "models": models,
        "baseline": settings.baseline,
        "num_prompts": len(prompts),
        "split": settings.split,
        "pretrain_loss": losses,
        "reward_model": accuracy,
        **_from_stages(context, settings),
        "samples": _samples(prompts, texts, judged, settings.num_samples),
        "meta": _meta(context),
    }


def _check_needs(
    context: common.Context,
    config: ConfigDict,
    settings: EvaluateConfig,
    entries: dict[str, ModelEntry],
) -> None:
    """Looks for all that is read once the models have answered, before the first does.

    Raises:
      UserError: a stage has not been run, its model does not fit, or the baseline is
        none of the models.
    """
    loading.find(loading.InitConfig(settings.reward), context, scalar=True)
    found = {n: loading.find(entry_init(e, n), context) for n, e in entries.items()}
    for name, entry in entries.items():
        prompt_options(context, entry, found[name])
    found["rl_init"] = loading.find(_rl_init(config), context)
    for model_config in found.values():
        _windows(context, model_config, settings)
    if settings.comparisons:
        directory = resolve(settings.comparisons, context.workdir)
        for split in _LABELERS:
            open_comparisons(directory, split)
    _selected_epochs(context, settings)


def prompt_options(
    context: common.Context, entry: ModelEntry, model_config: ModelConfig
) -> dict[str, Any]:
    """How prompts are put to a model: arguments of `Prompts`, if not as usual."""
    world = context.data.world
    if not entry.prompted or world is None:
        return {}
    empty = {"prompt": world.format_prompted("")}
    prefix = len(context.data.prompt_format.prompt_ids(empty, raw=True))
    common.check_model(context, model_config, extra=prefix)
    limit = context.data_config.max_prompt + prefix
    return {"wrap": world.format_prompted, "max_prompt": limit, "raw": True}


def entry_sampler(
    context: common.Context, entry: ModelEntry, loaded: loading.Loaded
) -> Any:
    """The sampler that a model of the comparison answers with."""
    sampling = SamplingConfig(
        context.data_config.max_response, temperature=entry.temperature
    )
    return stage_sampler(context, loaded.model, sampling, newline=entry.prompted)


def build_entries(config: ConfigDict) -> dict[str, ModelEntry]:
    """The models of the comparison by name."""
    return {
        name: common.build(ModelEntry, block, where=f"config.models.{name}")
        for name, block in config.models.items()
    }


def check_entries(
    config: ConfigDict, settings: EvaluateConfig
) -> dict[str, ModelEntry]:
    """`build_entries`; raises UserError if the baseline is none of them."""
    entries = build_entries(config)
    if settings.baseline not in entries:
        raise UserError(
            f"config.evaluate.baseline={settings.baseline!r} is not in config.models: "
            f"{sorted(entries)}"
        )
    return entries


def entry_init(entry: ModelEntry, name: str) -> loading.InitConfig:
    """Which checkpoint a model of the comparison comes from."""
    where = f"config.models.{name}.init"
    return common.build(loading.InitConfig, entry.init, where=where)


def load_entry(context: common.Context, entry: ModelEntry, name: str) -> loading.Loaded:
    """A model of the comparison from its checkpoint."""
    return loading.load(entry_init(entry, name), context)


def _rl_init(config: ConfigDict) -> loading.InitConfig:
    return common.build(loading.InitConfig, config.rl_init, where="config.rl_init")


def _respond(
    context: common.Context,
    settings: EvaluateConfig,
    prompts: Prompts,
    entry: ModelEntry,
    loaded: loading.Loaded,
    name: str,
) -> list[str]:
    """One response per prompt; kept beside the results as JSON."""
    put = prompt_options(context, entry, loaded.model.config)
    asked = prompts
    if put:
        asked = Prompts(context, settings.split, records=prompts.records, **put)
    texts = asked.respond(
        entry_sampler(context, entry, loaded),
        loaded.params,
        context.key,
        batch_size=settings.batch_size,
        name=name,
    )
    responses = [t[0].strip("\n") for t in texts]
    rows = [
        {"prompt": r["prompt"], "response": t}
        for r, t in zip(prompts.records, responses, strict=True)
    ]
    common.write_json(context.workdir / "samples" / f"{name}.json", rows)
    return responses


def _windows(
    context: common.Context, model_config: ModelConfig, settings: EvaluateConfig
) -> TokenWindows:
    split, window = settings.split, settings.window
    key = "config.evaluate.window"
    return common.text_windows(context, split, model_config, window, key=key)


def _pretrain_loss(
    context: common.Context, loaded: loading.Loaded, settings: EvaluateConfig
) -> float:
    windows = _windows(context, loaded.model.config, settings)
    evaluate = make_loss_evaluator(
        loaded.model,
        windows,
        None,
        batch_size=16,
        mesh=context.mesh,
    )
    return evaluate(loaded.params)


def _reward_accuracy(
    context: common.Context, settings: EvaluateConfig, reward: loading.Loaded
) -> dict[str, Any]:
    """Pairwise accuracy on both groups of labelers, beside their own agreement.

    Each is [rate, low, high]: `all_pairs_*` over the untied pairs of every ranking, and
    over the pairs that two labelers left untied `shared_pairs_*` of the reward model
    and `agreement_*` of the labelers. A rate over no pairs is left out.
    """
    if not settings.comparisons:
        return {}
    directory = resolve(settings.comparisons, context.workdir)
    evaluate = make_ranking_evaluator(reward.model, context.mesh)
    out: dict[str, Any] = {}
    for split, name in _LABELERS.items():
        rankings = Rankings(
            open_comparisons(directory, split),
            comparison_encoder(context, settings.max_responses),
            batch_size=settings.batch_size,
            mesh=context.mesh,
        )
        if not count_untied(rankings.rows):
            common.announce(f"evaluate: no {split} ranking has an untied pair")
            continue
        with about(reward.source):
            found = evaluate(reward.params, rankings)
        shared = shared_pair_counts(found.scored)
        for key, counts in (
            ("all_pairs", found.counts),
            ("shared_pairs", shared.model),
            ("agreement", shared.labelers),
        ):
            if counts.pairs.sum():
                out[f"{key}_{name}"] = list(accuracy_interval(counts))
    return out


def _from_stages(context: common.Context, settings: EvaluateConfig) -> dict[str, Any]:
    curves = {}
    for path in settings.curves:
        metrics = Path(resolve(path, context.workdir)) / "metrics.jsonl"
        if metrics.exists():
            check_left(metrics, remedy="run that stage again")
            relative = os.path.relpath(metrics, context.workdir)
            curves[metrics.parent.name] = relative
    return {
        "sft_epochs": _selected_epochs(context, settings),
        "curves": curves,
    }


def _selected_epochs(
    context: common.Context, settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """What the select stage says of each epoch of SFT."""
    path = Path(resolve(settings.select, context.workdir)) / "selected.json"
    return loading.read_selected(path)["epochs"]


def _samples(
    prompts: Prompts, texts: dict[str, list[str]], judged: dict[str, Any], num: int
) -> list[dict[str, Any]]:
    """Side by side, spread over categories: the first of each, then the second."""
    seen: dict[str, int] = {}
    order = []
    for i, record in enumerate(prompts.records):
        count = seen[record["category"]] = seen.get(record["category"], 0) + 1
        order.append((count, i))
    rows = []
    for _, i in sorted(order)[:num]:
        record = prompts.records[i]
        responses = {n: [t[i], judged[n][i].likert] for n, t in texts.items()}
        rows.append(
            {
                "prompt": record["prompt"],
                "category": record["category"],
                "responses": responses,
            }
        )
    return rows


def _meta(context: common.Context) -> dict[str, Any]:
    minutes = context.workdir.parent / MINUTES
    device = context.mesh.devices.flat[0]
    return {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": f"{context.mesh.size} x {device.device_kind} "
        f"({os.cpu_count()} cores, {platform.machine()})",
        "minutes": read_json(minutes, remedy="delete it") if minutes.exists() else {},
        "seed": context.config.seed,
        "world_seed": context.data_config.world_seed,
    }


def _commit() -> str:
    """The checkout's commit, with + if it has changes; "unknown" outside of one."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip()


def check(config: ConfigDict, blocks: dict[str, Any], mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if what is compared does not go together."""
    del mesh
    check_entries(config, blocks["evaluate"])
