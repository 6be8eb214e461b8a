"""Compares models by evaluators and by judges of their answers, and writes a report.

The five models of the paper's Fig. 1 (GPT, GPT-prompted, SFT, PPO, PPO-ptx) answer the
same prompts. The prompts are from customers that are not in training, and no training
text holds their questions word for word. The config names the evaluators and judges.
In the miniature world the gold judge decides, from which no model has learnt.
"""

import dataclasses
import datetime
import functools
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.documents import TokenWindows
from instructgpt.data.rows import Rows
from instructgpt.distributed import on_first
from instructgpt.errors import about
from instructgpt.evals.builtin import EVALUATORS, JUDGES
from instructgpt.evals.found import Found, commit, run_evaluators, run_judges
from instructgpt.evals.interface import Results, Setting, build_named, named_classes
from instructgpt.evals.preferences import reward_rates
from instructgpt.evals.report import load_results, show_report, write_report
from instructgpt.evals.tables import describe_results, format_results_table
from instructgpt.identity import ANSWERS, MINUTES, check_left, is_finished, read_json
from instructgpt.models.config import ModelConfig
from instructgpt.paths import resolve
from instructgpt.ranges import (
    FolderPath,
    NonNegativeInt,
    PositiveInt,
    RankedInt,
)
from instructgpt.stages import benchmarks, common, loading
from instructgpt.stages.asking import (
    Record,
    forget_answers,
    short_prompts,
)
from instructgpt.stages.compared import (
    ModelEntry,
    build_entries,
    check_entries,
    entry_init,
    examples_of,
)
from instructgpt.stages.inputs import short_rows
from instructgpt.stages.label import has_report, open_comparisons
from instructgpt.stages.programs import Models, Program, asking_programs
from instructgpt.stages.rankings import comparison_encoder

# Blocks of classes by name -> the built-in ones, and the method that all have.
_NAMED: dict[str, tuple[Mapping[str, type], str]] = {
    "judges": (JUDGES, "judge"),
    "evaluators": (EVALUATORS, "run"),
}
_AGAIN = "delete this workdir, and evaluate again"
# Splits of rankings -> the labelers' name in the results.
_LABELERS = {"valid": "train", "heldout": "heldout"}
_OWN_LABELERS = {"valid": "train", "test": "heldout"}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Settings of the comparison."""

    baseline: str  # key of the model that the others are compared with
    reward: FolderPath  # a reward stage's workdir
    # A label stage's workdir. If it is "" or that stage ranked nothing, the data's own
    # comparisons.valid.jsonl and comparisons.test.jsonl are used if they exist.
    comparisons: str
    select: FolderPath  # a select stage's workdir, for the table of epochs
    max_responses: RankedInt
    # Split of the prompts and documents: tune on valid, report test once.
    split: Literal["valid", "test"] = "test"
    curves: tuple[FolderPath, ...] = ()  # stages' workdirs whose metrics are plotted
    num_prompts: NonNegativeInt = 0  # number of prompts of the split; 0: all
    batch_size: PositiveInt = 64
    num_samples: NonNegativeInt = 12  # number of side-by-side samples in the report
    # Tokens of a row on which the pretraining loss is measured; 0: the context length.
    window: NonNegativeInt = 0
    # Names of benchmarks, with commas: tasks or groups of evals/tasks, or any other of
    # the Evaluation Harness. Only these are then run, and nothing else is compared.
    suite: str = ""
    limit: NonNegativeInt = 0  # questions of a benchmark; 0: all
    sets: str = ""  # a folder of the benchmarks' data sets; "": they are from the hub
    # What scores the completions of RealToxicityPrompts: a file of
    # instructgpt.toxicity, or module:function; "": they are not scored.
    toxicity: str = ""
    # The judges of TruthfulQA's answers: judges.json of instructgpt.truthful.
    judges: str = ""
    # The models in place of config.models: LABEL=WORKDIR,LABEL=WORKDIR, ...
    models: str = ""


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Evaluates every model and writes `results.json` and `report.html`."""
    settings = common.build(EvaluateConfig, config.evaluate, where="config.evaluate")
    if settings.suite:
        entries = build_entries(config, settings.models)
        measured = benchmarks.Comparison.open(config, workdir, entries)
        context = measured.context
        compare = functools.partial(
            measured.run,
            settings.suite,
            limit=settings.limit,
            sets=settings.sets,
            batch_size=settings.batch_size,
            toxicity=settings.toxicity,
            judges=settings.judges,
        )
    else:
        context = common.start(config, workdir)
        compare = functools.partial(_evaluate, context, config)
    path = context.workdir / "results.json"
    if not path.exists():
        common.write_json(path, {**compare(), "meta": _meta(context)})
    forget_answers(context)
    check_left(path, remedy=_AGAIN)
    if not is_finished(context.workdir):
        on_first(lambda: common.announce(f"{config.name}: wrote {write_report(path)}"))
        on_first(lambda: show_report(path, context.metrics))
        if settings.suite:
            on_first(lambda: show(context.workdir))
    else:
        common.announce(f"{config.name}: finished before; see {path}")
    common.finish(context)
    return read_json(path, remedy=_AGAIN)


def show(workdir: Path) -> None:
    """Prints the table of a finished evaluation and where its report is."""
    check_left(workdir / "results.json", remedy=_AGAIN)
    results = load_results(workdir / "results.json")
    common.announce(f"\n{describe_results(results)}\n")
    common.announce(format_results_table(results))
    common.announce(f"report: {workdir / 'report.html'}")


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """The models, evaluators and judges of a comparison, checked before any runs."""

    context: common.Context
    settings: EvaluateConfig
    entries: dict[str, ModelEntry]
    evaluators: dict[str, Any]
    judges: dict[str, Any]
    setting: Setting

    @classmethod
    def open(cls, context: common.Context, config: ConfigDict) -> "_Comparison":
        """Builds the comparison and checks everything that is read later.

        Raises:
          UserError: a stage has not been run, its model does not fit, an evaluator or
            a judge cannot be built, or the baseline is not one of the models.
        """
        settings = common.build(
            EvaluateConfig, config.evaluate, where="config.evaluate"
        )
        entries = check_entries(config, settings.models, baseline=settings.baseline)
        reward_init = loading.InitConfig(settings.reward)
        setting = Setting(
            data=context.data,
            split=settings.split,
            baseline=settings.baseline,
            batch_size=settings.batch_size,
            reward=functools.cache(lambda: loading.reward_model(reward_init, context)),
            windows=_windows(context, settings),
            log=common.announce,
        )
        with about("config.evaluate.reward"):
            loading.find(reward_init, context, scalar=True)
        judges, evaluators = (
            build_named(
                _named(config, block),
                built_in,
                setting,
                method=method,
                where=f"config.{block}",
            )
            for block, (built_in, method) in _NAMED.items()
        )
        entries = _without_examples(context, entries)
        return cls(context, settings, entries, evaluators, judges, setting)

    def check(self, rl_init: loading.InitConfig) -> None:
        """Checks that the models and the selected SFT epoch exist."""
        inits = {name: entry_init(e, name) for name, e in self.entries.items()}
        for name, init in {**inits, "rl_init": rl_init}.items():
            key = f"models.{name}.init" if name in inits else name
            with about(f"config.{key}"):
                found = loading.find(init, self.context)
            if name in self.entries:
                _check_examples(self.context, self.entries[name], found)
            for evaluator in self.evaluators.values():
                if hasattr(evaluator, "check"):
                    evaluator.check(found)
        _selected_epochs(self.context, self.settings)


def _evaluate(context: common.Context, config: ConfigDict) -> dict[str, Any]:
    comparison = _Comparison.open(context, config)
    rl_init = common.build(loading.InitConfig, config.rl_init, where="config.rl_init")
    comparison.check(rl_init)
    settings, setting = comparison.settings, comparison.setting
    rankings = _rankings(context, settings)
    records = short_prompts(context, settings.split, count=settings.num_prompts)
    measured, answers = _ask(comparison, records, context.workdir / ANSWERS)
    base = loading.language_model(rl_init, context)
    measured["rl_init"] = run_evaluators(comparison.evaluators, base, records)
    judged = run_judges(comparison.judges, records, answers)
    rates = reward_rates(
        setting.reward(),
        rankings,
        batch_size=settings.batch_size,
        log=common.announce,
    )
    found = Found(answers, measured, judged)
    for name, rows in found.rows(records).items():
        common.write_json(context.workdir / "samples" / f"{name}.json", rows)
    return {
        **found.numbers(
            labels={name: entry.label for name, entry in comparison.entries.items()},
            judges=_built_in(config, "judges", JUDGES),
            evaluators=_built_in(config, "evaluators", EVALUATORS),
        ),
        "baseline": settings.baseline,
        "num_prompts": len(records),
        "split": settings.split,
        "reward_model": rates,
        "sft_epochs": _selected_epochs(context, settings),
        "curves": _curves(context, settings),
        "rated_by": found.rater,
        "samples": found.side_by_side(records, settings.num_samples),
    }


def _ask(
    comparison: _Comparison, records: list[Record], folder: Path
) -> tuple[dict[str, dict[str, Results]], dict[str, list[str]]]:
    """Returns the evaluators' results for each model, and its answers to prompts."""
    context, settings = comparison.context, comparison.settings
    measured, answers = {}, {}
    for name, entry in comparison.entries.items():
        model = loading.language_model(entry_init(entry, name), context)
        examples = examples_of(entry, context)
        if examples is not None:
            model = model.few_shot(examples)
        measured[name] = run_evaluators(comparison.evaluators, model, records)
        texts = model.generate(
            records,
            temperature=entry.temperature,
            key=context.key,
            batch_size=settings.batch_size,
            name=name,
            keep=folder / name,
        )
        answers[name] = [t[0].strip("\n") for t in texts]
    return measured, answers


def _named(config: ConfigDict, block: str) -> dict[str, dict[str, Any]]:
    """The class name and the fields of each evaluator or judge, by key."""
    return config[block].to_dict() if block in config else {}


def _built_in(config: ConfigDict, block: str, known: Mapping[str, type]) -> set[str]:
    """Keys of the evaluators or judges that are part of the package."""
    named = _named(config, block).items()
    return {key for key, entry in named if entry["name"] in known}


def _without_examples(
    context: common.Context, entries: dict[str, ModelEntry]
) -> dict[str, ModelEntry]:
    """Leaves out prompted entries if there are no examples for them; prints which."""
    kept = {}
    for name, entry in entries.items():
        if entry.prompted and examples_of(entry, context) is None:
            common.announce(
                f"evaluate: {name} is left out, as the data have no solved examples to "
                "put before a prompt"
            )
        else:
            kept[name] = entry
    return kept


def _check_examples(
    context: common.Context, entry: ModelEntry, model_config: ModelConfig
) -> None:
    """Raises UserError if prompts with solved examples do not fit a model's context."""
    wrap = examples_of(entry, context)
    if wrap is None:
        return
    ids = context.data.prompt_format.prompt_ids({"prompt": wrap("")}, raw=True)
    common.check_model(context, model_config, extra=len(ids))


def _windows(
    context: common.Context, settings: EvaluateConfig
) -> Callable[[ModelConfig], TokenWindows]:
    """Builds the function from a model's config to rows of held-out text."""
    return lambda config: common.text_windows(
        context,
        settings.split,
        config,
        settings.window,
        key="config.evaluate.window",
    )


def _rankings(context: common.Context, settings: EvaluateConfig) -> dict[str, Rows]:
    """Held-out rankings that fit, encoded, by labelers' name."""
    encode = comparison_encoder(context, settings.max_responses)
    own = context.data.has("comparisons", "train")
    if settings.comparisons:
        directory = resolve(settings.comparisons, context.workdir)
        if has_report(directory) or not own:
            return {
                name: Rows(open_comparisons(directory, split), encode)
                for split, name in _LABELERS.items()
            }
    found = {}
    for split, name in _OWN_LABELERS.items():
        if context.data.has("comparisons", split):
            source = context.data.source("comparisons", split)
            found[name] = short_rows(context, source, encode, f"{split} rankings")
    return found


def _curves(context: common.Context, settings: EvaluateConfig) -> dict[str, str]:
    """Paths of other stages' metrics by name, relative to the workdir."""
    curves = {}
    for path in settings.curves:
        metrics = Path(resolve(path, context.workdir)) / "metrics.jsonl"
        if metrics.exists():
            check_left(metrics, remedy="run that stage again")
            curves[metrics.parent.name] = os.path.relpath(metrics, context.workdir)
    return curves


def _selected_epochs(
    context: common.Context, settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """The select stage's results for each epoch of SFT."""
    path = Path(resolve(settings.select, context.workdir)) / "selected.json"
    return loading.read_selected(path)["epochs"]


def _meta(context: common.Context) -> dict[str, Any]:
    minutes = context.workdir.parent / MINUTES
    device = context.mesh.devices.flat[0]
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": f"{context.mesh.size} x {device.device_kind} "
        f"({os.cpu_count()} cores, {platform.machine()})",
        "minutes": read_json(minutes, remedy="delete it") if minutes.exists() else {},
        "seed": context.config.seed,
        "world_seed": context.data_config.world_seed,
    }


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The programs with which a model answers and the reward model scores.

    A model whose prompts have solved examples before them needs more memory. Evaluators
    and judges have programs of their own, which are not planned.
    """
    keys = dict(policy="models", reward="evaluate.reward")
    return asking_programs(config, mesh, models, block="evaluate", **keys)


def check(config: ConfigDict, blocks: dict[str, Any], mesh: Mesh) -> None:
    """Raises UserError if the settings contradict each other, or name no class."""
    del mesh
    settings = blocks["evaluate"]
    if not settings.suite:
        check_entries(config, settings.models, baseline=settings.baseline)
    for block, (built_in, method) in _NAMED.items():
        named = _named(config, block)
        named_classes(named, built_in, method=method, where=f"config.{block}")
