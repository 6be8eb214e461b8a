"""Compares models by evaluators and by judges of their answers, and writes a report.

The five models of the paper's Fig. 1 (GPT, GPT-prompted, SFT, PPO, PPO-ptx) answer the
same prompts. The prompts are from customers that are not in training, and no training
text holds their questions word for word. The config names the evaluators and judges.
In the miniature world the gold judge decides, from which no model has learnt.
"""

import datetime
import functools
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.rows import Rows
from instructgpt.distributed import on_first
from instructgpt.errors import about
from instructgpt.evals.compute import spent_by_stage
from instructgpt.evals.found import Found, commit, run_judges
from instructgpt.evals.judgements import as_line
from instructgpt.evals.preference import GPT_LIKE
from instructgpt.evals.ranking_accuracy import reward_rates
from instructgpt.evals.report.tables import describe_results, format_results_table
from instructgpt.evals.report.writing import (
    load_curves,
    load_results,
    show_report,
    write_report,
)
from instructgpt.identity import (
    ANSWERS,
    MINUTES,
    TO_JUDGE,
    check_left,
    is_finished,
    read_json,
)
from instructgpt.outputs import new_file
from instructgpt.paths import resolve
from instructgpt.stages import benchmarks, common, loading
from instructgpt.stages.asking import forget_answers
from instructgpt.stages.compared import build_entries, check_entries
from instructgpt.stages.comparison import (
    Comparison,
    EvaluateConfig,
    answer_lines,
)
from instructgpt.stages.inputs import short_rows
from instructgpt.stages.judging import check_named, named_blocks
from instructgpt.stages.label import has_report, open_comparisons, ranked_splits
from instructgpt.stages.programs import Models, Program, asking_programs
from instructgpt.stages.rankings import comparison_encoder

_AGAIN = "delete this workdir, and evaluate again"
# Splits of rankings -> the labelers' name in the results.
_LABELERS = {"valid": "train", "heldout": "heldout"}
_OWN_LABELERS = {"valid": "train", "test": "heldout"}


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
        if settings.suite or settings.models:  # a recipe shows its own at the end
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


def _evaluate(context: common.Context, config: ConfigDict) -> dict[str, Any]:
    comparison = Comparison.open(context, config)
    settings = comparison.settings
    extra = _Extra.open(comparison, config) if comparison.of_recipe else None
    records = comparison.records()
    measured, answers = comparison.ask(records, context.workdir / ANSWERS)
    if extra is not None:
        base = loading.language_model(extra.rl_init, context)
        kept = context.workdir / ANSWERS / "measured" / "rl_init"
        measured["rl_init"] = comparison.measure(base, records, kept)
    _write_lines(context.workdir / TO_JUDGE, answer_lines(records, answers))
    judged = run_judges(comparison.judges, records, answers, baseline=settings.baseline)
    found = Found(answers, measured, judged)
    for name, rows in found.rows(records).items():
        common.write_json(context.workdir / "samples" / f"{name}.json", rows)
    for key, own in judged.items():
        lines = map(as_line, own.judgements)
        _write_lines(context.workdir / "judgements" / f"{key}.jsonl", lines)
    judges, evaluators = named_blocks(
        config, people=settings.people, chat=settings.chat
    )
    return {
        **found.numbers(
            labels={name: entry.label for name, entry in comparison.entries.items()},
            judges={key: block["name"] for key, block in judges.items()},
            losses={k for k, v in evaluators.items() if v["name"] == "pretrain_loss"},
        ),
        "baseline": settings.baseline,
        "num_prompts": sum(r.get("distribution") != GPT_LIKE for r in records),
        "split": settings.split,
        "rated_by": found.rater,
        "samples": found.side_by_side(records, settings.num_samples),
        **(extra.results(comparison) if extra is not None else {}),
    }


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a file of lines, on process 0."""

    def write() -> None:
        with new_file(path) as partial:
            partial.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")

    on_first(write)


class _Extra(NamedTuple):
    """What else is told of the models of a recipe."""

    rl_init: loading.InitConfig
    rankings: dict[str, Rows]  # held-out ones, by labelers' name
    epochs: list[dict[str, Any]]  # of SFT, as the select stage scored them

    @classmethod
    def open(cls, comparison: Comparison, config: ConfigDict) -> "_Extra":
        """Checks that the other stages have left what is read.

        Raises:
          UserError: a stage has not been run.
        """
        context, settings = comparison.context, comparison.settings
        rl_init = common.build(
            loading.InitConfig, config.rl_init, where="config.rl_init"
        )
        with about("config.rl_init"):
            comparison.check_evaluators(loading.find(rl_init, context))
        epochs = _selected_epochs(context, settings)
        return cls(rl_init, _rankings(context, settings), epochs)

    def results(self, comparison: Comparison) -> dict[str, Any]:
        """Entries of results.json."""
        rates = reward_rates(
            comparison.setting.reward(),
            self.rankings,
            batch_size=comparison.settings.batch_size,
            log=common.announce,
        )
        workdir = comparison.context.workdir
        curves = _curves(comparison.context, comparison.settings)
        return {
            "reward_model": rates,
            "sft_epochs": self.epochs,
            "curves": curves,
            "compute": spent_by_stage(load_curves({"curves": curves}, workdir)),
        }


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
                if split in ranked_splits(directory)
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
    check_named(config, people=settings.people, chat=settings.chat)
