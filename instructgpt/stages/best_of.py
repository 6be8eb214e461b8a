"""Best-of-n sampling by the reward model, the baseline of RL that trains nothing.

A policy answers each prompt N times, and for n = 1, 2, 4, ... N it is estimated what
the best of n by the reward model would be: its score, and in the miniature world the
gold judge's mark. Both are set against the KL from the policy, log n - (n - 1)/n, so
that over-optimisation shows where the score still rises and the mark does not (Gao et
al. 2023). Other policies, such as PPO's, are points with a measured KL.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.datasets import DataConfig
from instructgpt.distributed import is_first, on_first
from instructgpt.errors import UserError, about
from instructgpt.evals.best_of import (
    best_of_figure,
    best_of_rows,
    best_of_table,
    interval_of,
)
from instructgpt.evals.intervals import mean_interval
from instructgpt.evals.report.plotting import to_png
from instructgpt.identity import ANSWERS, check_left, is_finished, read_json
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.inference.kept import KeptRows
from instructgpt.outputs import new_file
from instructgpt.progress import Progress
from instructgpt.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, RankedInt
from instructgpt.stages import common, loading
from instructgpt.stages.asking import Record, forget_answers, short_prompts
from instructgpt.stages.compared import ModelEntry, build_entries, entry_init
from instructgpt.stages.inputs import model_config
from instructgpt.stages.programs import Models, Program, answers, scores
from instructgpt.world import World, judge

_AGAIN = "delete this workdir, and run the stage again"


@dataclasses.dataclass(frozen=True)
class BestOfConfig:
    """The prompts, and how many answers each is given."""

    split: Literal["valid", "test"] = "valid"  # split of the prompts
    num_prompts: NonNegativeInt = 0  # number of prompts, M; 0: all
    num_answers: RankedInt = 64  # answers to a prompt, N
    temperature: NonNegativeFloat = 1.0
    batch_size: PositiveInt = 8  # prompts in a batch, each with N answers
    # Other policies, as points beside the curve: LABEL=WORKDIR,LABEL=WORKDIR, ...
    policies: str = ""


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Samples and scores; writes `results.json`, `best_of.png` and samples."""
    context = common.start(config, workdir)
    path = context.workdir / "results.json"
    if not path.exists():
        common.write_json(path, _measure(context))
    forget_answers(context)
    results = read_json(path, remedy=_AGAIN)
    if not is_finished(context.workdir):
        on_first(lambda: _draw(context.workdir / "best_of.png", results))
    common.finish(context)
    on_first(lambda: show(context.workdir))
    return results


def show(workdir: Path) -> None:
    """Prints the table of a finished stage."""
    check_left(workdir / "results.json", remedy=_AGAIN)
    results = read_json(workdir / "results.json", remedy=_AGAIN)
    common.announce(
        f"\nbest of n, {results['num_prompts']} {results['split']} prompts, "
        f"{results['num_answers']} answers to each:\n\n{best_of_table(results)}\n"
        f"figure: {workdir / 'best_of.png'}"
    )


def _draw(path: Path, results: dict[str, Any]) -> None:
    with new_file(path) as partial:
        partial.write_bytes(to_png(best_of_figure(results)))


def _measure(context: common.Context) -> dict[str, Any]:
    """The content of `results.json`."""
    config = context.config
    settings = common.block_of(config, "best_of", BestOfConfig)
    init = common.block_of(config, "init", loading.InitConfig)
    reward_init = common.block_of(config, "reward_init", loading.InitConfig)
    entries = _others(config, settings)
    # Everything is looked at before the first answer is sampled.
    with about("config.init"):
        loading.find(init, context)
    with about("config.reward_init"):
        loading.find(reward_init, context, scalar=True)
    for name, entry in entries.items():
        with about(f"config.best_of.policies: {name}"):
            loading.find(entry_init(entry, name), context)
    records = short_prompts(context, settings.split, count=settings.num_prompts)
    if len(records) < 2:
        raise UserError(
            "config.best_of.num_prompts: one prompt has no interval; give two or more"
        )
    policy = loading.language_model(init, context)
    texts = policy.generate(
        records,
        num_samples=settings.num_answers,
        temperature=settings.temperature,
        key=context.key,
        batch_size=settings.batch_size,
        name=f"{config.name} answers",
        keep=context.workdir / ANSWERS / "policy",
    )
    reward = loading.reward_model(reward_init, context)
    found = _measures(context, reward, records, texts, "policy")
    rows = [
        {
            "prompt": record["prompt"],
            "responses": list(given),
            **{name: values[i].tolist() for name, values in found.items()},
        }
        for i, (record, given) in enumerate(zip(records, texts, strict=True))
    ]
    common.write_json(context.workdir / "samples" / "answers.json", rows)
    return {
        "split": settings.split,
        "num_prompts": len(records),
        "num_answers": settings.num_answers,
        "best_of": best_of_rows(found),
        "points": {
            name: _point(context, name, entry, policy, reward, records)
            for name, entry in entries.items()
        },
    }


def _point(
    context: common.Context,
    name: str,
    entry: ModelEntry,
    policy: LanguageModel,
    reward: RewardModel,
    records: Sequence[Record],
) -> dict[str, Any]:
    """Another policy's KL from the sampled one, and the measures of its answers."""
    settings = common.block_of(context.config, "best_of", BestOfConfig)
    size = settings.batch_size * settings.num_answers
    model = loading.language_model(entry_init(entry, name), context)
    texts = model.generate(
        records,
        key=context.key,
        batch_size=size,
        name=name,
        keep=context.workdir / ANSWERS / "points" / name,
    )
    found = _measures(context, reward, records, texts, f"points/{name}")
    given = [text for (text,) in texts]
    own, others = (
        _log_probs(m, records, given, batch_size=size) for m in (model, policy)
    )
    return {
        "label": entry.label,
        "kl": float((own - others).mean()),
        "kl_interval": list(mean_interval(own - others)),
        **{key: interval_of(key, values[:, 0]) for key, values in found.items()},
    }


def _measures(
    context: common.Context,
    reward: RewardModel,
    records: Sequence[Record],
    texts: Sequence[Sequence[str]],
    name: str,
) -> dict[str, np.ndarray]:
    """Measures of answers [M, K]: RM scores and, in the world, gold marks."""
    settings = common.block_of(context.config, "best_of", BestOfConfig)
    kept = KeptRows(
        context.workdir / ANSWERS / f"{name}-scores",
        [reward.weights, [r["prompt"] for r in records], [list(t) for t in texts]],
    )
    title = f"{name.rpartition('/')[2]} scores"
    progress = Progress(title, len(records), start=len(kept.rows), enabled=is_first())
    each = len(texts[0])
    size = settings.batch_size * settings.num_answers // each
    for start in range(len(kept.rows), len(records), size):
        part = slice(start, start + size)
        asked = [record for record in records[part] for _ in range(each)]
        given = [text for answers in texts[part] for text in answers]
        found = reward.score(asked, given, batch_size=size * each)
        kept.add(found.reshape(-1, each).tolist())
        progress.update(len(kept.rows), {})
    progress.close()
    measures = {"rm_score": np.array(kept.rows, np.float64)}
    world = context.data.world
    if world is not None:
        marks = [_marks(world, r, t) for r, t in zip(records, texts, strict=True)]
        measures["likert"] = np.array(marks, np.float64)
    return measures


def _marks(world: World, record: Record, texts: Sequence[str]) -> list[int]:
    """The gold judge's Likert marks of a prompt's answers."""
    # Equal texts are judged once.
    marks = {text: judge(world, record["task"], text).likert for text in set(texts)}
    return [marks[text] for text in texts]


def _log_probs(
    model: LanguageModel,
    records: Sequence[Record],
    texts: Sequence[str],
    *,
    batch_size: int,
) -> np.ndarray:
    """log p(answer | prompt) float[M], with the EOS of answers that were not cut."""
    tokenizer, limit = model.text.prompt_format.tokenizer, model.text.max_response
    whole = np.array([len(tokenizer.encode(text)) < limit for text in texts])
    found = np.zeros(len(texts))
    pairs: list[tuple[Any, str]]
    for ended in (True, False):
        numbers = np.flatnonzero(whole == ended)
        pairs = [(records[i], texts[i]) for i in map(int, numbers)]
        if pairs:
            likelihoods = model.log_likelihood(
                pairs, ended=ended, batch_size=batch_size
            )
            found[numbers] = [value.log_prob for value in likelihoods]
    return found


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The programs with which the policy answers and the reward model scores."""
    settings = common.block_of(config, "best_of", BestOfConfig)
    data = common.block_of(config, "data", DataConfig)
    policy, reward = (
        model_config(dataclasses.asdict(models[key]), mesh)
        for key in ("init", "reward_init")
    )
    remedy = "lower config.best_of.batch_size"
    size, each = settings.batch_size, settings.num_answers
    return {
        "answer": answers(
            "policy",
            policy,
            mesh,
            data,
            batch_size=size,
            num_samples=each,
            remedy=remedy,
        ),
        "score": scores(reward, mesh, data, batch_size=size * each, remedy=remedy),
    }


def check(config: ConfigDict, blocks: dict[str, Any], mesh: Mesh) -> None:
    """Raises UserError if other policies' KL could not be compared with best-of-n's."""
    del mesh
    _others(config, blocks["best_of"])


def _others(config: ConfigDict, settings: BestOfConfig) -> dict[str, ModelEntry]:
    """The other policies, by label; `check` says what is raised."""
    if not settings.policies:
        return {}
    if settings.temperature != 1.0:
        raise UserError(
            f"config.best_of.temperature={settings.temperature}: the KL of "
            "config.best_of.policies is measured at temperature 1; give 1.0, or no "
            "policies"
        )
    return build_entries(config, settings.policies)
