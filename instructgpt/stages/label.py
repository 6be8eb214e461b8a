"""Samples answers and has them ranked: the reward model's data (paper §3.4, §3.5).

For every prompt K = 4 to 9 answers are drawn from several checkpoints. The config
names the labelers. The miniature world's simulated labelers rank answers here: one or a
few rank a training prompt, several of each group a validation prompt, so that agreement
can be measured. For people the answers are written to files.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.datasets import DataConfig
from instructgpt.data.sources import Records, build_jsonl, open_source
from instructgpt.distributed import first_then_others, on_first
from instructgpt.errors import UserError, about
from instructgpt.evals.agreement.pairs import agreement_interval
from instructgpt.identity import ANSWERS, check_left, is_finished, read_json
from instructgpt.labelling.fetching import comparison_row
from instructgpt.labelling.simulated import group_of, ranks_of
from instructgpt.labelling.spreading import spread
from instructgpt.manifest import note_file
from instructgpt.outputs import new_file
from instructgpt.ranges import (
    FolderPath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RankedInt,
)
from instructgpt.stages import common, loading
from instructgpt.stages.asking import forget_answers, short_prompts
from instructgpt.stages.inputs import model_config
from instructgpt.stages.label_rows import mean_ranking, misplace, untied_pairs
from instructgpt.stages.programs import Models, Program, answers
from instructgpt.world import Labeler


@dataclasses.dataclass(frozen=True)
class LabelConfig:
    """Which policies answer, and how many labelers rank the answers."""

    policies: tuple[FolderPath, ...]  # workdirs of the stages whose models answer
    # Checkpoints of each policy, as fractions of its newest step. Each gives an equal
    # share of the answers.
    fractions: tuple[float, ...] = (1.0,)
    train_prompts: NonNegativeInt = 0  # number of training prompts; 0: all
    valid_prompts: NonNegativeInt = 0  # number of validation prompts; 0: all
    min_responses: RankedInt = 4  # K is uniform in this range
    max_responses: RankedInt = 9
    # Number of a training prompt's K answers that were written to other prompts, every
    # second one to a prompt of the same category. A policy seldom misses the question,
    # so without such answers a reward model does not learn to look at the prompt.
    misplaced: NonNegativeInt = 0
    # Number of labelers of a training prompt: one as in the paper, or several, whose
    # mean rank is the ranking.
    train_labelers: PositiveInt = 1
    labelers_per_prompt: PositiveInt = 3  # per group, for validation prompts
    # Who ranks: simulated labelers of the miniature world, or people, for whom the
    # answers are written to files.
    ranked_by: Literal["world", "people"] = "world"
    temperature: NonNegativeFloat = 1.0
    batch_size: PositiveInt = 64  # prompts in a batch

    def __post_init__(self):
        for name in ("policies", "fractions"):
            if not getattr(self, name):
                raise UserError(f"config.label.{name}=(): give one or more")
        if self.max_responses < self.min_responses:
            raise UserError(
                f"config.label.max_responses={self.max_responses}: give as many as "
                f"config.label.min_responses={self.min_responses}, or more"
            )
        if not 0 <= self.misplaced <= self.min_responses - 2:
            raise UserError(
                f"config.label.misplaced={self.misplaced}: give 0 or more, so that a "
                "prompt keeps 2 or more answers of its own; "
                f"config.label.min_responses={self.min_responses}"
            )

    def answers_each(self, checkpoints: int, misplaced: int = 0) -> int:
        """Answers that each checkpoint gives to a prompt, so that K of them are found.

        Args:
          checkpoints: Number of checkpoints that answer.
          misplaced: Number of the K answers that were written to other prompts.
        """
        return -(-(self.max_responses - misplaced) // checkpoints)


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
    answers = _answers(context, label)
    if labelers is None:
        raise UserError(
            f"{context.workdir}/answers.*.jsonl hold the answers: have people rank "
            "them and put them among the data as comparisons.SPLIT.jsonl, each line "
            "with ranks and a labeler; config.label.ranked_by='world' has simulated "
            "labelers, of the miniature world alone"
        )
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


def _answers(
    context: common.Context, label: LabelConfig
) -> dict[str, list[dict[str, Any]]]:
    """The answers to rank by split; those of an earlier start are reused."""
    counts = {"train": label.train_prompts, "valid": label.valid_prompts}
    paths = {split: context.workdir / f"answers.{split}.jsonl" for split in counts}
    missing = [split for split, path in paths.items() if not path.exists()]
    # Everything that is needed is read before the first answer is sampled.
    prompts = {split: _prompts(context, split, counts[split]) for split in missing}
    for init in _checkpoints(context, label) if missing else ():
        loading.find(init, context)
    for split in missing:
        rows = _answer(context, label, prompts[split], split)
        on_first(functools.partial(_write_answers, paths[split], rows))
    answers = {split: _read_lines(path) for split, path in paths.items()}
    for split, path in paths.items():
        if not answers[split]:
            raise UserError(f"{path} holds no answers; delete it, and start again")
    forget_answers(context)
    return answers


def _prompts(context: common.Context, split: str, count: int) -> list[dict[str, Any]]:
    """The prompts to answer; other ones than PPO's (Table 6), if the data have any."""
    kind = "rm_prompts" if context.data.has("rm_prompts", split) else "prompts"
    return short_prompts(context, split, count=count, kind=kind)


def _answer(
    context: common.Context,
    label: LabelConfig,
    prompts: Sequence[dict[str, Any]],
    split: str,
) -> list[dict[str, Any]]:
    """Samples K answers per prompt from all policies, in random order."""
    sources = _checkpoints(context, label)
    misplaced = label.misplaced if split == "train" else 0
    each = label.answers_each(len(sources), misplaced)
    pools: list[list[str]] = [[] for _ in range(len(prompts))]
    for number, init in enumerate(sources):
        policy = loading.language_model(init, context)
        texts = policy.generate(
            prompts,
            num_samples=each,
            temperature=label.temperature,
            key=jax.random.fold_in(context.key, number + 1000 * (split == "valid")),
            batch_size=label.batch_size,
            name=f"{split} {init.step}",
            keep=context.workdir / ANSWERS / f"{split}-{number}",
        )
        with about(policy.source):
            _check_speaks(texts, split)
        for pool, new in zip(pools, texts, strict=True):
            pool.extend(new)
    rng = np.random.default_rng([context.config.seed, split == "valid"])
    rows = []
    for record, pool in zip(prompts, pools, strict=True):
        size = int(rng.integers(label.min_responses, label.max_responses + 1))
        # Empty answers cannot be ranked.
        pool = [text for text in pool if text.strip()]
        chosen = rng.permutation(len(pool))[: size - misplaced]
        if len(chosen) > 1:
            rows.append({**record, "responses": [pool[i] for i in chosen]})
    _tell_left_out(context, split, len(prompts) - len(rows), len(prompts))
    return misplace(rows, misplaced, rng)


def _check_speaks(texts: Sequence[Sequence[str]], split: str) -> None:
    """Raises UserError if all of a policy's answers [N prompts, K] are empty."""
    if not any(text.strip() for answers in texts for text in answers):
        raise UserError(
            f"this policy answers all {len(texts)} {split} prompts with nothing, so "
            "there is nothing to rank; train it again, or change config.label.policies "
            "or config.label.fractions to leave it out"
        )


def _tell_left_out(
    context: common.Context, split: str, missing: int, total: int
) -> None:
    """Prints how many prompts have fewer than two answers; UserError if all have."""
    told = (
        f"{missing} of {total} {split} prompts have fewer than two answers that are "
        "not empty"
    )
    if missing == total:
        raise UserError(
            f"{told}; raise config.label.max_responses, or train the policies of "
            "config.label.policies again"
        )
    if missing:
        common.announce(f"{context.config.name}: {told} and are left out")


def _checkpoints(
    context: common.Context, label: LabelConfig
) -> list[loading.InitConfig]:
    out = []
    for path in label.policies:
        steps = loading.checkpoint_steps(path, context)
        chosen = {
            min(steps, key=lambda s: abs(s - fraction * steps[-1]))
            for fraction in label.fractions
        }
        out += [loading.InitConfig(path, step=step) for step in sorted(chosen)]
    return out


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
    report: dict[str, Any] = {"prompts": {s: len(rows) for s, rows in answers.items()}}
    for split, held_out in (("valid", False), ("heldout", True)):
        valid = _ranked(
            answers["valid"],
            groups[held_out],
            each=label.labelers_per_prompt,
            seed=seed,
            split="valid",
        )
        splits[split] = [row for ranked in valid for row in ranked]
        agreement = agreement_interval([[r["ranks"] for r in one] for one in valid])
        if agreement:
            report[f"agreement_{split}"] = list(agreement)
    files = {}
    for split, rows in splits.items():
        files[split] = context.workdir / f"comparisons.{split}.jsonl"
        on_first(functools.partial(_write_lines, files[split], rows))
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


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with new_file(path) as partial:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        partial.write_text(text, encoding="utf-8")


def _write_answers(path: Path, rows: list[dict[str, Any]]) -> None:
    _write_lines(path, rows)
    note_file(path)  # so that a stopped run can check the file when it resumes


def _read_lines(path: Path) -> list[dict[str, Any]]:
    remedy = "delete it, and the answers are drawn again"
    check_left(path, remedy=remedy)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or cannot be read; {remedy}") from error
