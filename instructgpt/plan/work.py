"""A stage as what is in memory all the time, and the functions that it calls.

Everything is abstract: shapes, types and shardings of a mesh that need not be there.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from instructgpt.batches import ComparisonBatch, PromptBatch, Rollout, TokenBatch
from instructgpt.data.datasets import DataConfig
from instructgpt.errors import UserError
from instructgpt.models import costs
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost, causal, forward, left_out
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.plan.hlo import ONCE, Trips
from instructgpt.rollouts import Frozen, cast, make_rollout_fn, make_sampler
from instructgpt.sampling import Samples
from instructgpt.sharding import batch_ways, moves_tokens, replicated, spec
from instructgpt.stages.common import TrainConfig, build, check_train
from instructgpt.stages.ppo import RolloutConfig, check_sizes
from instructgpt.stages.pretrain import PretrainConfig
from instructgpt.stages.reward import RewardConfig
from instructgpt.stages.sft import SFTConfig
from instructgpt.state import (
    PPOState,
    TrainState,
    params_layout,
    shardings_of,
    train_state_layout,
)
from instructgpt.steps.ppo import PPOConfig, make_ppo_step
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import make_train_step

_STEPS = 1000  # of a schedule, whose length changes no shape
_PAD, _STOP = 0, 1


class Phase(NamedTuple):
    """A jitted function of the stage."""

    function: Any
    arguments: tuple[Any, ...]  # abstract
    calls: float  # an iteration
    cost: Cost  # of one call, over all devices
    weights: Cost  # of which: reading weights, which devices of a group do alike
    trips: Trips = ONCE
    without: str = ""  # a phase that this function runs as well, counted there


class Work(NamedTuple):
    """What a stage holds and does."""

    held: dict[str, Any]  # abstract trees by name
    phases: dict[str, Phase]
    iterations: int  # 0: the config counts epochs of data that is not here
    microbatches_key: str


class Models(NamedTuple):
    """Models of a stage; scalar ones are the reward model and the value net."""

    policy: ModelConfig
    scalar: ModelConfig


def describe(config: ConfigDict, models: Models, mesh: Mesh) -> Work:
    """The work of a stage's config on a mesh, under `jax.set_mesh`.

    Raises:
      UserError: the planner does not know the stage, or a size does not divide.
    """
    stages: dict[str, Callable[..., Work]] = {
        "pretrain": _pretrain,
        "sft": _sft,
        "reward": _reward,
        "ppo": _ppo,
    }
    if config.stage not in stages:
        raise UserError(
            f"config.stage={config.stage!r} has no plan; there is one for: "
            f"{', '.join(stages)}"
        )
    train = build(TrainConfig, config.train, where="config.train")
    check_train(train, mesh)
    return stages[config.stage](config, models, mesh, train)


def _rows(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> Any:
    """A batch cut over devices, or whole on each where it does not divide."""
    divides = shape[0] % batch_ways(mesh) == 0
    sharding = NamedSharding(mesh, spec("batch")) if divides else replicated(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))


def _texts(mesh: Mesh, rows: int, length: int) -> TokenBatch:
    shape = rows, length
    ids = _rows(mesh, shape, jnp.int32)
    return TokenBatch(ids, ids, _rows(mesh, shape, jnp.bool_))


def _optimizer(block: Any, where: str) -> Any:
    return make_optimizer(build(OptimizerConfig, block, where=where), _STEPS)


def _state_parts(name: str, state: TrainState) -> dict[str, Any]:
    return {
        f"{name}: parameters": state.params,
        f"{name}: optimiser": state.parts()["optimizer"],
    }


def _read(cost: Cost) -> Cost:
    """What a pass reads of weights alone."""
    return Cost(0.0, cost.bytes)


def _training(
    mesh: Mesh,
    name: str,
    model: Any,
    loss: Any,
    batch: Any,
    cost: Cost,
    train: TrainConfig,
    optimizer: Any,
) -> Work:
    state = train_state_layout(model, optimizer, mesh)
    step = make_train_step(
        loss, optimizer, microbatches=train.microbatches, shardings=shardings_of(state)
    )
    whole = costs.update(model.config, cost)
    phase = Phase(step, (state, batch, _key(mesh)), 1, whole, _read(whole))
    return Work(
        _state_parts(name, state),
        {"train step": phase},
        train.num_steps,
        "config.train.microbatches",
    )


def _pretrain(config: ConfigDict, models: Models, mesh: Mesh, train: TrainConfig):
    pretrain = build(PretrainConfig, config.pretrain, where="config.pretrain")
    model = Transformer(models.policy)
    length = pretrain.window or models.policy.context_length
    count = train.batch_size * length
    return _training(
        mesh,
        "model",
        model,
        make_sft_loss(model, leading_padding=False),
        _texts(mesh, train.batch_size, length),
        forward(models.policy, tokens=count, seen=causal(length), predicted=count),
        train,
        _optimizer(config.optimizer, "config.optimizer"),
    )


def _limits(config: ConfigDict) -> DataConfig:
    return build(DataConfig, config.data, where="config.data")


def _sft(config: ConfigDict, models: Models, mesh: Mesh, train: TrainConfig) -> Work:
    sft = build(SFTConfig, config.sft, where="config.sft")
    data = _limits(config)
    model = Transformer(models.policy)
    length = sft.pack_length or data.max_prompt + data.max_response
    own_rows = not (sft.pretrain_fraction or sft.pack_length)
    first = data.max_prompt if sft.loss_on == "response" and own_rows else 1
    count = train.batch_size * length
    predicted = train.batch_size * (length - first)
    return _training(
        mesh,
        "model",
        model,
        make_sft_loss(model, first_target=first, packed=bool(sft.pack_length)),
        _texts(mesh, train.batch_size, length),
        forward(models.policy, tokens=count, seen=causal(length), predicted=predicted),
        train,
        _optimizer(config.optimizer, "config.optimizer"),
    )


def _reward(config: ConfigDict, models: Models, mesh: Mesh, train: TrainConfig) -> Work:
    """With K whole responses a prompt, where real ones are packed into fewer rows."""
    reward = build(RewardConfig, config.reward, where="config.reward")
    data = _limits(config)
    model = ScalarModel(models.scalar)
    rows, slots = train.batch_size, reward.max_responses
    prompt, responses = (rows, data.max_prompt), (rows, slots, data.max_response)
    batch = ComparisonBatch(
        prompt=_rows(mesh, prompt, jnp.int32),
        prompt_valid=_rows(mesh, prompt, jnp.bool_),
        responses=_rows(mesh, responses, jnp.int32),
        response_valid=_rows(mesh, responses, jnp.bool_),
        ranks=_rows(mesh, (rows, slots), jnp.int32),
        present=_rows(mesh, (rows, slots), jnp.bool_),
        wording=_rows(mesh, (rows, slots), jnp.int32),
    )
    shared = dict(tokens=rows * data.max_prompt, seen=causal(data.max_prompt))
    own = forward(
        models.scalar,
        tokens=rows * slots * data.max_response,
        seen=data.max_prompt + causal(data.max_response),
    )
    cost = forward(models.scalar, **shared).plus(own._replace(bytes=0.0))
    cost = cost.plus(left_out(models.scalar, **shared))
    return _training(
        mesh,
        "reward model",
        model,
        make_reward_loss(model, divisor=reward.divisor),
        batch,
        cost,
        train,
        _optimizer(config.optimizer, "config.optimizer"),
    )


def _frozen(model: Any, mesh: Mesh) -> Any:
    """A copy in the compute dtype, cut as its original."""
    layout = params_layout(model, mesh)
    copy = jax.eval_shape(lambda p: cast(p, model.config.compute_dtype), layout)
    return jax.tree.map(
        lambda x, like: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding),
        copy,
        layout,
    )


class _PPO(NamedTuple):
    """Sizes and models of a PPO stage, so that its phases can be written one by one."""

    config: PPOConfig
    rollout: RolloutConfig
    batch: int  # episodes of an iteration
    prompt: int  # tokens
    response: int  # tokens
    minibatches: int
    policy: Transformer
    scalar: ScalarModel
    length: int  # tokens of a pretraining row
    mesh: Mesh


def _ppo(config: ConfigDict, models: Models, mesh: Mesh, train: TrainConfig) -> Work:
    rollout = build(RolloutConfig, config.rollout, where="config.rollout")
    data = _limits(config)
    ppo = build(PPOConfig, config.ppo, where="config.ppo")
    check_sizes(mesh, data.max_response, ppo, rollout, train)
    run = _PPO(
        config=ppo,
        rollout=rollout,
        batch=train.batch_size,
        prompt=data.max_prompt,
        response=data.max_response,
        minibatches=train.batch_size // rollout.minibatch_size,
        policy=Transformer(models.policy),
        scalar=ScalarModel(models.scalar),
        length=rollout.ptx_length or models.policy.context_length,
        mesh=mesh,
    )
    optimizers = [
        _optimizer(config[name], f"config.{name}")
        for name in ("policy_optimizer", "value_optimizer")
    ]
    policy, value = (
        train_state_layout(model, optimizer, mesh)
        for model, optimizer in zip((run.policy, run.scalar), optimizers, strict=True)
    )
    state = PPOState(policy, value, policy.params)
    frozen = Frozen(_frozen(run.policy, mesh), _frozen(run.scalar, mesh))
    all_costs = costs.ppo(
        models.policy,
        models.scalar,
        episodes=run.batch,
        prompt=run.prompt,
        response=run.response,
        minibatches=run.minibatches,
        text_rows=rollout.ptx_rows,
        text_length=run.length,
    )
    return Work(
        {
            **_state_parts("policy", policy),
            "policy: average": state.ema,
            **_state_parts("value net", value),
            "reference": frozen.reference,
            "reward model": frozen.reward,
        },
        {
            **_sampling(run, policy.params, all_costs),
            "score": _scoring(run, frozen, value.params, all_costs),
            "update": _updating(run, state, optimizers, all_costs),
        },
        train.num_steps,
        "config.ppo.microbatches" + " or ptx_microbatches" * bool(rollout.ptx_rows),
    )


def _prompts(run: _PPO) -> PromptBatch:
    shape = run.batch, run.prompt
    return PromptBatch(
        _rows(run.mesh, shape, jnp.int32),
        _rows(run.mesh, shape, jnp.bool_),
        _rows(run.mesh, shape[:1], jnp.int32),
    )


def _sampling(run: _PPO, params: Any, all_costs: dict[str, Cost]) -> dict[str, Phase]:
    """At full lengths; slots, if there are fewer than prompts, all end at once."""
    sizes = run.rollout.sampling(run.response)
    slots = min(sizes.slots or run.batch, run.batch)
    rounds = -(-run.batch // slots)
    refills = -(-(run.batch - slots) // max(math.prod(sizes.groups(slots)), 1))

    def phase(response: int, cost: Cost, weights: Cost, without: str = "") -> Phase:
        sampler = make_sampler(
            run.policy,
            config=run.rollout.sampling(response),
            stop_ids=(_STOP,),
            pad_id=_PAD,
        )
        arguments = params, _prompts(run), _key(run.mesh)
        steps = response - 1
        inner = steps * (rounds - 1) / max(refills, 1)
        trips = Trips(steps, refills, inner)
        return Phase(sampler, arguments, 1, cost, weights, trips, without)

    prefill, decode = all_costs["prefill"], all_costs["decode"]
    weights = costs.decode_weights(run.policy.config, response=run.response)
    # The weights of a round are in `decode` already.
    decode = decode._replace(bytes=decode.bytes + (rounds - 1) * weights.bytes)
    # Where tokens go to the weights, each device reads its part of them.
    whole = Cost() if moves_tokens(slots, run.policy.config.width) else weights
    return {
        "prefill": phase(1, prefill, _read(prefill)),
        "decode": phase(run.response, decode, _read(whole).times(rounds), "prefill"),
    }


def _added(parts: list[Cost]) -> Cost:
    return Cost(sum(p.flops for p in parts), sum(p.bytes for p in parts))


def _scoring(run: _PPO, frozen: Frozen, value: Any, all_costs: dict[str, Cost]):
    scorer = make_rollout_fn(
        run.policy,
        run.scalar,
        run.scalar,
        temperature=run.rollout.temperature,
        stop_ids=(_STOP,),
        truncation_score=run.rollout.truncation_score,
        microbatches=run.rollout.score_microbatches,
    )
    shape = run.batch, 1, run.response
    tokens, valid, log_probs = (
        _rows(run.mesh, shape, t) for t in (jnp.int32, jnp.bool_, jnp.float32)
    )
    samples = Samples(tokens, valid, log_probs)
    cost = _added([all_costs[k] for k in ("reference", "reward", "value")])
    return Phase(scorer, (samples, _prompts(run), frozen, value), 1, cost, _read(cost))


def _updating(run: _PPO, state: PPOState, optimizers, all_costs: dict[str, Cost]):
    step = make_ppo_step(
        run.policy,
        run.scalar,
        policy_optimizer=optimizers[0],
        value_optimizer=optimizers[1],
        config=run.config,
        temperature=run.rollout.temperature,
        shardings=shardings_of(state),
    )
    rows = run.rollout.minibatch_size
    prompt, response = (rows, run.prompt), (rows, run.response)
    floats = _rows(run.mesh, response, jnp.float32)
    episodes = Rollout(
        prompt=_rows(run.mesh, prompt, jnp.int32),
        prompt_valid=_rows(run.mesh, prompt, jnp.bool_),
        response=_rows(run.mesh, response, jnp.int32),
        response_valid=_rows(run.mesh, response, jnp.bool_),
        log_probs=floats,
        ref_log_probs=floats,
        values=floats,
        score=_rows(run.mesh, (rows,), jnp.float32),
    )
    text = None
    if run.rollout.ptx_rows:
        text = _texts(run.mesh, run.rollout.ptx_rows, run.length)
    names = "policy update", "value update", "ptx gradient"
    cost = _added([all_costs[k] for k in names if k in all_costs])
    cost = cost.times(1 / run.minibatches)
    arguments = state, episodes, text, _key(run.mesh)
    calls = run.minibatches * run.rollout.epochs
    return Phase(step, arguments, calls, cost, _read(cost))


def with_overrides(size: ModelConfig, config: ConfigDict) -> ModelConfig:
    """A model of a named size with what the stage changes of it."""
    block = config.model.to_dict() if "model" in config else {}
    values = {**dataclasses.asdict(size), **block}
    return build(ModelConfig, values, where="config.model")
