"""Supervised fine-tuning, and RL-init, which mixes in pretraining text.

The SFT baselines train for 16 epochs with a checkpoint after each (paper §3.5, C.1);
RL's initial policy trains for 2 epochs with 10 % pretraining data (C.3).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.batches import TokenBatch
from instructgpt.data.datasets import DataConfig
from instructgpt.data.loader import make_loader, make_mixed_loader, mixed_rows
from instructgpt.data.packing import PackedRows
from instructgpt.data.records import Record
from instructgpt.data.transforms import encode_demonstration
from instructgpt.distributed import first_then_others
from instructgpt.errors import UserError, about
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.loop import Job, train
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost, causal, forward, update
from instructgpt.models.transformer import Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer, make_schedule
from instructgpt.ranges import Fraction, NonNegativeInt
from instructgpt.sharding import batch_share
from instructgpt.stages import common, loading
from instructgpt.stages.asking import make_sample_table
from instructgpt.stages.inputs import has_valid, short_rows
from instructgpt.stages.programs import (
    Models,
    Program,
    planned_optimizer,
    started_from,
    texts,
    train_step,
)
from instructgpt.state import make_train_state, shardings_of
from instructgpt.steps.sft import make_sft_loss, weigh_pretraining
from instructgpt.steps.update import TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """Targets of the loss, and how demonstrations and text are mixed."""

    # Target tokens: the response with its EOS, or all tokens.
    loss_on: Literal["response", "all"] = "response"
    # Share of pretraining text (paper C.3: 10 %). It is a share of the loss, a weighted
    # sum of the two means per token, or of a batch's rows under one mean over all
    # targets, in which text counts far more because all of its tokens are targets.
    pretrain_fraction: Fraction = 0.0
    pretrain_share_of: Literal["loss", "rows"] = "loss"
    # Tokens of a row that packs several demonstrations; 0: one demonstration per row.
    # The batch size is a number of rows.
    pack_length: NonNegativeInt = 0
    num_demonstrations: NonNegativeInt = 0  # number of training ones, the first; 0: all
    num_samples: NonNegativeInt = 8  # validation prompts answered at each evaluation
    # Categories and styles of the demonstrations that are used, by the records' fields
    # of these names; (): all.
    categories: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Fine-tunes a pretrained model on demonstrations."""
    context = common.start(config, workdir)
    sft = common.block_of(config, "sft", SFTConfig)
    init = common.block_of(config, "init", loading.InitConfig)
    train_config = common.block_of(config, "train", common.TrainConfig)
    encode = functools.partial(
        encode_demonstration,
        prompt_format=context.data.prompt_format,
        max_prompt=context.data_config.max_prompt,
        max_response=context.data_config.max_response,
        loss_on=sft.loss_on,
    )
    with jax.set_mesh(context.mesh):
        with about("config.init"):
            changed = common.overrides(config.model)
            loaded = loading.load(init, context, overrides=changed)
        if sft.pack_length:
            _check_packing(context, sft)
        model = loaded.model
        loader = _loader(context, sft, train_config, encode)
        loop_config = train_config.loop(loader.steps_per_epoch, verify=context.verify)
        optimizer_config = common.block_of(config, "optimizer", OptimizerConfig)
        optimizer = make_optimizer(optimizer_config, loop_config.num_steps)
        state = make_train_state(
            model,
            optimizer,
            key=context.key,
            mesh=context.mesh,
            params=loaded.params,
        )
        job = Job(
            name=config.name,
            update=_make_step(
                model,
                sft,
                train_config,
                context.data_config,
                optimizer,
                shardings_of(state),
            ),
            data=loader,
            to_device=common.to_device(context.mesh),
            count_tokens=common.count_valid,
            watch=("loss", "valid_loss", "grad_norm"),
            evaluate=_make_evaluate(context, sft, model, encode, train_config),
            schedule=make_schedule(optimizer_config, loop_config.num_steps),
            flops=_step_flops(model.config, sft, train_config, context.data_config),
            meta=loading.model_meta(model, kind="language", context=context),
        )
        state = train(
            *(job, state),
            config=loop_config,
            key=context.key,
            workdir=context.workdir,
            writer=context.metrics,
        )
        common.finish(context)
        return {"params": state.params, "steps_per_epoch": loader.steps_per_epoch}


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The update's program, on full rows."""
    sft = common.block_of(config, "sft", SFTConfig)
    train_config = common.block_of(config, "train", common.TrainConfig)
    data = common.block_of(config, "data", DataConfig)
    model = Transformer(started_from(config, "init", models, mesh))
    optimizer = planned_optimizer(config, "optimizer")
    step = train_step(
        "model",
        model,
        optimizer,
        functools.partial(_make_step, model, sft, train_config, data, optimizer),
        texts(mesh, train_config.batch_size, _row_length(sft, data)),
        _forward_cost(model.config, sft, train_config, data),
        mesh,
    )
    return {"train step": step}


def _forward_cost(
    config: ModelConfig,
    sft: SFTConfig,
    train_config: common.TrainConfig,
    data: DataConfig,
) -> Cost:
    """Cost of a batch's forward pass, with the padding of its rows."""
    rows, length = train_config.batch_size, _row_length(sft, data)
    return forward(
        config,
        tokens=rows * length,
        seen=causal(length),
        predicted=rows * (length - _first_target(sft, data)),
    )


def _step_flops(config: ModelConfig, *sizes: Any) -> float:
    """Operations of an update; `sizes` are the further arguments of `_forward_cost`."""
    return update(config, _forward_cost(config, *sizes)).flops


def _row_length(sft: SFTConfig, data: DataConfig) -> int:
    """Tokens of a row, padding included."""
    return sft.pack_length or data.max_prompt + data.max_response


def _first_target(sft: SFTConfig, data: DataConfig) -> int:
    """First column that can be a target: P if all targets are in responses, else 1."""
    own_rows = not (sft.pretrain_fraction or sft.pack_length)
    return data.max_prompt if sft.loss_on == "response" and own_rows else 1


def _make_step(
    model: Transformer,
    sft: SFTConfig,
    train_config: common.TrainConfig,
    data: DataConfig,
    optimizer: optax.GradientTransformation,
    shardings: Any,
) -> TrainStep:
    """Builds the jitted update; `shardings` are those of the state."""
    first, packed = _first_target(sft, data), bool(sft.pack_length)
    return make_train_step(
        make_sft_loss(model, first_target=first, packed=packed),
        optimizer,
        microbatches=train_config.microbatches,
        prepare=_weighing(sft, train_config.batch_size),
        shardings=shardings,
    )


def _weighing(
    sft: SFTConfig, batch_size: int
) -> Callable[[TokenBatch], TokenBatch] | None:
    """Builds the weighting that gives pretraining rows their share of the loss."""
    if not sft.pretrain_fraction or sft.pretrain_share_of == "rows":
        return None
    return functools.partial(
        weigh_pretraining,
        rows=mixed_rows(sft.pretrain_fraction, batch_size),
        share=sft.pretrain_fraction,
    )


def _check_packing(context: common.Context, sft: SFTConfig) -> None:
    limits = context.data_config
    longest = limits.max_prompt + limits.max_response
    if sft.pretrain_fraction:
        raise UserError(
            f"config.sft.pack_length={sft.pack_length}: rows of demonstrations and of "
            "pretraining text are mixed unpacked; use 0, or pretrain_fraction=0"
        )
    if sft.pack_length < longest:
        raise UserError(
            f"config.sft.pack_length={sft.pack_length}: a demonstration may have "
            f"max_prompt + max_response = {longest} tokens; give as many or more"
        )


def _demonstrations(
    context: common.Context, sft: SFTConfig, split: str
) -> Sequence[Record]:
    """The demonstrations of a split in the config's categories and styles.

    Raises:
      UserError: there are none.
    """
    source: Sequence[Record] = context.data.source("demonstrations", split)
    for field, wanted in (("category", sft.categories), ("style", sft.styles)):
        if wanted:
            found = sorted({record[field] for record in source})
            source = [record for record in source if record[field] in wanted]
            if not source:
                key = {"category": "categories", "style": "styles"}[field]
                raise UserError(
                    f"config.sft.{key}={wanted}: no {split} demonstration has such a "
                    f"{field}; there are {', '.join(map(repr, found[:20]))}"
                )
    return source


def _loader(context, sft: SFTConfig, train_config: common.TrainConfig, encode):
    demonstrations = _demonstrations(context, sft, "train")
    what = "train demonstrations"
    rows = short_rows(context, demonstrations, encode, what, responses=True)
    rows = rows.first(sft.num_demonstrations or len(rows))
    shared = dict(
        batch_size=train_config.batch_size,
        seed=context.config.seed,
        **batch_share(context.mesh)._asdict(),
    )
    if sft.pack_length:
        packed = PackedRows(rows, sft.pack_length)
        return make_loader(packed, None, **shared)
    if not sft.pretrain_fraction:
        return make_loader(rows, None, **shared)
    return make_mixed_loader(
        rows,
        first_then_others(lambda: context.data.tokens("train")),
        fraction=sft.pretrain_fraction,
        **shared,
    )


def _make_evaluate(context, sft: SFTConfig, model, encode, train_config):
    if not has_valid(context, "demonstrations", "valid_loss and no samples"):
        return None
    valid = _demonstrations(context, sft, "valid")
    what = "valid demonstrations"
    rows = short_rows(context, valid, encode, what, responses=True)
    first = context.data_config.max_prompt if sft.loss_on == "response" else 1
    evaluate_loss = make_loss_evaluator(
        model,
        rows,
        batch_size=train_config.batch_size,
        mesh=context.mesh,
        first_target=first,
    )
    shown = [rows.record(row) for row in range(min(sft.num_samples, len(rows)))]
    sample_table = make_sample_table(context, model, shown)

    def evaluate(state: Any, step: int) -> dict[str, float]:
        sample_table(state.params, step)
        return {"valid_loss": evaluate_loss(state.params)}

    return evaluate
