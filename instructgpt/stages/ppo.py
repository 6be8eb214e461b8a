"""PPO and PPO-ptx against a reward (paper §3.5, Eq. 2, C.4).

One iteration: prompts -> samples -> scores -> episodes -> minibatch updates.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.loader import zip_loaders
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.loop import Job, train
from instructgpt.optim import OptimizerConfig, make_optimizer, make_schedule
from instructgpt.rewards import RewardFn, find_function
from instructgpt.sharding import block_until_ready_on_cpu
from instructgpt.stages import common, loading
from instructgpt.stages.asking import make_sample_table
from instructgpt.stages.ppo_episodes import (
    HeldOut,
    RolloutConfig,
    Settings,
    check_sizes,
    prompt_loader,
    text_loader,
)
from instructgpt.stages.ppo_models import (
    Models,
    find_models,
    load_models,
    make_reward,
)
from instructgpt.stages.ppo_programs import (
    OPTIMIZERS,
    Ends,
    Functions,
    iteration_flops,
    make_functions,
    programs,
)
from instructgpt.state import PPOState, make_train_state, shardings_of

__all__ = ["RolloutConfig", "check", "programs", "run"]


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains a policy by PPO; gamma > 0 makes it PPO-ptx."""
    context = common.start(config, workdir)
    settings = Settings.of(config)
    check_sizes(settings, context.mesh)
    policy_config = find_models(context, config)
    prompts = prompt_loader(context, settings)
    ptx = text_loader(context, settings, policy_config)
    held_out = HeldOut.open(context, settings, policy_config)
    steps_per_epoch = prompts.steps_per_epoch
    loop_config = settings.train.loop(steps_per_epoch, verify=context.verify)
    updates = settings.minibatches * settings.rollout.epochs
    blocks = [common.block_of(config, name, OptimizerConfig) for name in OPTIMIZERS]
    count = loop_config.num_steps * updates
    optimizers = [make_optimizer(block, count) for block in blocks]
    with jax.set_mesh(context.mesh):
        models = load_models(context, config)
        policy = models.policy
        # Made after the frozen copies, because the state takes over the loaded weights.
        state = _initial_state(context, models, optimizers)
        functions = make_functions(
            settings,
            models.nets,
            optimizers,
            shardings_of(state),
            ends=Ends.of(context),
        )
        reward = make_reward(context, config, models, functions.score)
        job = Job(
            name=config.name,
            update=_make_update(settings, functions, reward, models.reference.params),
            data=zip_loaders(prompts=prompts, **ptx),
            to_device=common.to_device(context.mesh),
            count_tokens=_count_tokens,
            watch=("score", "kl", "response_length", "valid_pretrain_loss"),
            evaluate=_make_evaluate(context, policy.model, held_out),
            schedule=make_schedule(blocks[0], count),
            updates=updates,
            rates=tuple(f"{name}.learning_rate" for name in OPTIMIZERS),
            flops=iteration_flops(settings, models.nets),
            meta=loading.model_meta(policy.model, kind="language", context=context),
        )
        state = train(
            *(job, state),
            config=loop_config,
            key=context.key,
            workdir=context.workdir,
            writer=context.metrics,
        )
        common.finish(context)
        return {"params": state.policy.params, "ema": state.ema}


def check(config: ConfigDict, blocks: dict[str, Any], mesh: Mesh) -> None:
    """Raises UserError if blocks do not go together, or name no reward function."""
    if blocks["reward_function"].name:
        find_function(blocks["reward_function"].name)
    check_sizes(Settings.of(config), mesh)


def _count_tokens(batch: dict[str, Any]) -> int:
    return sum(int(part.valid.sum()) for part in batch.values())


def _initial_state(
    context: common.Context, models: Models, optimizers: Sequence[Any]
) -> PPOState:
    policy, value = (
        make_train_state(
            loaded.model,
            optimizer,
            key=context.key,
            mesh=context.mesh,
            params=loaded.params,
        )
        for loaded, optimizer in zip(models[:2], optimizers, strict=True)
    )
    # A separate buffer, because the state is donated to every update.
    ema = jax.tree.map(jnp.copy, policy.params)
    return PPOState(policy, value, ema)


def _make_update(
    settings: Settings, functions: Functions, reward: RewardFn, reference: Any
):
    """Builds the iteration (state, {"prompts", "ptx"}, key) -> (state, metrics)."""
    minibatches = settings.minibatches

    def update(state: PPOState, batch: dict[str, Any], key: jax.Array):
        # The policy's step counts updates, so it differs between iterations too.
        key = jax.random.fold_in(key, state.policy.step)
        sample_key, order_key, step_key = jax.random.split(key, 3)
        prompts = batch["prompts"]
        samples = functions.sample(state.policy.params, prompts, sample_key)
        scores = reward(prompts, block_until_ready_on_cpu(samples))
        block_until_ready_on_cpu(scores)
        episodes = functions.roll_out(
            prompts, samples, scores, reference, state.value.params
        )
        metrics = [block_until_ready_on_cpu(functions.summarise(episodes))]
        text = batch.get("ptx")
        texts = [None] * minibatches if text is None else functions.cut_text(text)
        gaps = []
        for epoch in range(settings.rollout.epochs):
            parts = functions.cut(episodes, jax.random.fold_in(order_key, epoch))
            for part, rows in zip(parts, texts, strict=True):
                state, step_metrics = functions.step(state, part, rows, step_key)
                block_until_ready_on_cpu(step_metrics)
                gaps.append(step_metrics.pop("log_prob_gap"))
                metrics.append(step_metrics)
        # The first gap precedes any update, so it is the decoding cache's error alone.
        return state, _join([*metrics, {"decode_gap": gaps[0]}])

    return update


@jax.jit
def _join(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds up (sum, weight) pairs of the same name."""
    out: dict[str, Any] = {}
    for part in metrics:
        for name, pair in part.items():
            out[name] = jax.tree.map(jnp.add, out[name], pair) if name in out else pair
    return out


def _make_evaluate(context: common.Context, model: Any, held_out: HeldOut):
    """Builds the evaluation: held-out pretraining loss (alignment tax) and samples."""
    table = make_sample_table(context, model, held_out.prompts)
    losses = {}
    if held_out.windows is not None:
        losses["valid_pretrain_loss"] = make_loss_evaluator(
            model, held_out.windows, batch_size=16, mesh=context.mesh
        )

    def evaluate(state: PPOState, step: int) -> dict[str, float]:
        table(state.ema, step)
        return {name: loss(state.ema) for name, loss in losses.items()}

    return evaluate
