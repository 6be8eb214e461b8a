"""The answers that are ranked: K per prompt, from several checkpoints (paper §3.5)."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from instructgpt.distributed import on_first
from instructgpt.errors import UserError, about
from instructgpt.identity import ANSWERS, check_left
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
from instructgpt.stages.label_rows import misplace


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
    # The folder of people's rankings, comparisons.SPLIT.jsonl, where `label fetch`
    # leaves them. A held-out labeler's are the test split's.
    rankings: str = "../labelling/records"
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


def answers_to_rank(
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


def _write_answers(path: Path, rows: list[dict[str, Any]]) -> None:
    write_lines(path, rows)
    note_file(path)  # so that a stopped run can check the file when it resumes


def _read_lines(path: Path) -> list[dict[str, Any]]:
    remedy = "delete it, and the answers are drawn again"
    check_left(path, remedy=remedy)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or cannot be read; {remedy}") from error


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes records to a file of JSON Lines."""
    with new_file(path) as partial:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        partial.write_text(text, encoding="utf-8")
