"""Chooses the SFT checkpoint by mean reward-model score (paper §3.5, C.1).

Validation loss rises after one epoch. The reward model's score of sampled answers to
validation prompts does not fall, and it predicts what people prefer.
"""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.distributed import is_first
from instructgpt.identity import check_left
from instructgpt.metrics import read_metrics
from instructgpt.paths import resolve
from instructgpt.progress import print_table
from instructgpt.ranges import FolderPath, NonNegativeFloat, NonNegativeInt, PositiveInt
from instructgpt.stages import common, loading
from instructgpt.stages.asking import short_prompts
from instructgpt.stages.programs import Models, Program, asking_programs


@dataclasses.dataclass(frozen=True)
class SelectConfig:
    """The checkpoints to choose from, and the data of the choice."""

    candidates: FolderPath  # an SFT stage's workdir with a checkpoint an epoch
    reward: FolderPath  # a reward stage's workdir
    num_prompts: NonNegativeInt = 0  # number of validation prompts; 0: all
    every: PositiveInt = 1  # considers each n-th checkpoint, and the last
    temperature: NonNegativeFloat = 1.0
    batch_size: PositiveInt = 64


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Scores every candidate and writes `selected.json`."""
    context = common.start(config, workdir)
    select = common.build(SelectConfig, config.select, where="config.select")
    path = context.workdir / "selected.json"
    if path.exists():
        common.finish(context)
        return loading.read_selected(path)
    records = short_prompts(context, "valid", count=select.num_prompts)
    steps = loading.checkpoint_steps(select.candidates, context)
    chosen = sorted({*steps[:: -select.every], steps[-1]})
    rows: list[dict[str, Any]] = []
    reward = loading.reward_model(loading.InitConfig(select.reward), context)
    for step in chosen:
        init = loading.InitConfig(select.candidates, step=step)
        texts = loading.language_model(init, context).generate(
            records,
            temperature=select.temperature,
            key=context.key,
            batch_size=select.batch_size,
            name=f"{config.name} {step}",
        )
        answers = [t[0] for t in texts]
        scores = reward.score(records, answers, batch_size=select.batch_size)
        rows.append({"step": step, "rm_score": float(scores.mean())})
    losses = _valid_losses(select.candidates, context)
    with context.metrics as writer:
        writer.resume(0)  # deletes the metrics of a run that was killed here
        for row in rows:
            row["epoch"] = steps.index(row["step"]) + 1
            row["valid_loss"] = losses.get(row["step"])
            writer.write(row["step"], {"rm_score": row["rm_score"]})
    best = max(rows, key=lambda r: r["rm_score"])
    for row in rows:
        row["chosen"] = row is best
    columns = ("epoch", "step", "valid_loss", "rm_score", "chosen")
    if is_first():
        print_table(
            [[r[c] if c != "chosen" else "*" * r[c] for c in columns] for r in rows],
            columns,
        )
    result = {"step": best["step"], "epochs": rows}
    common.write_json(path, result)
    common.finish(context)
    return result


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The programs with which a candidate answers and the reward model scores."""
    keys = dict(policy="select.candidates", reward="select.reward")
    return asking_programs(config, mesh, models, block="select", **keys)


def _valid_losses(candidates: str, context: common.Context) -> dict[int, float]:
    path = Path(resolve(candidates, context.workdir)) / "metrics.jsonl"
    if not path.exists():
        return {}
    check_left(path, remedy="run that stage again")
    rows = read_metrics(path)
    return {int(r["step"]): r["valid_loss"] for r in rows if "valid_loss" in r}
