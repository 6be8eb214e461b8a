"""Descriptions of a stage's jitted functions, with abstract arguments.

They hold only shapes, dtypes and shardings of a mesh that need not exist. A stage's
`run` uses the same builders, so what is planned is what runs.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from instructgpt.batches import PackedComparisonBatch, PromptBatch, TokenBatch
from instructgpt.data.datasets import DataConfig
from instructgpt.generation import make_sampler
from instructgpt.inference.programs import shared_scorer
from instructgpt.models import costs
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import (
    batch_ways,
    local_ways,
    moves_tokens,
    replicated,
    round_up,
    spec,
)
from instructgpt.stages.blocks import block_of, overrides
from instructgpt.stages.inputs import model_config
from instructgpt.state import (
    TrainState,
    params_layout,
    shardings_of,
    train_state_layout,
)

# Config block or key that names a checkpoint -> config of the model in it.
Models = Mapping[str, ModelConfig]

_STEPS = 1000  # length of a planned schedule; it does not change shapes


class Trips(NamedTuple):
    """Numbers of iterations of loops whose end depends on the data."""

    alone: float = 1  # of a loop that neither contains nor is in another such loop
    outer: float = 1  # of a loop that contains another
    inner: float = 1  # of that other loop, each time


class Program(NamedTuple):
    """A jitted function of a stage, with what a plan needs to know about it."""

    jitted: Any
    arguments: tuple[Any, ...]  # ShapeDtypeStructs with shardings
    calls: float = 1  # number of calls in an iteration of the stage
    # Arguments that the stage holds all the time, by a readable name.
    held: Mapping[str, Any] = {}
    # Further abstract arrays that are in memory while it runs.
    beside: Any = ()
    # Cost of a call by models/costs, over all devices. None: it is not counted.
    cost: Cost | None = None
    # The part of the cost's bytes that all devices of a group read: weights. None: all.
    weights: float | None = None
    trips: Trips = Trips()
    without: str = (
        ""  # name of a program that is a part of this one and is counted separately
    )
    # The key of its number of microbatches, such as "train.microbatches", and another
    # remedy if it needs too much memory.
    microbatches: str = ""
    remedy: str = "lower config.train.batch_size"


def started_from(
    config: ConfigDict, block: str, models: Models, mesh: Mesh
) -> ModelConfig:
    """Config of the model in a block's checkpoint, with the stage's changes."""
    values = {**dataclasses.asdict(models[block]), **overrides(config.model).to_dict()}
    return model_config(values, mesh)


def planned_optimizer(config: ConfigDict, name: str) -> Any:
    """The optimiser of a block, for a run of unknown length."""
    return make_optimizer(block_of(config, name, OptimizerConfig), _STEPS)


def held_state(name: str, state: TrainState) -> dict[str, Any]:
    """The parts of a training state that are held in memory, by name."""
    return {
        f"{name}: parameters": state.params,
        f"{name}: optimiser": state.parts()["optimizer"],
    }


def train_step(
    name: str,
    model: Any,
    optimizer: optax.GradientTransformation,
    make_step: Callable[[Any], Any],
    batch: Any,
    cost: Cost,
    mesh: Mesh,
) -> Program:
    """The program of the update of a stage that trains one model.

    Args:
      name: Readable name of the model.
      model: The model's module.
      optimizer: The model's optimiser.
      make_step: Builds the step from the shardings of the state.
      batch: An abstract batch; the next batch is on the devices at the same time.
      cost: Cost of the forward pass.
      mesh: The mesh to run on.
    """
    state = train_state_layout(model, optimizer, mesh)
    return Program(
        make_step(shardings_of(state)),
        (state, batch, random_key(mesh)),
        held=held_state(name, state),
        beside=batch,
        cost=costs.update(model.config, cost),
        microbatches="train.microbatches",
        remedy="raise config.train.microbatches",
    )


def answers(
    name: str,
    config: ModelConfig,
    mesh: Mesh,
    data: DataConfig,
    *,
    batch_size: int,
    num_samples: int = 1,
    remedy: str,
) -> Program:
    """The program with which a language model answers a batch of prompts.

    Args:
      name: Readable name of the model.
      config: The model's config.
      mesh: The mesh to run on.
      data: Its limits are the lengths of all prompts and responses.
      batch_size: Prompts in a batch, rounded up for the mesh.
      num_samples: Answers to a prompt.
      remedy: What to change if it needs too much memory.
    """
    model, count = Transformer(config), round_up(batch_size, mesh)
    params = params_layout(model, mesh)
    sampling = SamplingConfig(data.max_response, num_samples=num_samples)
    # Special tokens do not change shapes.
    sampler = make_sampler(model, config=sampling, stop_ids=(1,), pad_id=0)
    first = costs.prefill(config, rows=count, prompt=data.max_prompt)
    steps = costs.decode(
        config,
        rows=count * num_samples,
        prompt=data.max_prompt,
        response=data.max_response,
        samples=num_samples,
    )
    weights = shared_weights(
        config, rows=count * num_samples, response=data.max_response
    )
    return Program(
        sampler,
        (params, prompts(mesh, count, data), random_key(mesh)),
        held={name: params},
        cost=first.plus(steps),
        weights=first.bytes + weights,
        trips=Trips(data.max_response - 1),
        remedy=remedy,
    )


def shared_weights(config: ModelConfig, *, rows: int, response: int) -> float:
    """Bytes of weights that each device reads while `rows` rows are decoded at once.

    It is 0 if tokens move to the weights: each device then reads only its own.
    """
    if moves_tokens(rows, config.width):
        return 0.0
    return costs.decode_weights(config, response=response).bytes


def scores(
    config: ModelConfig, mesh: Mesh, data: DataConfig, *, batch_size: int, remedy: str
) -> Program:
    """The program with which a reward model scores a batch of answers; see `answers`.

    Args:
      config: The reward model's config.
      mesh: The mesh to run on.
      data: Its limits are the lengths of all prompts and responses.
      batch_size: Answers in a batch, rounded up for the mesh.
      remedy: What to change if it needs too much memory.
    """
    count, length = round_up(batch_size, mesh), data.max_prompt + data.max_response
    params = params_layout(ScalarModel(config), mesh)
    prompt, response = (count, data.max_prompt), (count, 1, data.max_response)
    texts = (
        rows(mesh, shape, dtype)
        for shape in (prompt, response)
        for dtype in (jnp.int32, jnp.bool_)
    )
    return Program(
        shared_scorer(config),
        (params, *texts),
        held={"reward model": params},
        cost=costs.forward(config, tokens=count * length, seen=costs.causal(length)),
        remedy=remedy,
    )


def asking_programs(
    config: ConfigDict,
    mesh: Mesh,
    models: Models,
    *,
    block: str,
    policy: str,
    reward: str,
) -> dict[str, Program]:
    """The programs of a stage that has a model's answers scored: `answers`, `scores`.

    Args:
      config: The stage's config.
      mesh: The mesh to run on.
      models: The models by key.
      block: The block whose `batch_size` is the number of prompts in a batch.
      policy: The key of the model that answers.
      reward: The key of the reward model.
    """
    data = block_of(config, "data", DataConfig)
    language, scalar = (
        model_config(dataclasses.asdict(models[key]), mesh) for key in (policy, reward)
    )
    remedy = f"lower config.{block}.batch_size"
    size: dict[str, Any] = dict(batch_size=config[block].batch_size, remedy=remedy)
    return {
        "answer": answers("policy", language, mesh, data, **size),
        "score": scores(scalar, mesh, data, **size),
    }


def rows(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> Any:
    """An abstract batch sharded over devices, or replicated if it does not divide."""
    divides = shape[0] % batch_ways(mesh) == 0
    sharding = NamedSharding(mesh, spec("batch")) if divides else replicated(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def random_key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """An abstract random key that all devices hold."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))


def texts(mesh: Mesh, count: int, length: int) -> TokenBatch:
    """An abstract batch of `count` rows of `length` tokens."""
    shape = count, length
    ids = rows(mesh, shape, jnp.int32)
    return TokenBatch(ids, ids, rows(mesh, shape, jnp.bool_))


def prompts(mesh: Mesh, count: int, data: DataConfig) -> PromptBatch:
    """An abstract batch of `count` prompts."""
    shape = count, data.max_prompt
    return PromptBatch(
        rows(mesh, shape, jnp.int32),
        rows(mesh, shape, jnp.bool_),
        rows(mesh, shape[:1], jnp.int32),
    )


def comparisons(
    mesh: Mesh, count: int, slots: int, data: DataConfig, microbatches: int
) -> PackedComparisonBatch:
    """An abstract batch of `count` prompts with K = `slots` answers of full length.

    Each answer fills a row. Real answers are shorter and share rows, so that real
    batches have fewer rows.
    """
    groups = math.lcm(local_ways(mesh), microbatches)
    groups *= batch_ways(mesh) // local_ways(mesh)  # over all processes
    each = count // groups

    def of(shape: tuple[int, ...], dtype: Any) -> Any:
        return rows(mesh, (groups, *shape), dtype)

    packed, answers = (each * slots, data.max_response), (each, slots)
    return PackedComparisonBatch(
        prompt=of((each, data.max_prompt), jnp.int32),
        prompt_valid=of((each, data.max_prompt), jnp.bool_),
        rows=of(packed, jnp.int32),
        segment_ids=of(packed, jnp.int32),
        prompt_index=of(packed[:1], jnp.int32),
        last=of(answers, jnp.int32),
        ranks=of(answers, jnp.int32),
        present=of(answers, jnp.bool_),
        wording=of(answers, jnp.int32),
    )
