"""Trains the reward model: one epoch of K-way rankings, then a shift of the bias.

Paper §3.5 and C.2: the model starts from an SFT model whose unembedding is replaced by
a scalar head. After training, a bias makes the labelers' demonstrations average 0.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.arrays import Params
from instructgpt.data.datasets import DataConfig
from instructgpt.data.loader import make_loader
from instructgpt.data.packing import ComparisonPacker, rows_needed
from instructgpt.data.readers import SETS
from instructgpt.data.transforms import Record, encode_demonstration
from instructgpt.errors import about
from instructgpt.evals.ranking_accuracy import (
    PairCounts,
    RankingResult,
    Rankings,
    accuracy_interval,
    make_ranking_evaluator,
)
from instructgpt.evals.report.tables import format_interval
from instructgpt.inference import RewardModel
from instructgpt.loop import Job, train
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost, causal, forward, left_out, update
from instructgpt.models.transformer import ScalarModel
from instructgpt.optim import OptimizerConfig, make_optimizer, make_schedule
from instructgpt.sharding import batch_share, batch_ways, local_ways, put_batch
from instructgpt.stages import common, loading
from instructgpt.stages.inputs import short_rows
from instructgpt.stages.programs import (
    Models,
    Program,
    comparisons,
    planned_optimizer,
    started_from,
    train_step,
)
from instructgpt.stages.rankings import (
    RewardConfig,
    encoded_rankings,
    reads_own,
)
from instructgpt.state import (
    TrainState,
    make_train_state,
    scalar_params_from,
    shardings_of,
)
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.update import TrainStep, make_train_step


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a reward model on rankings."""
    context = common.start(config, workdir)
    reward = common.block_of(config, "reward", RewardConfig)
    init = common.block_of(config, "init", loading.InitConfig)
    train_config = common.block_of(config, "train", common.TrainConfig)
    own = reads_own(context, reward)
    rows, held_out = encoded_rankings(context, reward, train_config, own=own)
    demonstrations = _demonstrations(context)
    loader = make_loader(
        rows,
        None,
        batch_size=train_config.batch_size,
        seed=config.seed,
        **batch_share(context.mesh)._asdict(),
        # All batches have the size of the largest, so rankings are spread evenly.
        sizes=[int(rows_needed(rows[i])) for i in range(len(rows))],
    )
    loop_config = train_config.loop(loader.steps_per_epoch, verify=context.verify)
    optimizer_config = common.block_of(config, "optimizer", OptimizerConfig)
    optimizer = make_optimizer(optimizer_config, loop_config.num_steps)
    with jax.set_mesh(context.mesh):
        model, state, key = _initial_state(context, config, init, reward, optimizer)
        groups = math.lcm(local_ways(context.mesh), train_config.microbatches)
        pack = ComparisonPacker(
            itertools.islice(loader.whole_pass(), loop_config.num_steps),
            groups=groups,
        )
        groups *= batch_ways(context.mesh) // local_ways(context.mesh)
        cost = _forward_cost(
            model.config,
            context.data_config,
            prompts=train_config.batch_size,
            rows=groups * pack.rows,
        )
        evaluate = _Evaluate(model, held_out, context.mesh)
        job = Job(
            name=config.name,
            update=_make_step(
                model, reward, train_config, optimizer, shardings_of(state)
            ),
            data=loader,
            to_device=lambda batch: put_batch(pack(batch), context.mesh),
            count_tokens=_count_tokens,
            watch=("loss", "accuracy", "valid_accuracy", "heldout_accuracy"),
            evaluate=evaluate,
            schedule=make_schedule(optimizer_config, loop_config.num_steps),
            finish=_shifting(context, demonstrations, model, train_config.batch_size),
            flops=update(model.config, cost).flops,
            meta=loading.model_meta(model, kind="scalar", context=context),
        )
        state = train(
            *(job, state),
            config=loop_config,
            key=key,
            workdir=context.workdir,
            writer=context.metrics,
        )
        common.finish(context)
        _announce_accuracies(evaluate.counts(state), joined=own)
        return {"params": state.params}


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The update's program, with K answers of full length per prompt."""
    reward = common.block_of(config, "reward", RewardConfig)
    train_config = common.block_of(config, "train", common.TrainConfig)
    data = common.block_of(config, "data", DataConfig)
    model = ScalarModel(started_from(config, "init", models, mesh))
    optimizer = planned_optimizer(config, "optimizer")
    rows, slots = train_config.batch_size, reward.max_responses
    cost = _forward_cost(model.config, data, prompts=rows, rows=rows * slots)
    step = train_step(
        "reward model",
        model,
        optimizer,
        functools.partial(_make_step, model, reward, train_config, optimizer),
        comparisons(mesh, rows, slots, data, train_config.microbatches),
        cost,
        mesh,
    )
    return {"train step": step}


def _forward_cost(
    config: ModelConfig, data: DataConfig, *, prompts: int, rows: int
) -> Cost:
    """Cost of a batch's forward pass, with its padding.

    Args:
      config: The model's config.
      data: Its limits are the lengths of a prompt and of a row of answers.
      prompts: Number of prompts of the batch.
      rows: Number of rows that its answers fill.
    """
    read: dict[str, float] = dict(
        tokens=prompts * data.max_prompt, seen=causal(data.max_prompt)
    )
    answers = forward(
        config,
        tokens=rows * data.max_response,
        seen=data.max_prompt + causal(data.max_response),
    )
    cost = forward(config, **read).plus(answers._replace(bytes=0.0))
    return cost.plus(left_out(config, **read))


def _make_step(
    model: ScalarModel,
    reward: RewardConfig,
    train_config: common.TrainConfig,
    optimizer: optax.GradientTransformation,
    shardings: Any,
) -> TrainStep:
    """Builds the jitted update; `shardings` are those of the state."""
    return make_train_step(
        make_reward_loss(model, divisor=reward.divisor),
        optimizer,
        microbatches=train_config.microbatches,
        shardings=shardings,
    )


def _initial_state(
    context: common.Context,
    config: ConfigDict,
    init: loading.InitConfig,
    reward: RewardConfig,
    optimizer: optax.GradientTransformation,
) -> tuple[ScalarModel, TrainState, jax.Array]:
    """The SFT model with a new head as a training state, and the key for training."""
    with about("config.init"):
        changed = common.overrides(config.model)
        loaded = loading.load(init, context, overrides=changed)
    model = ScalarModel(loaded.model.config)
    head_key, key = jax.random.split(context.key)
    params = scalar_params_from(
        loaded.params,
        model,
        head_key,
        context.mesh,
        head_scale=reward.head_scale,
    )
    state = make_train_state(
        model, optimizer, key=head_key, mesh=context.mesh, params=params
    )
    return model, state, key


def _announce_accuracies(counts: dict[str, PairCounts], *, joined: bool) -> None:
    """Prints the accuracy on each split and, if `joined`, on all splits together."""
    if joined and len(counts) > 1:
        # All are by the same people, and no choice was made on any of them.
        counts = {**counts, "all held-out": PairCounts.joined(counts.values())}
    for split, found in counts.items():
        _announce_accuracy(split, found)


def _announce_accuracy(split: str, counts: PairCounts) -> None:
    """Prints the accuracy with its 95 % interval, also for each public data set."""
    parts = {"": counts}
    # In data of `prepare` an id starts with SET/.
    sets = sorted({name.partition("/")[0] for name in counts.ids} & SETS.keys())
    if len(sets) > 1:
        for name in sets:
            parts[f" of {name}"] = counts.of(f"{name}/")
    for name, part in parts.items():
        if part.pairs.sum():
            found = format_interval(accuracy_interval(part), 3)
            common.announce(
                f"reward: accuracy on {split} pairs{name} {found} "
                f"({len(part.ids)} rankings, {part.pairs.sum():.0f} pairs)"
            )


def _count_tokens(batch: Any) -> int:
    return int(batch.prompt_valid.sum() + batch.response_valid.sum())


class _Evaluate:
    """Evaluates (state, step) -> {SPLIT_loss, SPLIT_accuracy}, and keeps the counts."""

    def __init__(self, model: ScalarModel, held_out: dict[str, Rankings], mesh: Mesh):
        self._run = make_ranking_evaluator(model, mesh)
        self._held_out = held_out
        self._found: dict[str, RankingResult] = {}

    def __call__(self, state: TrainState, step: int) -> dict[str, float]:
        del step
        self._found = {s: self._run(state.params, r) for s, r in self._held_out.items()}
        metrics = {}
        for split, found in self._found.items():
            metrics[f"{split}_loss"] = found.loss
            metrics[f"{split}_accuracy"] = found.accuracy
        return metrics

    def counts(self, state: TrainState) -> dict[str, PairCounts]:
        """Counts of the last evaluation; a run resumed after its end makes one."""
        if not self._found:
            self(state, 0)
        return {split: found.counts for split, found in self._found.items()}


def _demonstrations(context: common.Context) -> list[Record] | None:
    """Demonstrations whose mean score becomes 0; prints a line if there are none."""
    if not context.data.has("demonstrations", "train"):
        common.announce(
            "reward: the data have no train demonstrations, so scores are not shifted "
            "to average 0 on them; add demonstrations.train.jsonl to have that"
        )
        return None
    source = context.data.source("demonstrations", "train")
    encode = functools.partial(
        encode_demonstration,
        prompt_format=context.data.prompt_format,
        max_prompt=context.data_config.max_prompt,
        max_response=context.data_config.max_response,
    )
    what = "train demonstrations"
    rows = short_rows(context, source, encode, what, responses=True)
    return [rows.record(row) for row in range(len(rows))]


def _shifting(
    context: common.Context,
    demonstrations: list[Record] | None,
    model: ScalarModel,
    rows: int,
) -> Callable[[TrainState], tuple[TrainState, dict[str, Any]]] | None:
    """Builds the shift of the bias by the demonstrations' mean score."""
    if demonstrations is None:
        return None

    def finish(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        mean = _demonstration_mean(
            context, demonstrations, model, state.params, rows=rows
        )
        common.announce(f"reward: demonstrations averaged {mean:.3f}, now 0")
        params = {**state.params, "bias": state.params["bias"] - mean}
        return dataclasses.replace(state, params=params), {"demonstration_mean": mean}

    return finish


def _demonstration_mean(
    context: common.Context,
    demonstrations: list[Record],
    model: ScalarModel,
    params: Params,
    *,
    rows: int,
) -> float:
    """Mean score of the demonstrations, computed in batches of `rows`."""
    source = f"{context.workdir}, before the shift"
    text = loading.text_format(context)
    trained = RewardModel(model, params, text, context.mesh, source)
    responses = [record["response"] for record in demonstrations]
    return float(trained.score(demonstrations, responses, batch_size=rows).mean())
