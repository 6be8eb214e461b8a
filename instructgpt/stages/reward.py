"""The reward model: one epoch over K-way rankings, then the shift to demonstrations.

Paper §3.5 and C.2: it starts from an SFT model with the unembedding replaced by a
scalar head; afterwards a bias makes the labelers' demonstrations average 0.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.datasets import DataConfig
from instructgpt.data.loader import make_loader
from instructgpt.data.packing import ComparisonPacker, rows_needed
from instructgpt.data.readers import SETS
from instructgpt.data.rows import Rows
from instructgpt.data.sources import Records
from instructgpt.data.transforms import count_cut, encode_comparison
from instructgpt.errors import UserError
from instructgpt.evals.preferences import (
    PairCounts,
    RankingResult,
    Rankings,
    accuracy_interval,
    count_untied,
    make_ranking_evaluator,
)
from instructgpt.evals.tables import format_interval
from instructgpt.inference import RewardModel
from instructgpt.loop import Job, train
from instructgpt.models.costs import causal, forward, left_out
from instructgpt.models.transformer import ScalarModel
from instructgpt.optim import OptimizerConfig, make_optimizer, make_schedule
from instructgpt.paths import resolve
from instructgpt.ranges import NonNegativeFloat, RankedInt
from instructgpt.sharding import batch_share, local_ways, put_batch
from instructgpt.stages import common, loading
from instructgpt.stages.inputs import has_valid, keep_short
from instructgpt.stages.label import has_report, open_comparisons
from instructgpt.stages.programs import (
    Models,
    Program,
    comparisons,
    planned_optimizer,
    started_from,
    train_step,
)
from instructgpt.state import (
    TrainState,
    make_train_state,
    scalar_params_from,
    shardings_of,
)
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.update import TrainStep, make_train_step

_HELD_OUT = ("valid", "heldout")  # "heldout" is the test split of one's own data


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Where the rankings are and how their loss is divided."""

    max_responses: RankedInt  # K: slots for the answers of a prompt
    # A label stage's workdir. If "", or if that stage ranked nothing, the data's own
    # comparisons.SPLIT.jsonl, whose test split takes the place of held-out labelers.
    comparisons: str = ""
    # The scalar head starts at std head_scale/sqrt(D + 1).
    head_scale: NonNegativeFloat = 1.0
    # A prompt's loss is divided by its untied pairs, or by all C(K, 2) (Eq. 1).
    divisor: Literal["untied", "all"] = "untied"


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a reward model on rankings."""
    context = common.start(config, workdir)
    reward = common.block_of(config, "reward", RewardConfig)
    init = common.block_of(config, "init", loading.InitConfig)
    train_config = common.block_of(config, "train", common.TrainConfig)
    own = _reads_own(context, reward)
    rows, held_out = _rankings(context, reward, train_config, own=own)
    demonstrations = _open_demonstrations(context)
    loader = make_loader(
        rows,
        None,
        batch_size=train_config.batch_size,
        seed=config.seed,
        **batch_share(context.mesh)._asdict(),
        # All batches have room for the largest, so the smaller that is, the better.
        sizes=[rows_needed(rows[i]) for i in range(len(rows))],
    )
    loop_config = train_config.loop(loader.steps_per_epoch, verify=context.verify)
    optimizer_config = common.block_of(config, "optimizer", OptimizerConfig)
    optimizer = make_optimizer(optimizer_config, loop_config.num_steps)
    with jax.set_mesh(context.mesh):
        model, state, key = _initial_state(context, config, init, reward, optimizer)
        pack = ComparisonPacker(
            itertools.islice(loader.whole_pass(), loop_config.num_steps),
            groups=math.lcm(local_ways(context.mesh), train_config.microbatches),
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
            meta=loading.model_meta(model, kind="scalar", context=context),
        )
        state = train(job, state, config=loop_config, key=key, workdir=context.workdir)
        common.finish(context)
        _announce_accuracies(evaluate.counts(state), joined=own)
        return {"params": state.params}


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The update, with K answers a prompt that are each as long as one may be."""
    reward = common.block_of(config, "reward", RewardConfig)
    train_config = common.block_of(config, "train", common.TrainConfig)
    data = common.block_of(config, "data", DataConfig)
    model = ScalarModel(started_from(config, "init", models, mesh))
    optimizer = planned_optimizer(config, "optimizer")
    rows, slots = train_config.batch_size, reward.max_responses
    prompts = dict(tokens=rows * data.max_prompt, seen=causal(data.max_prompt))
    answers = forward(
        model.config,
        tokens=rows * slots * data.max_response,
        seen=data.max_prompt + causal(data.max_response),
    )
    cost = forward(model.config, **prompts).plus(answers._replace(bytes=0.0))
    cost = cost.plus(left_out(model.config, **prompts))
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


def _make_step(
    model: ScalarModel,
    reward: RewardConfig,
    train_config: common.TrainConfig,
    optimizer: optax.GradientTransformation,
    shardings: Any,
) -> TrainStep:
    """The jitted update; shardings are those of the state."""
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
    """The SFT model with a fresh head, and the key for training."""
    loaded = loading.load(init, context, overrides=common.overrides(config.model))
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


class _Split(NamedTuple):
    """Records, and the numbers of those that fit."""

    source: Records
    keep: np.ndarray


def _reads_own(context: common.Context, reward: RewardConfig) -> bool:
    """Whether the rankings are the data's own, as no label stage has made others."""
    if not reward.comparisons:
        return True
    made = has_report(resolve(reward.comparisons, context.workdir))
    return not made and context.data.has("comparisons", "train")


def _open_rankings(
    context: common.Context, reward: RewardConfig, *, own: bool
) -> dict[str, _Split]:
    """Splits by name: train, and of valid and heldout those that there are."""
    if own:
        sources = {"train": context.data.source("comparisons", "train")}
        if has_valid(context, "comparisons", "accuracy on valid pairs"):
            sources["valid"] = context.data.source("comparisons", "valid")
        if context.data.has("comparisons", "test"):
            sources["heldout"] = context.data.source("comparisons", "test")
    else:
        directory = resolve(reward.comparisons, context.workdir)
        sources = {s: open_comparisons(directory, s) for s in ("train", *_HELD_OUT)}
    return {
        name: _Split(source, keep_short(context, source, f"{name} rankings"))
        for name, source in sources.items()
    }


def _rankings(
    context: common.Context,
    reward: RewardConfig,
    train_config: common.TrainConfig,
    *,
    own: bool,
) -> tuple[Rows, dict[str, Rankings]]:
    """The encoded rankings to train on, and the held-out splits that have a pair.

    Raises:
      UserError: there is nothing to train on.
    """
    encode = comparison_encoder(context, reward.max_responses)
    train, *splits = _open_rankings(context, reward, own=own).items()
    rows = Rows(train[1].source, encode, train[1].keep)
    _tell_cut(context, "train", rows)
    if not count_untied(rows):
        raise UserError(
            f"{train[1].source.label}: in none of {len(rows)} rankings is one answer "
            "ranked above another that differs from it in its first "
            f"config.data.max_response={context.data_config.max_response} tokens; give "
            "rankings with such pairs, or raise the limit"
        )
    held_out = {}
    for name, split in splits:
        found = Rankings(
            split.source,
            encode,
            batch_size=train_config.batch_size,
            mesh=context.mesh,
            keep=split.keep,
        )
        _tell_cut(context, name, found.rows)
        if count_untied(found.rows):
            held_out[name] = found
        else:
            common.announce(
                f"reward: none of {len(found.ids)} {name} rankings has an untied pair, "
                f"so there is no accuracy on {name} pairs"
            )
    return rows, held_out


def _tell_cut(context: common.Context, name: str, rows: Rows) -> None:
    """Prints how many answers of a split are longer than a response may be."""
    limit, end_id = context.data_config.max_response, context.data.prompt_format.end_id
    cut = sum(count_cut(rows[i], end_id) for i in range(len(rows)))
    if cut:
        count = sum(int(rows[i].present.sum()) for i in range(len(rows)))
        common.announce(
            f"reward: {cut} of {count} {name} answers have more than {limit} tokens "
            "(config.data.max_response) and are cut there; raise the limit to compare "
            "them whole"
        )


def _announce_accuracies(counts: dict[str, PairCounts], *, joined: bool) -> None:
    """Prints the accuracy on each split, and on all of them where people are alike."""
    if joined and len(counts) > 1:
        # Rankings of the same people, none of which chose anything here.
        counts = {**counts, "all held-out": PairCounts.joined(counts.values())}
    for split, found in counts.items():
        _announce_accuracy(split, found)


def _announce_accuracy(split: str, counts: PairCounts) -> None:
    """Prints the accuracy with its 95 % interval, also of each public set."""
    parts = {"": counts}
    # `prepare` starts an id with SET/.
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


def comparison_encoder(context: common.Context, max_responses: int) -> Any:
    """Record -> ComparisonBatch row with this stage's lengths."""
    return functools.partial(
        encode_comparison,
        prompt_format=context.data.prompt_format,
        max_prompt=context.data_config.max_prompt,
        max_response=context.data_config.max_response,
        max_responses=max_responses,
    )


def _count_tokens(batch: Any) -> int:
    return int(batch.prompt_valid.sum() + batch.response_valid.sum())


class _Evaluate:
    """(state, step) -> {SPLIT_loss, SPLIT_accuracy}; keeps what it found last."""

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
        """Of the last evaluation, which a run resumed after its end has not made."""
        if not self._found:
            self(state, 0)
        return {split: found.counts for split, found in self._found.items()}


def _open_demonstrations(context: common.Context) -> _Split | None:
    """Those whose mean score becomes 0; without any, a line says that none does."""
    if not context.data.has("demonstrations", "train"):
        common.announce(
            "reward: the data have no train demonstrations, so scores are not shifted "
            "to average 0 on them; add demonstrations.train.jsonl to have that"
        )
        return None
    source = context.data.source("demonstrations", "train")
    what = "train demonstrations"
    return _Split(source, keep_short(context, source, what, responses=True))


def _shifting(
    context: common.Context,
    demonstrations: _Split | None,
    model: ScalarModel,
    rows: int,
) -> Callable[[TrainState], tuple[TrainState, dict[str, Any]]] | None:
    """What subtracts the demonstrations' mean score from the bias of the last state."""
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
    demonstrations: _Split,
    model: ScalarModel,
    params: Any,
    *,
    rows: int,
) -> float:
    """Mean score of the demonstrations that fit, so many rows at a time."""
    records = [demonstrations.source[int(i)] for i in demonstrations.keep]
    source = f"{context.workdir}, before the shift"
    text = loading.text_format(context)
    trained = RewardModel(model, params, text, context.mesh, source)
    responses = [r["response"] for r in records]
    return float(trained.score(records, responses, batch_size=rows).mean())
