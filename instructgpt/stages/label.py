"""Samples answers and has them ranked: the reward model's data (paper §3.4, §3.5).

For every prompt K = 4 to 9 answers are drawn from several checkpoints. The config
names the labelers. The miniature world's simulated labelers rank answers here: one or a
few rank a training prompt, several of each group a validation prompt, so that agreement
can be measured. For people the answers are written to files, and the stage stops until
their rankings are there.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.datasets import DataConfig
from instructgpt.data.sources import Records, build_jsonl, has_split, open_source
from instructgpt.distributed import first_then_others, on_first
from instructgpt.errors import UserError
from instructgpt.evals.agreement.pairs import agreement_interval
from instructgpt.identity import is_finished, read_json
from instructgpt.labelling.fetching import comparison_row
from instructgpt.labelling.simulated import group_of, ranks_of
from instructgpt.labelling.spreading import spread
from instructgpt.paths import resolve
from instructgpt.stages import common
from instructgpt.stages.inputs import model_config
from instructgpt.stages.label_answers import LabelConfig, answers_to_rank, write_lines
from instructgpt.stages.label_rows import mean_ranking, untied_pairs
from instructgpt.stages.people_rankings import (
    rankings_by_prompt,
    rankings_file,
    read_rankings,
    to_do,
)
from instructgpt.stages.programs import Models, Program, answers
from instructgpt.world import Labeler


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Samples answers and has them ranked; writes the comparisons set."""
    context = common.start(config, workdir)
    label = common.build(LabelConfig, config.label, where="config.label")
    if is_finished(context.workdir) and has_report(context.workdir):
        return read_report(context.workdir)
    if context.data.has("comparisons", "train"):
        common.announce(
            f"{config.name}: the data have rankings of their own, which the reward "
            "stage reads; nothing to do"
        )
        common.finish(context)
        return {}
    labelers = _labelers(context, label)
    answers = answers_to_rank(context, label)
    if labelers is None:
        report = _take(context, label, answers)
    else:
        report = _rank(context, label, labelers, answers)
    common.finish(context)
    return report


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The program with which a policy answers a batch of prompts, K answers each."""
    label = common.block_of(config, "label", LabelConfig)
    answer = answers(
        "policy",
        model_config(dataclasses.asdict(models["label.policies"]), mesh),
        mesh,
        common.block_of(config, "data", DataConfig),
        batch_size=label.batch_size,
        num_samples=label.answers_each(len(label.policies) * len(label.fractions)),
        remedy="lower config.label.batch_size",
    )
    return {"answer": answer}


def _labelers(context: common.Context, label: LabelConfig) -> list[Labeler] | None:
    """The labelers who rank the answers here; None if people rank them later.

    Raises:
      UserError: the config asks for simulated labelers and the data have none.
    """
    if label.ranked_by == "people":
        return None
    if context.data.world is None:
        raise UserError(
            "config.label.ranked_by='world': only the miniature world has simulated "
            "labelers; give 'people', and the answers are written for them to rank"
        )
    return list(context.data.world.labelers())


def _take(
    context: common.Context,
    label: LabelConfig,
    answers: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Takes in people's rankings.

    Raises:
      UserError: there are none yet, or one is not of these answers.
    """
    folder = Path(resolve(label.rankings, context.workdir))
    counts = {split: len(rows) for split, rows in answers.items()}
    if not rankings_file(folder, "train").exists():
        raise UserError(to_do(folder, context.workdir.parent, counts))
    splits = read_rankings(folder, answers)
    return _build(context, counts, splits)


def _rank(
    context: common.Context,
    label: LabelConfig,
    labelers: Sequence[Labeler],
    answers: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    seed = context.config.seed
    groups: dict[bool, list[Labeler]] = {False: [], True: []}
    for labeler in labelers:
        groups[labeler.held_out].append(labeler)
    train = _ranked(
        answers["train"], groups[False], each=label.train_labelers, seed=seed
    )
    splits = {"train": [mean_ranking(ranked) for ranked in train]}
    for split, held_out in (("valid", False), ("heldout", True)):
        valid = _ranked(
            answers["valid"],
            groups[held_out],
            each=label.labelers_per_prompt,
            seed=seed,
            split="valid",
        )
        splits[split] = [row for ranked in valid for row in ranked]
    counts = {split: len(rows) for split, rows in answers.items()}
    return _build(context, counts, splits)


def _build(
    context: common.Context,
    prompts: dict[str, int],
    splits: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Writes the rankings as a set, and the report on them.

    Args:
      context: The opened stage.
      prompts: The number of prompts of train and valid.
      splits: The comparisons of train, valid and heldout.
    """
    report: dict[str, Any] = {"prompts": prompts}
    for split in [name for name in splits if name != "train"]:
        agreement = agreement_interval(rankings_by_prompt(splits[split]))
        if agreement:
            report[f"agreement_{split}"] = list(agreement)
    files = {}
    for split, rows in splits.items():
        files[split] = context.workdir / f"comparisons.{split}.jsonl"
        on_first(functools.partial(write_lines, files[split], rows))
    report["pairs"] = {s: sum(map(untied_pairs, rows)) for s, rows in splits.items()}
    report["set"] = first_then_others(
        lambda: build_jsonl("comparisons", "ranked", context.workdir, files)
    )
    common.write_json(context.workdir / "labels.json", report)
    common.announce(f"{context.config.name}: {json.dumps(report)}")
    return report


def _ranked(
    rows: Sequence[dict[str, Any]],
    labelers: Sequence[Labeler],
    *,
    each: int,
    seed: int,
    split: str = "train",
) -> list[list[dict[str, Any]]]:
    """Comparisons of each row's answers by `each` labelers of a group.

    Who ranks and how depends on the seed, the row and the labeler alone, so that the
    same labelers give the same through the pages of a labelling server (labelling/).
    """
    named = {labeler.name: labeler for labeler in labelers}
    chosen = spread(
        [str(row["id"]) for row in rows],
        list(named),
        each=each,
        seed=seed,
        split=split,
        group=group_of(labelers[0]),
    )
    found = []
    for row, names in zip(rows, chosen, strict=True):
        rankings = ranks_of([named[name] for name in names], row, seed=seed)
        found.append(
            [
                comparison_row(row, ranks, name)
                for ranks, name in zip(rankings, names, strict=True)
            ]
        )
    return found


def ranked_splits(workdir: str | Path) -> tuple[str, ...]:
    """The splits of the rankings that a label stage made: train, valid, heldout.

    People may have given none of valid and heldout.

    Raises:
      UserError: the stage has not finished.
    """
    made = read_report(workdir)["set"]
    names = ("train", "valid", "heldout")
    return tuple(s for s in names if has_split("comparisons", made, workdir, s))


def open_comparisons(workdir: str | Path, split: str) -> Records:
    """Opens the rankings that a label stage made.

    Raises:
      UserError: the stage has not finished.
    """
    report = read_report(workdir)
    return open_source("comparisons", report["set"], workdir, split)


def read_report(workdir: str | Path) -> dict[str, Any]:
    """Reads a label stage's report on its rankings: set, pairs, agreement."""
    return read_json(
        Path(workdir) / "labels.json",
        remedy="run the label stage first, or again, or give rankings of your own as "
        "comparisons.train.jsonl",
    )


def has_report(workdir: str | Path) -> bool:
    """Whether a label stage has ranked answers in this workdir."""
    return (Path(workdir) / "labels.json").exists()
