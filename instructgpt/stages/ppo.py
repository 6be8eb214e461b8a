"""PPO and PPO-ptx against a frozen reward model (paper §3.5, Eq. 2, C.4).

One iteration: prompts -> sample, score -> minibatch updates. Policy and KL reference
start from the RL-init model, the value net from the reward model.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.documents import TokenWindows
from instructgpt.data.loader import Loader, make_loader, zip_loaders
from instructgpt.data.transforms import encode_prompt
from instructgpt.errors import UserError
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.loop import Job, train
from instructgpt.models.config import ModelConfig
from instructgpt.optim import OptimizerConfig, make_optimizer, make_schedule
from instructgpt.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFraction,
    PositiveInt,
)
from instructgpt.rollouts import (
    Frozen,
    cast,
    make_minibatches,
    make_rollout_fn,
    make_sampler,
    rollout_metrics,
    split_batch,
)
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import (
    batch_share,
    batch_ways,
    block_until_ready_on_cpu,
    check_divides,
)
from instructgpt.stages import common, loading
from instructgpt.stages.asking import make_sample_table, short_prompts
from instructgpt.stages.inputs import has_valid, keep_short
from instructgpt.state import PPOState, make_train_state, shardings_of
from instructgpt.steps.ppo import PPOConfig, make_ppo_step
from instructgpt.text_programs import sampling_ids


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How episodes are made and how often they are used."""

    minibatch_size: PositiveInt  # episodes per optimiser step
    epochs: PositiveInt = 1  # passes over a batch of episodes
    temperature: NonNegativeFloat = 1.0
    top_p: PositiveFraction = 1.0
    # Prompts decoded at a time, free slots filled together, widths of a prefill: see
    # SamplingConfig.
    slots: NonNegativeInt = 0
    refill: NonNegativeInt = 0
    prompt_buckets: PositiveInt = 1
    # Pretraining windows per episode (paper: 8), and their tokens, on which the
    # held-out loss is taken too (0: the model's context length).
    ptx_per_episode: NonNegativeFloat = 0.0
    ptx_length: NonNegativeInt = 0
    # Score of a response cut at the length limit; None keeps the reward model's.
    truncation_score: float | None = None
    # Parts of the episodes that are scored one at a time; each reads all weights.
    score_microbatches: PositiveInt = 1
    num_prompts: NonNegativeInt = 0  # training prompts; 0: all
    num_samples: NonNegativeInt = 8  # validation prompts answered at each evaluation

    def sampling(self, max_response: int) -> SamplingConfig:
        """How the episodes are sampled."""
        return SamplingConfig(
            max_response,
            temperature=self.temperature,
            top_p=self.top_p,
            slots=self.slots,
            refill=self.refill,
            prompt_buckets=self.prompt_buckets,
        )

    @property
    def ptx_rows(self) -> int:
        """Pretraining windows per minibatch."""
        return round(self.ptx_per_episode * self.minibatch_size)


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a policy by PPO; gamma > 0 makes it PPO-ptx."""
    context = common.start(config, workdir)
    ppo = common.build(PPOConfig, config.ppo, where="config.ppo")
    rollout = common.build(RolloutConfig, config.rollout, where="config.rollout")
    train_config = common.build(common.TrainConfig, config.train, where="config.train")
    max_response = context.data_config.max_response
    check_sizes(context.mesh, max_response, ppo, rollout, train_config)
    policy_config = _check_models(context, config)
    prompts = _prompt_loader(context, rollout, train_config)
    ptx = _text_loader(context, rollout, train_config, policy_config)
    held_out = _HeldOut.open(context, rollout, policy_config)
    loop_config = train_config.loop(prompts.steps_per_epoch, verify=context.verify)
    minibatches = train_config.batch_size // rollout.minibatch_size
    updates = loop_config.num_steps * minibatches * rollout.epochs
    optimizers, schedules = [], []
    for name in ("policy_optimizer", "value_optimizer"):
        block = common.build(OptimizerConfig, config[name], where=f"config.{name}")
        optimizers.append(make_optimizer(block, updates))
        schedules.append(make_schedule(block, updates))
    with jax.set_mesh(context.mesh):
        models = _load(context, config)
        policy, reward = models["policy"], models["reward"]
        frozen = Frozen(
            cast(policy.params, policy.model.config.compute_dtype),
            cast(reward.params, reward.model.config.compute_dtype),
        )
        # After the frozen copies: the state takes over the weights that were loaded.
        state = _initial_state(context, models, optimizers)
        job = Job(
            name=config.name,
            update=_make_update(
                context, ppo, rollout, models, optimizers, state, frozen, minibatches
            ),
            data=zip_loaders(prompts=prompts, **ptx),
            to_device=common.to_device(context.mesh),
            count_tokens=lambda b: (
                int(b["prompts"].valid.sum())
                + (int(b["ptx"].valid.sum()) if "ptx" in b else 0)
            ),
            watch=("score", "kl", "response_length", "valid_pretrain_loss"),
            evaluate=_make_evaluate(context, policy.model, held_out),
            schedule=schedules[0],
            updates=minibatches * rollout.epochs,
            rates=("policy_optimizer.learning_rate", "value_optimizer.learning_rate"),
            meta=loading.model_meta(policy.model, kind="language", context=context),
        )
        state = train(
            job, state, config=loop_config, key=context.key, workdir=context.workdir
        )
        common.finish(context)
        return {"params": state.policy.params, "ema": state.ema}


def check_sizes(
    mesh: Mesh,
    max_response: int,
    ppo: PPOConfig,
    rollout: RolloutConfig,
    train_config: common.TrainConfig,
) -> None:
    """Raises UserError if episodes or text do not divide into what they are cut into.

    Args:
      mesh: Of the run.
      max_response: Tokens of a response.
      ppo: The objective's.
      rollout: Of the episodes.
      train_config: Of the run.
    """
    size, batch = rollout.minibatch_size, train_config.batch_size
    if batch % size:
        raise UserError(
            f"config.rollout.minibatch_size={size} does not divide "
            f"config.train.batch_size={batch}"
        )
    check_divides(mesh, rollout__minibatch_size=size)
    if size % ppo.microbatches:
        raise UserError(
            f"config.ppo.microbatches={ppo.microbatches} does not divide "
            f"config.rollout.minibatch_size={size}"
        )
    parts, ways = rollout.score_microbatches, batch_ways(mesh)
    if parts < 1 or batch % (parts * ways):
        raise UserError(
            f"config.rollout.score_microbatches={parts} times the mesh's data x fsdp = "
            f"{ways} ways does not divide config.train.batch_size={batch}"
        )
    slots = rollout.sampling(max_response)
    check_divides(mesh, rollout__slots=slots.slots)
    _check_ptx(mesh, ppo, rollout, batch // size)
    if rollout.temperature == 0:
        raise UserError(
            "config.rollout.temperature=0: greedy rollouts have no log-probs to learn "
            "from; use 1"
        )


def _check_ptx(
    mesh: Mesh, ppo: PPOConfig, rollout: RolloutConfig, minibatches: int
) -> None:
    key, rows = "config.rollout.ptx_per_episode", rollout.ptx_rows
    if bool(ppo.ptx_coef) != bool(rollout.ptx_per_episode):
        raise UserError(
            f"config.ppo.ptx_coef and {key} go together: set both for PPO-ptx, or both "
            "to 0 for PPO"
        )
    given = f"{key}={rollout.ptx_per_episode}: "
    if rollout.ptx_per_episode and not rows:
        raise UserError(
            f"{given}a minibatch of {rollout.minibatch_size} episodes gets no row of "
            "pretraining text; raise it"
        )
    ways = batch_ways(mesh)
    parts = "ptx_microbatches" if ppo.ptx_microbatches else "microbatches"
    count = getattr(ppo, parts)
    if rows % count or rows * minibatches % ways:
        raise UserError(
            f"{given}{rows} rows per minibatch must be a multiple of "
            f"config.ppo.{parts}={count}, and the iteration's "
            f"{rows * minibatches} of the mesh's data x fsdp = {ways} ways; change it"
        )


# Which block says where a model comes from.
_INITS = {"policy": "init", "reward": "reward_init"}


def _load(context: common.Context, config: ConfigDict) -> dict[str, loading.Loaded]:
    out = {}
    for name, key in _INITS.items():
        init = common.build(loading.InitConfig, config[key], where=f"config.{key}")
        scalar = name == "reward"
        out[name] = loading.load(init, context, scalar=scalar, overrides=config.model)
    return out


def _check_models(context: common.Context, config: ConfigDict) -> ModelConfig:
    """Looks for both checkpoints, and gives the policy's config."""
    found = {}
    for name, key in _INITS.items():
        init = common.build(loading.InitConfig, config[key], where=f"config.{key}")
        scalar = name == "reward"
        found[name] = loading.find(init, context, scalar=scalar, overrides=config.model)
    return found["policy"]


def _initial_state(context, models, optimizers) -> PPOState:
    policy, value = (
        make_train_state(
            models[name].model,
            optimizer,
            key=context.key,
            mesh=context.mesh,
            params=models[name].params,
        )
        for name, optimizer in zip(("policy", "reward"), optimizers, strict=True)
    )
    # A buffer of its own: the state is donated to every update.
    ema = jax.tree.map(jnp.copy, policy.params)
    return PPOState(policy, value, ema)


def _prompt_loader(
    context: common.Context, rollout: RolloutConfig, train_config: common.TrainConfig
) -> Loader:
    """The prompts of the episodes; one pass over them is an epoch."""
    source = context.data.source("prompts", "train")
    prompt_format, limit = context.data.prompt_format, context.data_config.max_prompt
    kept = keep_short(context, source, "train prompts")
    return make_loader(
        source,
        lambda record: encode_prompt(record, prompt_format, max_prompt=limit),
        batch_size=train_config.batch_size,
        keep=kept[: rollout.num_prompts or None],
        seed=context.config.seed,
        **batch_share(context.mesh)._asdict(),
    )


def _text_loader(
    context: common.Context,
    rollout: RolloutConfig,
    train_config: common.TrainConfig,
    model_config: ModelConfig,
) -> dict[str, Loader]:
    """The pretraining rows of an iteration as `ptx`; nothing without the mix."""
    if not rollout.ptx_rows:
        return {}
    minibatches = train_config.batch_size // rollout.minibatch_size
    loader = make_loader(
        _windows(context, rollout, model_config, "train"),
        None,
        batch_size=minibatches * rollout.ptx_rows,
        seed=context.config.seed,
        **batch_share(context.mesh)._asdict(),
    )
    return {"ptx": loader}


def _make_update(
    context, ppo: PPOConfig, rollout, models, optimizers, state, frozen, minibatches
):
    """One iteration: (state, {"prompts", "ptx"}, key) -> (state, metrics)."""
    policy, reward = models["policy"].model, models["reward"].model
    sampling = rollout.sampling(context.data_config.max_response)
    ids = sampling_ids(context.data.prompt_format)
    sample = make_sampler(policy, config=sampling, **ids)
    score = make_rollout_fn(
        policy,
        reward,
        reward,
        temperature=rollout.temperature,
        stop_ids=ids["stop_ids"],
        truncation_score=rollout.truncation_score,
        microbatches=rollout.score_microbatches,
    )
    cut = make_minibatches(minibatches)
    cut_ptx = jax.jit(lambda ptx: split_batch(ptx, minibatches))
    summarise = jax.jit(lambda r: rollout_metrics(r, kl_coef=ppo.kl_coef))
    step = make_ppo_step(
        policy,
        reward,
        policy_optimizer=optimizers[0],
        value_optimizer=optimizers[1],
        config=ppo,
        temperature=rollout.temperature,
        shardings=shardings_of(state),
    )

    def update(state: PPOState, batch: dict[str, Any], key: jax.Array):
        # The policy's step counts updates, so it tells iterations apart as well.
        key = jax.random.fold_in(key, state.policy.step)
        sample_key, order_key, step_key = jax.random.split(key, 3)
        samples = sample(state.policy.params, batch["prompts"], sample_key)
        block_until_ready_on_cpu(samples)
        episodes = score(samples, batch["prompts"], frozen, state.value.params)
        metrics = [block_until_ready_on_cpu(summarise(episodes))]
        ptx = cut_ptx(batch["ptx"]) if "ptx" in batch else [None] * minibatches
        for epoch in range(rollout.epochs):
            parts = cut(episodes, jax.random.fold_in(order_key, epoch))
            for part, text in zip(parts, ptx, strict=True):
                state, step_metrics = step(state, part, text, step_key)
                block_until_ready_on_cpu(step_metrics)
                gap = step_metrics.pop("log_prob_gap")
                if len(metrics) == 1:  # no update yet: what the sampler's cache changed
                    metrics.append({"decode_gap": gap})
                metrics.append(step_metrics)
        return state, _join(metrics)

    return update


@jax.jit
def _join(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds (sum, weight) pairs of the same name."""
    out: dict[str, Any] = {}
    for part in metrics:
        for name, pair in part.items():
            out[name] = jax.tree.map(jnp.add, out[name], pair) if name in out else pair
    return out


def _windows(
    context: common.Context,
    rollout: RolloutConfig,
    model_config: ModelConfig,
    split: str,
) -> TokenWindows:
    key, length = "config.rollout.ptx_length", rollout.ptx_length
    return common.text_windows(context, split, model_config, length, key=key)


class _HeldOut(NamedTuple):
    """What the policy is evaluated on, as far as the data have it."""

    windows: TokenWindows | None  # of pretraining text
    prompts: list[Any] | None  # that are answered and shown

    @classmethod
    def open(
        cls, context: common.Context, rollout: RolloutConfig, model_config: ModelConfig
    ) -> "_HeldOut":
        """Opens the valid splits; a line says what is left out without one."""
        windows = prompts = None
        if has_valid(context, "documents", "held-out pretraining loss"):
            windows = _windows(context, rollout, model_config, "valid")
        if rollout.num_samples and has_valid(context, "prompts", "samples"):
            prompts = short_prompts(context, "valid", count=rollout.num_samples)
        return cls(windows, prompts)


def _make_evaluate(context: common.Context, model: Any, held_out: _HeldOut):
    """Held-out pretraining loss (the alignment tax) and a table of samples."""
    table = make_sample_table(context, model, held_out.prompts)
    losses = {}
    if held_out.windows is not None:
        losses["valid_pretrain_loss"] = make_loss_evaluator(
            model, held_out.windows, None, batch_size=16, mesh=context.mesh
        )

    def evaluate(state: PPOState, step: int) -> dict[str, float]:
        table(state.ema, step)
        return {name: loss(state.ema) for name, loss in losses.items()}

    return evaluate
