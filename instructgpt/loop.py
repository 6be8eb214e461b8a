"""The one training loop: steps, logging, evaluation, checkpoints, preemption.

A stage hands over an update (state, batch, key) -> (state, metrics) and its data;
the loop owns everything around them. A run that is killed at any point and started
again ends with the same bits: state, iterator position and key are one checkpoint.
"""

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from instructgpt.checkpoints import Checkpoints
from instructgpt.distributed import agree_to_stop, is_first
from instructgpt.errors import UserError, about
from instructgpt.finite import first_not_finite
from instructgpt.metrics import MetricWriter, Progress, mean_metrics
from instructgpt.sharding import settle
from instructgpt.state import free, layout_of

Array = jax.Array


_REWARDS = ("score", "kl")  # metrics of a rollout that make its rewards


class Data(Protocol):
    """An endless iterator of batches whose position can be stored."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what, in steps."""

    num_steps: int
    log_every: int = 10  # 0: only at the end
    eval_every: int = 0  # 0: only at the end
    checkpoint_every: int = 0  # 0: only at the end
    keep: int = 1  # checkpoints to keep; 0 keeps all

    def saves(self, step: int) -> bool:
        """Whether a run that nothing stops saves after this step."""
        return step == self.num_steps or _due(step, self.checkpoint_every)


@dataclasses.dataclass(frozen=True)
class Job:
    """What a stage trains and how to look at it."""

    name: str
    update: Callable[[Any, Any, Array], tuple[Any, dict[str, Any]]]
    data: Data
    to_device: Callable[[Any], Any]
    count_tokens: Callable[[Any], int]  # of a batch on the host, padding excluded
    watch: tuple[str, ...]  # metrics of the progress line, in order
    evaluate: Callable[[Any, int], dict[str, float]] | None = None
    schedule: Callable[[Any], Any] | None = None  # learning rate by optimiser updates
    updates: int = 1  # of the optimiser with that schedule, in each step
    # The last state -> what is saved in its place, and what `meta` says besides.
    finish: Callable[[Any], tuple[Any, dict[str, Any]]] | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


class Preempted(SystemExit):
    """The machine asked us to leave; the state is saved. Exit code 143."""


def train(
    job: Job, state: Any, *, config: LoopConfig, key: Array, workdir: Path
) -> Any:
    """Runs the job from its last checkpoint (or the given state) to the end.

    Args:
      job: See Job.
      state: TrainState or PPOState of step 0. Donated.
      config: See LoopConfig.
      key: Root of all randomness of the run; steps fold their number into it.
      workdir: Holds `checkpoints/`, `metrics.jsonl` and TensorBoard files.

    Returns:
      The state after `num_steps`.

    Raises:
      UserError: a loss, a score or the state is not finite, or the checkpoint does
        not fit.
      Preempted: on SIGTERM, after saving.
    """
    checkpoints = Checkpoints(
        workdir / "checkpoints", keep=config.keep or None, named=config.saves
    )
    writer = MetricWriter(workdir, enabled=is_first())
    try:
        state, start, key = _restore(job, state, checkpoints, key)
        writer.resume(start)
        with _Preemption() as preemption:
            return _steps(
                job, state, start, config, key, checkpoints, writer, preemption
            )
    finally:
        writer.close()
        checkpoints.close()


def _restore(job: Job, state: Any, checkpoints: Checkpoints, key: Array):
    # 1. no checkpoint: the given state, step 0
    # 2. else state, iterator and key of the newest complete one; the given state is
    #    freed first, which the stage that made it still refers to
    step = checkpoints.latest
    if step is None:
        return state, 0, key
    layout = layout_of(state.parts())
    free(state)
    parts, meta = checkpoints.restore(step, layout)
    job.data.set_state(meta["data"])
    key = jax.random.wrap_key_data(jnp.array(meta["key"], jnp.uint32))
    return type(state).from_parts(parts), step, key


class _Feed:
    """The job's batches on the device, each put there while the last one is used."""

    def __init__(self, job: Job, count: int):
        self._job, self._left = job, count
        self.ready: Any = None  # the batch to use next, and its tokens
        self.position: Any = None  # of the data before that batch
        self.seconds = 0.0  # that the host spent on input, until someone resets it
        self.fetch()

    def fetch(self) -> None:
        """Makes the next batch ready, once the update on the last is on its way."""
        self.position = self._job.data.get_state()
        if not self._left:
            return
        began = time.monotonic()
        batch = next(self._job.data)
        tokens = self._job.count_tokens(batch)
        self.ready = self._job.to_device(batch), tokens
        self._left -= 1
        self.seconds += time.monotonic() - began


def _steps(job, state, start, config, key, checkpoints, writer, preemption):
    progress = Progress(job.name, config.num_steps, start=start, enabled=is_first())
    # Metrics stay on the device until they are logged, so the host runs ahead.
    pending, tokens, began = [], 0, time.monotonic()
    shown: dict[str, float] = {}
    feed = _Feed(job, config.num_steps - start)
    for step in range(start + 1, config.num_steps + 1):
        batch, count = feed.ready
        tokens += count
        state, metrics = job.update(state, batch, key)
        feed.fetch()
        settle(metrics)
        pending.append(metrics)
        last = step == config.num_steps
        # Read once a step: a signal that comes later is for the next one.
        stopping = agree_to_stop(preemption.asked, step)
        saving = stopping or config.saves(step)
        # Before each save too, so that a state gone bad never replaces a good one.
        if saving or _due(step, config.log_every):
            fetched = jax.device_get(pending)
            scaling = state.scaling()
            _check_finite(job.name, step, fetched, half="loss_scale" in scaling)
            means = mean_metrics(fetched)
            elapsed = time.monotonic() - began
            if job.schedule is not None:
                done = (step - 1) * job.updates - scaling.get("skipped_steps", 0)
                means["learning_rate"] = float(job.schedule(max(done, 0)))
            means |= scaling
            means["tokens_per_second"] = tokens / elapsed
            means["input_share"] = feed.seconds / elapsed
            writer.write(step, means)
            shown.update({k: means[k] for k in job.watch if k in means})
            speed = means["tokens_per_second"]
            progress.update(step, shown, tokens_per_second=speed)
            pending, tokens, began, feed.seconds = [], 0, time.monotonic(), 0.0
        evaluating = job.evaluate and (last or _due(step, config.eval_every))
        if saving or evaluating:
            # The metrics are those of the states before the updates.
            _check_state(job.name, step, state)
        if evaluating:
            paused = time.monotonic()
            with about(f"{job.name}: evaluation at step {step}"):
                evaluated = job.evaluate(state, step)
            if evaluated:
                writer.write(step, evaluated)
            shown.update({k: evaluated[k] for k in job.watch if k in evaluated})
            progress.update(step, shown)
            began += time.monotonic() - paused  # no part of tokens/s and input share
        if saving:
            meta = {"data": feed.position, "key": _key_data(key), **job.meta}
            if last and job.finish is not None:
                state, more = job.finish(state)
                meta |= more
            checkpoints.save(step, state.parts(), meta)
        if stopping and not last:
            checkpoints.wait()
            raise Preempted(143)
    progress.close()
    checkpoints.wait()
    return state


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _key_data(key: Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def _check_state(name: str, step: int, state: Any) -> None:
    bad = first_not_finite(state.parts())
    if bad is not None:
        raise UserError(
            f"{name}: {bad} is not finite after step {step}; the last checkpoint is "
            "kept. Lower config.optimizer.learning_rate or raise its warmup, and start "
            "again"
        )


def _check_finite(
    name: str, step: int, metrics: list[dict[str, Any]], *, half: bool = False
) -> None:
    # Sums, not means: a mean is made of several steps, and the step is told.
    bad = {
        key
        for pairs in metrics
        for key, (total, _) in pairs.items()
        if ("loss" in key or "grad_norm" in key or key in _REWARDS)
        and not np.isfinite(total)
    }
    if "score" in bad:
        # The answers are tokens, whatever became of the policy.
        raise UserError(
            f"{name}: the reward model's score of an answer is not finite at step "
            f"{step}; the last checkpoint is kept. Give another config.reward_init, or "
            "a config.model.compute_dtype that holds its numbers, in a new workdir"
        )
    if bad:
        raise UserError(
            f"{name}: {', '.join(sorted(bad))} is not finite at step {step}; the last "
            "checkpoint is kept. Lower config.optimizer.learning_rate or raise its "
            "warmup, and start again"
            + "; or compute in bfloat16, whose range is float32's"
            * half
        )


class _Preemption:
    """Turns SIGTERM into a flag while the loop runs, in the main thread only.

    Of several processes JAX takes note of the signal, so that they stop together.
    """

    asked = False
    _old: Any = None

    def __enter__(self) -> "_Preemption":
        if jax.process_count() > 1:
            return self
        try:
            self._old = signal.signal(signal.SIGTERM, self._ask)
        except ValueError:  # not the main thread: a notebook, a test
            self._old = None
        return self

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        if self._old is not None:
            signal.signal(signal.SIGTERM, self._old)
