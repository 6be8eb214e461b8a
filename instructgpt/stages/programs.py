"""A stage's jitted functions with abstract arguments, as `programs` gives them.

Everything is shapes, types and shardings of a mesh that need not be there. The `run` of
a stage jits the same functions by the same builders: what is planned is what runs.
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
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost, update
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.sharding import batch_ways, local_ways, replicated, spec
from instructgpt.stages.blocks import block_of, overrides
from instructgpt.stages.inputs import model_config
from instructgpt.state import TrainState, shardings_of, train_state_layout

# The models of the checkpoints that a config's blocks name, as these are: by block.
Models = Mapping[str, ModelConfig]

_STEPS = 1000  # of a schedule, whose length changes no shape


class Trips(NamedTuple):
    """How often loops run that end when the data says so."""

    alone: float = 1  # one neither inside nor around another such loop
    outer: float = 1  # one around another
    inner: float = 1  # and that other, each time


class Program(NamedTuple):
    """A jitted function of a stage, and what a plan counts of it."""

    jitted: Any
    arguments: tuple[Any, ...]  # ShapeDtypeStructs with shardings
    calls: float = 1  # in an iteration of the stage
    # Of the arguments, what the stage keeps all the time, by a name for people.
    held: Mapping[str, Any] = {}
    # Abstract arrays besides the arguments that are there while it runs.
    beside: Any = ()
    # What models/costs counts for a call, over all devices. None: it is not counted.
    cost: Cost | None = None
    # Of its bytes, those that all devices of a group read alike: weights. None: all.
    weights: float | None = None
    trips: Trips = Trips()
    without: str = (
        ""  # a program that this one runs as well, and that counts for itself
    )
    # The key that cuts its batch into parts, "train.microbatches"; and what else helps
    # where it takes too much memory.
    microbatches: str = ""
    remedy: str = "lower config.train.batch_size"


def started_from(
    config: ConfigDict, block: str, models: Models, mesh: Mesh
) -> ModelConfig:
    """The model that a block's checkpoint holds, with what the config changes of it."""
    values = {**dataclasses.asdict(models[block]), **overrides(config.model).to_dict()}
    return model_config(values, mesh)


def planned_optimizer(config: ConfigDict, name: str) -> Any:
    """The optimiser of a block, for a run of unknown length."""
    return make_optimizer(block_of(config, name, OptimizerConfig), _STEPS)


def held_state(name: str, state: TrainState) -> dict[str, Any]:
    """What is held of a model in training."""
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
    """The program of a stage that trains one model.

    Args:
      name: Of the model, for people.
      model: Its module.
      optimizer: Its optimiser.
      make_step: Builds the step from the shardings of the state.
      batch: Abstract; the next one waits on the devices meanwhile.
      cost: Of the forward pass.
      mesh: Where it runs.
    """
    state = train_state_layout(model, optimizer, mesh)
    return Program(
        make_step(shardings_of(state)),
        (state, batch, random_key(mesh)),
        held=held_state(name, state),
        beside=batch,
        cost=update(model.config, cost),
        microbatches="train.microbatches",
        remedy="raise config.train.microbatches",
    )


def rows(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> Any:
    """A batch cut over devices, or whole on each where it does not divide."""
    divides = shape[0] % batch_ways(mesh) == 0
    sharding = NamedSharding(mesh, spec("batch")) if divides else replicated(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def random_key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """A key that all devices hold."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))


def texts(mesh: Mesh, count: int, length: int) -> TokenBatch:
    """So many rows of so many tokens."""
    shape = count, length
    ids = rows(mesh, shape, jnp.int32)
    return TokenBatch(ids, ids, rows(mesh, shape, jnp.bool_))


def prompts(mesh: Mesh, count: int, data: DataConfig) -> PromptBatch:
    """So many prompts."""
    shape = count, data.max_prompt
    return PromptBatch(
        rows(mesh, shape, jnp.int32),
        rows(mesh, shape, jnp.bool_),
        rows(mesh, shape[:1], jnp.int32),
    )


def comparisons(
    mesh: Mesh, count: int, slots: int, data: DataConfig, microbatches: int
) -> PackedComparisonBatch:
    """So many prompts with K = `slots` answers, each so long that it fills a row.

    Real answers are shorter and share rows: how many these are, the data say.
    """
    groups = math.lcm(local_ways(mesh), microbatches)
    groups *= batch_ways(mesh) // local_ways(mesh)  # of all processes
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
