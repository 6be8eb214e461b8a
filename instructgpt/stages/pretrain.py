"""Pretraining: next-token prediction on packed documents (GPT-3, App. B)."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.documents import TokenWindows
from instructgpt.data.loader import make_loader
from instructgpt.errors import UserError
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.loop import Job, train
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost, causal, forward, update
from instructgpt.models.transformer import Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer, make_schedule
from instructgpt.ranges import NonNegativeInt
from instructgpt.sharding import batch_share
from instructgpt.stages import common, loading
from instructgpt.stages.programs import (
    Models,
    Program,
    planned_optimizer,
    texts,
    train_step,
)
from instructgpt.state import make_train_state, shardings_of
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import TrainStep, make_train_step
from instructgpt.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """How documents are cut into rows."""

    window: NonNegativeInt = 0  # tokens of a row; 0: the model's context length


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a language model from scratch; returns its last evaluation."""
    context = common.start(config, workdir)
    model_config = _for_tokenizer(
        common.model_config(config.model, context.mesh), context.data.tokenizer
    )
    common.check_model(context, model_config)
    train_config = common.block_of(config, "train", common.TrainConfig)
    pretrain = common.block_of(config, "pretrain", PretrainConfig)
    window, key = pretrain.window, "config.pretrain.window"
    windows = common.text_windows(context, "train", model_config, window, key=key)
    valid = common.valid_windows(
        context, model_config, window, key=key, what="valid_loss"
    )
    loader = make_loader(
        windows,
        None,
        batch_size=train_config.batch_size,
        seed=config.seed,
        **batch_share(context.mesh)._asdict(),
    )
    loop_config = train_config.loop(loader.steps_per_epoch, verify=context.verify)
    optimizer_config = common.block_of(config, "optimizer", OptimizerConfig)
    optimizer = make_optimizer(optimizer_config, loop_config.num_steps)
    model = Transformer(model_config)
    with jax.set_mesh(context.mesh):
        init_key, key = jax.random.split(context.key)
        state = make_train_state(model, optimizer, key=init_key, mesh=context.mesh)
        job = Job(
            name=config.name,
            update=_make_step(model, train_config, optimizer, shardings_of(state)),
            data=loader,
            to_device=common.to_device(context.mesh),
            count_tokens=common.count_valid,
            watch=("loss", "valid_loss", "grad_norm"),
            evaluate=_make_evaluate(context, model, valid, train_config),
            schedule=make_schedule(optimizer_config, loop_config.num_steps),
            flops=update(
                model_config, _forward_cost(model_config, train_config, window)
            ).flops,
            meta=loading.model_meta(
                model, kind="language", context=context, templated=False
            ),
        )
        state = train(
            *(job, state),
            config=loop_config,
            key=key,
            workdir=context.workdir,
            writer=context.metrics,
        )
        common.finish(context)
        return {"params": state.params}


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The update's program, on windows of full length."""
    del models  # pretraining starts from no model
    train_config = common.block_of(config, "train", common.TrainConfig)
    pretrain = common.block_of(config, "pretrain", PretrainConfig)
    model = Transformer(common.model_config(config.model, mesh))
    if not model.config.vocab_size:
        raise UserError(
            "config.model.vocab_size=0 is the tokenizer's, which a plan does not open; "
            "give the number"
        )
    optimizer = planned_optimizer(config, "optimizer")
    length = pretrain.window or model.config.context_length
    step = train_step(
        "model",
        model,
        optimizer,
        functools.partial(_make_step, model, train_config, optimizer),
        texts(mesh, train_config.batch_size, length),
        _forward_cost(model.config, train_config, length),
        mesh,
    )
    return {"train step": step}


def _forward_cost(
    config: ModelConfig, train_config: common.TrainConfig, window: int
) -> Cost:
    """Cost of a batch's forward pass; a window of 0 is the context length."""
    length = window or config.context_length
    count = train_config.batch_size * length
    return forward(config, tokens=count, seen=causal(length), predicted=count)


def _for_tokenizer(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model's config with a vocabulary of 0 replaced by the tokenizer's."""
    if config.vocab_size:
        return config
    ids = max(tokenizer.num_ids, tokenizer.pad_id + 1, config.padded_vocab_size)
    return dataclasses.replace(
        config,
        vocab_size=tokenizer.vocab_size,
        padded_vocab_size=ids,
        logit_chunk=0,  # chosen again, for this vocabulary
    )


def _make_step(
    model: Transformer,
    train_config: common.TrainConfig,
    optimizer: optax.GradientTransformation,
    shardings: Any,
) -> TrainStep:
    """Builds the jitted update; `shardings` are those of the state."""
    return make_train_step(
        make_sft_loss(model, leading_padding=False),
        optimizer,
        microbatches=train_config.microbatches,
        shardings=shardings,
    )


def _make_evaluate(
    context: common.Context,
    model: Transformer,
    windows: TokenWindows | None,
    train_config: common.TrainConfig,
) -> Callable[[Any, int], dict[str, float]] | None:
    """Builds the loss on held-out text; None if there is no such text."""
    if windows is None:
        return None
    evaluate_loss = make_loss_evaluator(
        model,
        windows,
        batch_size=train_config.batch_size,
        mesh=context.mesh,
    )
    return lambda state, step: {"valid_loss": evaluate_loss(state.params)}
