"""The jobs of run.py: what runs, what it costs at least, and its parts.

Letters: B batch, T tokens, P prompt, R response, K responses per prompt, V vocabulary.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from instructgpt.batches import ComparisonBatch, PromptBatch, TokenBatch
from instructgpt.data.packing import ComparisonPacker
from instructgpt.generation import make_sampler
from instructgpt.models.comparisons import response_scores
from instructgpt.models.config import ModelConfig
from instructgpt.models.costs import (
    Cost,
    causal,
    decode,
    forward,
    left_out,
    prefill,
    update,
)
from instructgpt.models.costs import ppo as ppo_costs
from instructgpt.models.scoring import response_log_probs, response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.rewards import make_reward_scorer
from instructgpt.rollouts import make_minibatches, make_rollout_fn
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import (
    MeshConfig,
    block_until_ready_on_cpu,
    local_ways,
    make_mesh,
    put_batch,
)
from instructgpt.state import PPOState, TrainState, cast, make_train_state, shardings_of
from instructgpt.steps.ppo import (
    PPOConfig,
    make_policy_loss,
    make_ppo_step,
    make_value_loss,
    with_advantages,
)
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import gradients, make_train_step

PAD, FIRST = 0, 4
OPTIMIZER = make_optimizer(OptimizerConfig(1e-5, clip_norm=1.0), 1000)


class Call(NamedTuple):
    """A function with its arguments, under a mesh."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    mesh: Any
    times: int = 1

    def __call__(self) -> Any:
        with jax.set_mesh(self.mesh):
            return [self.function(*self.arguments) for _ in range(self.times)][-1]

    def memory(self) -> Any:
        """What the compiler says that the (jitted) function needs."""
        with jax.set_mesh(self.mesh):
            return self.function.lower(*self.arguments).compile().memory_analysis()


Args = argparse.Namespace


class Job(NamedTuple):
    """One job at the given sizes."""

    name: str
    unit: str  # of its rate
    amount: int  # units a call
    run: Callable[[], Any]
    cost: Cost
    parts: dict[str, tuple[Call, Cost]]  # for --profile
    # What no call does alone: a part, less another.
    rest: dict[str, tuple[str, str, Cost]] = {}  # noqa: RUF012
    held: dict[str, Any] = {}  # noqa: RUF012  # trees in memory all the time, by name


class Bench:
    """What all jobs need: sizes, a mesh of all devices, random numbers."""

    def __init__(self, args: Args):
        self.args = args
        devices = jax.devices()[: args.devices or None]
        # On a CPU the devices are cores, which had better not wait for weights.
        self.on_cpu = devices[0].platform == "cpu"
        layout = MeshConfig() if self.on_cpu else MeshConfig(data=1, fsdp=-1)
        self.mesh = make_mesh(layout, devices=devices)
        self.key = jax.random.key(args.seed)
        self._rng = np.random.default_rng(args.seed)

    def config(self, *, training: bool = True) -> ModelConfig:
        """GPT-2's architecture at the given size."""
        args = self.args
        return ModelConfig(
            vocab_size=args.vocab,
            context_length=args.context,
            num_layers=args.layers,
            width=args.width,
            num_heads=args.heads,
            compute_dtype=args.dtype,
            fused_attention=args.fused,
            logit_chunk=args.logit_chunk,
            remat=args.remat if training else "none",
            scan_layers=args.scan_layers,
        )

    def ids(self, *shape: int) -> np.ndarray:
        return self._rng.integers(FIRST, self.args.vocab, shape, dtype=np.int32)

    def prompts(self, rows: int, length: int) -> PromptBatch:
        index = np.arange(rows, dtype=np.int32)
        return PromptBatch(self.ids(rows, length), np.ones((rows, length), bool), index)

    def texts(self, rows: int, length: int) -> TokenBatch:
        """Rows of which every token is a target, one text each."""
        shape = rows, length
        targets = np.broadcast_to(np.arange(length) > 0, shape)
        return TokenBatch(self.ids(*shape), np.ones(shape, np.int32), targets)

    def state(self, model: Any, seed: int = 0) -> TrainState:
        with jax.set_mesh(self.mesh):
            key = jax.random.fold_in(self.key, seed)
            return make_train_state(model, OPTIMIZER, key=key, mesh=self.mesh)

    def put(self, batch: Any) -> Any:
        return put_batch(batch, self.mesh)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Call:
        """A call without arguments, under the mesh."""
        return Call(function, arguments, self.mesh)

    def gradient(self, loss: Any, params: Any, batch: Any) -> Call:
        run = jax.jit(lambda p, b: gradients(loss, p, b, self.key)[0])
        return self.call(run, params, self.put(batch))

    def training(
        self, model: Any, loss: Any, make_batch: Callable[[], Any]
    ) -> Callable[[], Any]:
        """One update a call, on a batch from the host."""
        state = self.state(model)
        step = make_train_step(loss, OPTIMIZER, shardings=shardings_of(state))

        def run() -> Any:
            nonlocal state
            with jax.set_mesh(self.mesh):
                state, metrics = step(state, self.put(make_batch()), self.key)
            return state.params, metrics

        return run


def sft(args: Args) -> Job:
    """One update on B rows of T tokens, all of them targets."""
    bench = Bench(args)
    config = bench.config()
    model = Transformer(config)
    batch = bench.texts(args.batch, args.seq)
    loss = make_sft_loss(model, leading_padding=False)
    count = args.batch * args.seq
    cost = forward(config, tokens=count, seen=causal(args.seq), predicted=count)
    params = bench.state(model).params
    value = jax.jit(lambda p, b: loss(p, b, bench.key)[0])
    return Job(
        "sft",
        "tokens_per_s",
        count,
        bench.training(model, loss, lambda: batch),
        update(config, cost),
        {
            "forward": (bench.call(value, params, bench.put(batch)), cost),
            "gradient": (bench.gradient(loss, params, batch), cost.times(3)),
        },
    )


def reward(args: Args) -> Job:
    """One update on so many prompts with K responses, all C(K, 2) pairs."""
    bench = Bench(args)
    config = bench.config()
    model = ScalarModel(config)
    prompts, slots = args.prompts, args.K
    shape = prompts, slots, args.reward_response
    ranks = np.tile(np.arange(1, slots + 1, dtype=np.int32), (prompts, 1))
    batch = ComparisonBatch(
        prompt=bench.ids(prompts, args.reward_prompt),
        prompt_valid=np.ones((prompts, args.reward_prompt), bool),
        responses=bench.ids(*shape),
        response_valid=np.ones(shape, bool),
        ranks=ranks,
        present=np.ones(shape[:2], bool),
        wording=ranks,
        packed_row=ranks - 1,  # no two full responses share a row
    )
    pack = ComparisonPacker([batch], groups=local_ways(bench.mesh))
    loss = make_reward_loss(model)
    shared = dict(tokens=prompts * args.reward_prompt, seen=causal(args.reward_prompt))
    cost = forward(
        config,
        tokens=prompts * slots * args.reward_response,
        seen=args.reward_prompt + causal(args.reward_response),
    )
    for part in (forward, left_out):
        cost = cost.plus(part(config, **shared))
    params = bench.state(model).params
    value = jax.jit(lambda p, b: loss(p, b, bench.key)[0])
    packed = pack(batch)
    return Job(
        "reward",
        "prompts_per_s",
        prompts,
        bench.training(model, loss, lambda: pack(batch)),
        update(config, cost),
        {
            "forward": (bench.call(value, params, bench.put(packed)), cost),
            "gradient": (bench.gradient(loss, params, packed), cost.times(3)),
        },
    )


def _sampler(bench: Bench, response: int) -> Any:
    return make_sampler(
        Transformer(bench.config(training=False)),
        config=SamplingConfig(response),
        stop_ids=(bench.args.vocab + 5,),  # which no row ever draws
        pad_id=PAD,
    )


def _sampling_costs(
    config: ModelConfig, *, rows: int, prompt: int, response: int
) -> tuple[Cost, Cost]:
    """The costs of the prefill, and of all decode steps together."""
    steps = decode(config, rows=rows, prompt=prompt, response=response)
    return prefill(config, rows=rows, prompt=prompt), steps


def sample(args: Args) -> Job:
    """A response to each of so many prompts."""
    bench = Bench(args)
    model = Transformer(bench.config(training=False))
    params = bench.state(model).params
    prompts = bench.prompts(args.samples, args.prompt)
    sizes = dict(rows=args.samples, prompt=args.prompt, response=args.response)
    prefill, steps = _sampling_costs(model.config, **sizes)
    run, first = _sampler(bench, args.response), _sampler(bench, 1)
    whole = bench.call(run, params, bench.put(prompts), bench.key)
    return Job(
        "sample",
        "tokens_per_s",
        args.samples * args.response,
        whole,
        prefill.plus(steps),
        {
            "prefill": (
                bench.call(first, params, bench.put(prompts), bench.key),
                prefill,
            ),
            "whole": (whole, prefill.plus(steps)),
        },
        {"decode": ("whole", "prefill", steps)},
    )


class Frozen(NamedTuple):
    """Parameters of the models that PPO does not train."""

    reference: Any
    reward: Any


def ppo(args: Args) -> Job:
    """One iteration: roll out, score, one epoch of minibatches on both nets.

    With pretraining rows it is PPO-ptx.
    """
    bench = Bench(args)
    policy, scalar = Transformer(bench.config()), ScalarModel(bench.config())
    config = PPOConfig(
        kl_coef=0.02,
        ptx_coef=27.8 if args.ptx else 0.0,
        value_clip=0.2,
        gae_lambda=0.95,
        whiten_advantages=True,
        ema_decay=0.992,
    )
    minibatches = args.episodes // args.minibatch
    frozen = Frozen(
        cast(bench.state(policy, 1).params, args.dtype),
        cast(bench.state(scalar, 2).params, args.dtype),
    )
    start = bench.state(policy)
    ema = jax.tree.map(lambda x: x.copy(), start.params)
    state = PPOState(start, bench.state(scalar, 3), ema)
    roll = _sampler(bench, args.ppo_response)
    # On a CPU in parts small enough to stay in its caches.
    microbatches = minibatches if bench.on_cpu else 1
    rate = make_reward_scorer(scalar, microbatches=microbatches)
    roll_out = make_rollout_fn(
        policy,
        scalar,
        temperature=1.0,
        stop_ids=(args.vocab + 5,),
        microbatches=microbatches,
    )

    def score(samples: Any, batch: Any, frozen: Frozen, value: Any) -> Any:
        scores = block_until_ready_on_cpu(rate(frozen.reward, batch, samples))
        return roll_out(batch, samples, scores, frozen.reference, value)

    cut = make_minibatches(minibatches)
    step = make_ppo_step(
        policy,
        scalar,
        policy_optimizer=OPTIMIZER,
        value_optimizer=OPTIMIZER,
        config=config,
        shardings=shardings_of(state),
    )
    prompts = bench.prompts(args.episodes, args.ppo_prompt)

    texts = bench.texts(args.ptx, args.seq)

    def iterate() -> Any:
        nonlocal state
        batch, text = bench.put(prompts), bench.put(texts) if args.ptx else None
        key = jax.random.fold_in(bench.key, state.policy.step)
        wait = block_until_ready_on_cpu  # after each program, as the stage does
        samples = wait(roll(state.policy.params, batch, key))
        episodes = wait(score(samples, batch, frozen, state.value.params))
        for part in cut(episodes, key):
            state, metrics = wait(step(state, part, text, key))
        return state.policy.params, metrics

    costs = _ppo_costs(args, policy.config)
    parts = _ppo_parts(bench, policy, scalar, config, frozen, (roll, score, cut), costs)
    return Job(
        "ppo",
        "episodes_per_s",
        args.episodes,
        bench.call(iterate),
        Cost(
            sum(cost.flops for cost in costs.values()),
            sum(cost.bytes for cost in costs.values()),
        ),
        parts,
        held={
            "policy": start.params,
            "policy's moments": start.opt_state,
            "policy's average": ema,
            "value net": state.value.params,
            "value net's moments": state.value.opt_state,
            "reference": frozen.reference,
            "reward model": frozen.reward,
        },
    )


def _ppo_costs(args: Args, config: ModelConfig) -> dict[str, Cost]:
    costs = ppo_costs(
        config,
        config,
        episodes=args.episodes,
        prompt=args.ppo_prompt,
        response=args.ppo_response,
        minibatches=args.episodes // args.minibatch,
        text_rows=args.ptx,
        text_length=args.seq,
    )
    return {"sample": costs.pop("prefill").plus(costs.pop("decode")), **costs}


def _ppo_parts(
    bench: Bench,
    policy: Transformer,
    scalar: ScalarModel,
    config: PPOConfig,
    frozen: Frozen,
    calls: tuple[Any, Any, Any],
    costs: dict[str, Cost],
) -> dict[str, tuple[Call, Cost]]:
    """The phases of an iteration, each by itself; gradients without their updates."""
    args, (roll, score, cut) = bench.args, calls
    batch = bench.put(bench.prompts(args.episodes, args.ppo_prompt))
    params, value = bench.state(policy).params, bench.state(scalar, 3).params
    samples = bench.call(roll, params, batch, bench.key)()
    rollout = bench.call(score, samples, batch, frozen, value)()
    minibatch = cut(rollout, bench.key)[0]
    prompt = batch.tokens, batch.valid
    response = samples.tokens[:, 0], samples.valid[:, 0]
    reference = jax.jit(
        lambda p: response_log_probs(policy, p, prompt, response).log_probs
    )
    rewards = jax.jit(
        lambda p: response_scores(scalar, p, prompt, (samples.tokens, samples.valid))
    )
    values = jax.jit(lambda p: response_values(scalar, p, prompt, response))

    count = args.episodes // args.minibatch

    def repeated(loss: Any, params: Any) -> Call:
        run = jax.jit(
            lambda p, b: gradients(loss, p, with_advantages(b, config=config), key)[0]
        )
        key = bench.key
        return bench.call(run, params, minibatch)._replace(times=count)

    parts = {
        "sample": (bench.call(roll, params, batch, bench.key), costs["sample"]),
        "reference": (bench.call(reference, frozen.reference), costs["reference"]),
        "reward": (bench.call(rewards, frozen.reward), costs["reward"]),
        "value": (bench.call(values, value), costs["value"]),
        "policy update": (
            repeated(make_policy_loss(policy, config, 1.0), params),
            costs["policy update"],
        ),
        "value update": (
            repeated(make_value_loss(scalar, config), value),
            costs["value update"],
        ),
    }
    if args.ptx:
        loss = make_sft_loss(policy, leading_padding=False, train=False)
        gradient = bench.gradient(loss, params, bench.texts(args.ptx, args.seq))
        parts["ptx gradient"] = gradient._replace(times=count), costs["ptx gradient"]
    return parts


JOBS: dict[str, Callable[[Args], Job]] = {
    "sft": sft,
    "reward": reward,
    "sample": sample,
    "ppo": ppo,
}
