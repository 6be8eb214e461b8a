"""The jitted functions of PPO's iteration, for `run` and, described, for a plan."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.batches import PromptBatch, Rollout
from instructgpt.generation import make_sampler
from instructgpt.inference.programs import sampling_ids
from instructgpt.models import costs
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import Cost
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.rewards import make_reward_scorer
from instructgpt.rollouts import (
    make_minibatches,
    make_rollout_fn,
    rollout_metrics,
    split_batch,
)
from instructgpt.sampling import Samples
from instructgpt.stages.blocks import block_of
from instructgpt.stages.opening import Context
from instructgpt.stages.ppo_episodes import Settings
from instructgpt.stages.ppo_models import Nets, RewardFunctionConfig
from instructgpt.stages.programs import (
    Models,
    Program,
    Trips,
    held_state,
    planned_optimizer,
    prompts,
    random_key,
    rows,
    shared_weights,
    started_from,
    texts,
)
from instructgpt.state import (
    PPOState,
    cast,
    params_layout,
    shardings_of,
    train_state_layout,
)
from instructgpt.steps.ppo import make_ppo_step

# Phases of an iteration that every pass over its episodes repeats.
_UPDATES = ("policy update", "value update", "ptx gradient")
OPTIMIZERS = ("policy_optimizer", "value_optimizer")  # blocks of the config


class Ends(NamedTuple):
    """Special tokens of sampling; a plan uses any, as they do not change shapes."""

    stop_ids: tuple[int, ...] = (1,)
    pad_id: int = 0
    banned_ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, context: Context) -> "Ends":
        """The special tokens of a stage's tokenizer and template."""
        return cls(**sampling_ids(context.data.prompt_format))


ANY_ENDS = Ends()


class Functions(NamedTuple):
    """The jitted functions of an iteration."""

    sample: Any  # (params, prompts, key) -> Samples
    score: Any  # (params, prompts, samples) -> scores; None without a reward model
    roll_out: Any  # (prompts, samples, scores, reference, value) -> Rollout
    summarise: Any  # rollout -> metrics
    cut: Any  # (rollout, key) -> minibatches
    cut_text: Any  # text -> the text of each minibatch
    step: Any  # (state, rollout, text, key) -> (state, metrics)


def make_functions(
    settings: Settings,
    nets: Nets,
    optimizers: list[optax.GradientTransformation],
    shardings: Any,
    *,
    ends: Ends = ANY_ENDS,
) -> Functions:
    """Builds the functions; `shardings` are those of the state."""
    rollout, minibatches = settings.rollout, settings.minibatches
    kl_coef = settings.ppo.kl_coef
    return Functions(
        sample=make_sampler(nets.policy, config=settings.sampling(), **ends._asdict()),
        score=None
        if nets.reward is None
        else make_reward_scorer(nets.reward, microbatches=rollout.score_microbatches),
        roll_out=make_rollout_fn(
            nets.reference,
            nets.value,
            temperature=rollout.temperature,
            stop_ids=ends.stop_ids,
            truncation_score=rollout.truncation_score,
            microbatches=rollout.score_microbatches,
        ),
        summarise=jax.jit(lambda r: rollout_metrics(r, kl_coef=kl_coef)),
        cut=make_minibatches(minibatches),
        cut_text=jax.jit(lambda text: split_batch(text, minibatches)),
        step=make_ppo_step(
            nets.policy,
            nets.value,
            policy_optimizer=optimizers[0],
            value_optimizer=optimizers[1],
            config=settings.ppo,
            temperature=rollout.temperature,
            shardings=shardings,
        ),
    )


def programs(config: ConfigDict, mesh: Mesh, models: Models) -> dict[str, Program]:
    """The programs of an iteration at full lengths; evaluation needs less memory."""
    settings = Settings.of(config)
    nets = _planned_nets(config, mesh, models)
    optimizers = [planned_optimizer(config, name) for name in OPTIMIZERS]
    policy, value = (
        train_state_layout(model, optimizer, mesh)
        for model, optimizer in zip(nets[:2], optimizers, strict=True)
    )
    state = PPOState(policy, value, policy.params)
    functions = make_functions(settings, nets, optimizers, shardings_of(state))
    plan = _Plan(settings, nets, state, mesh)
    return {
        **_plan_sampling(plan, functions),
        **_plan_scoring(plan, functions),
        "rollout": _plan_rollout(plan, functions),
        "update": _plan_update(plan, functions),
    }


def _planned_nets(config: ConfigDict, mesh: Mesh, models: Models) -> Nets:
    function = block_of(config, "reward_function", RewardFunctionConfig)

    def size(key: str) -> ModelConfig:
        return started_from(config, key, models, mesh)

    policy = size("init")
    reward = size("reward_init") if function.reads_model else None
    value = size("value_init") if config.value_init.path else reward or policy
    reference = size("reference_init") if config.reference_init.path else policy
    return Nets(
        Transformer(policy),
        ScalarModel(value),
        Transformer(reference),
        None if reward is None else ScalarModel(reward),
    )


def _text_length(settings: Settings, nets: Nets) -> int:
    """Number of tokens of a pretraining row."""
    return settings.rollout.ptx_length or nets.policy.config.context_length


def _phase_costs(settings: Settings, nets: Nets) -> dict[str, Cost]:
    """The costs of an iteration by phase, with one pass over its episodes."""
    return costs.ppo(
        nets.policy.config,
        nets.value.config,
        reference=nets.reference.config,
        reward=None if nets.reward is None else nets.reward.config,
        episodes=settings.train.batch_size,
        prompt=settings.data.max_prompt,
        response=settings.data.max_response,
        minibatches=settings.minibatches,
        text_rows=settings.rollout.ptx_rows,
        text_length=_text_length(settings, nets),
    )


def iteration_flops(settings: Settings, nets: Nets) -> float:
    """Operations of an iteration; prompts and responses count their full length."""
    total = 0.0
    for phase, cost in _phase_costs(settings, nets).items():
        passes = settings.rollout.epochs if phase in _UPDATES else 1
        scored = phase != "reward" or nets.reward is not None
        total += cost.flops * passes * scored
    return total


class _Plan(NamedTuple):
    """The inputs from which an iteration's programs are described."""

    settings: Settings
    nets: Nets
    state: PPOState  # abstract
    mesh: Mesh

    @property
    def text_length(self) -> int:
        """Number of tokens of a pretraining row."""
        return _text_length(self.settings, self.nets)

    @property
    def costs(self) -> dict[str, Cost]:
        """The costs of an iteration by phase."""
        return _phase_costs(self.settings, self.nets)

    def cost(self, *names: str) -> Cost:
        """The sum of an iteration's costs of these names; missing ones count 0."""
        there = [cost for name, cost in self.costs.items() if name in names]
        return Cost(sum(c.flops for c in there), sum(c.bytes for c in there))

    def prompts(self) -> PromptBatch:
        """The abstract prompts of an iteration."""
        settings = self.settings
        return prompts(self.mesh, settings.train.batch_size, settings.data)

    def batches(self) -> Any:
        """An iteration's text, and the whole next batch, already on the devices."""
        count = self.settings.text_rows
        text = texts(self.mesh, count, self.text_length) if count else ()
        return text, (text, self.prompts())

    def episodes(self, count: int) -> Rollout:
        """An abstract Rollout of `count` episodes."""
        data, mesh = self.settings.data, self.mesh
        prompt, response = (count, data.max_prompt), (count, data.max_response)
        floats = rows(mesh, response, jnp.float32)
        return Rollout(
            prompt=rows(mesh, prompt, jnp.int32),
            prompt_valid=rows(mesh, prompt, jnp.bool_),
            response=rows(mesh, response, jnp.int32),
            response_valid=rows(mesh, response, jnp.bool_),
            log_probs=floats,
            ref_log_probs=floats,
            values=floats,
            score=rows(mesh, (count,), jnp.float32),
        )


def _plan_sampling(plan: _Plan, functions: Functions) -> dict[str, Program]:
    """The sampling program; with refilled slots, all are assumed to end at once."""
    settings, sizes = plan.settings, plan.settings.sampling()
    batch, response = settings.train.batch_size, settings.data.max_response
    slots = min(sizes.slots or batch, batch)
    rounds = -(-batch // slots)
    refills = -(-(batch - slots) // max(math.prod(sizes.groups(slots)), 1))
    arguments = plan.state.policy.params, plan.prompts(), random_key(plan.mesh)
    # A sampler of one token, which is the prefill.
    first = make_sampler(
        plan.nets.policy, config=settings.rollout.sampling(1), **ANY_ENDS._asdict()
    )
    prefill = Program(
        first,
        arguments,
        beside=plan.batches(),
        cost=plan.cost("prefill"),
        trips=Trips(0, refills, 0),
    )
    weights = costs.decode_weights(plan.nets.policy.config, response=response).bytes
    # `decode` already includes reading the weights for one round.
    decode = plan.cost("decode").plus(Cost(0.0, (rounds - 1) * weights))
    shared = shared_weights(plan.nets.policy.config, rows=slots, response=response)
    steps = response - 1
    return {
        "prefill": prefill,
        "decode": Program(
            functions.sample,
            arguments,
            beside=plan.batches(),
            cost=decode,
            weights=shared * rounds,
            trips=Trips(steps, refills, steps * (rounds - 1) / max(refills, 1)),
            without="prefill",
            remedy="set config.rollout.slots, for a smaller cache",
        ),
    }


def _samples(plan: _Plan) -> Samples:
    shape = plan.settings.train.batch_size, 1, plan.settings.data.max_response
    types = jnp.int32, jnp.bool_, jnp.float32
    return Samples(*(rows(plan.mesh, shape, dtype) for dtype in types))


def _plan_scoring(plan: _Plan, functions: Functions) -> dict[str, Program]:
    """The reward model's scoring program; empty if the reward is only a function."""
    if plan.nets.reward is None:
        return {}
    params = _copy(plan.nets.reward, plan.mesh)
    program = Program(
        functions.score,
        (params, plan.prompts(), _samples(plan)),
        held={"reward model": params},
        beside=plan.batches(),
        cost=plan.cost("reward"),
    )
    return {"score": program}


def _plan_rollout(plan: _Plan, functions: Functions) -> Program:
    reference = _copy(plan.nets.reference, plan.mesh)
    scores = rows(plan.mesh, (plan.settings.train.batch_size,), jnp.float32)
    value = plan.state.value.params
    return Program(
        functions.roll_out,
        (plan.prompts(), _samples(plan), scores, reference, value),
        held={"reference": reference},
        beside=plan.batches(),
        cost=plan.cost("reference", "value"),
    )


def _copy(model: Any, mesh: Mesh) -> Any:
    """A frozen copy in the compute dtype, with the original's sharding."""
    layout = params_layout(model, mesh)
    copy = jax.eval_shape(lambda p: cast(p, model.config.compute_dtype), layout)
    return jax.tree.map(
        lambda x, like: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding),
        copy,
        layout,
    )


def _plan_update(plan: _Plan, functions: Functions) -> Program:
    settings, state = plan.settings, plan.state
    count = settings.rollout.ptx_rows
    text = texts(plan.mesh, count, plan.text_length) if count else None
    episodes = plan.episodes(settings.rollout.minibatch_size)
    cost = plan.cost(*_UPDATES)
    # Besides this update's episodes, all of the iteration are held, whole and cut.
    whole = plan.episodes(settings.train.batch_size)
    return Program(
        functions.step,
        (state, episodes, text, random_key(plan.mesh)),
        calls=settings.minibatches * settings.rollout.epochs,
        held={
            **held_state("policy", state.policy),
            "policy: average": state.ema,
            **held_state("value net", state.value),
        },
        beside=(plan.batches(), whole, whole),
        cost=cost.times(1 / settings.minibatches),
        microbatches="ppo.microbatches",
        remedy="raise config.ppo.microbatches" + " or ptx_microbatches" * bool(count),
    )
