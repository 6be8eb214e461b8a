"""The training loop of all stages: steps, logging, evaluation, checkpoints, signals.

A stage passes an update (state, batch, key) -> (state, metrics) and its data; the loop
does everything else. A run that is killed at any point and started again ends with the
same bits, because state, iterator position and key are saved in one checkpoint.
"""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from instructgpt.checkpoints import Checkpoints, Verify
from instructgpt.distributed import agree_to_stop, is_first
from instructgpt.errors import DivergedError, UserError, about
from instructgpt.finite import first_not_finite
from instructgpt.metrics import MetricWriter, mean_metrics
from instructgpt.models.costs import PFS_DAY
from instructgpt.progress import Progress
from instructgpt.sharding import block_until_ready_on_cpu
from instructgpt.state import free, layout_of

Array = jax.Array


_REWARDS = ("score", "kl")  # metrics of a rollout that enter its rewards


class Data(Protocol):
    """An endless iterator of batches whose position can be stored."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """The schedule of the loop, in steps."""

    num_steps: int
    log_every: int = 10  # 0: only at the end
    eval_every: int = 0  # 0: only at the end
    checkpoint_every: int = 0  # 0: only at the end
    keep: int = 1  # checkpoints to keep; 0 keeps all
    verify: Verify = "files"  # see Checkpoints

    def saves(self, step: int) -> bool:
        """Whether an uninterrupted run saves a checkpoint after this step."""
        return step == self.num_steps or _due(step, self.checkpoint_every)


@dataclasses.dataclass(frozen=True)
class Job:
    """A stage's update, its data, and how to log and evaluate it."""

    name: str
    update: Callable[[Any, Any, Array], tuple[Any, dict[str, Any]]]
    data: Data
    to_device: Callable[[Any], Any]
    count_tokens: Callable[[Any], int]  # tokens of a host batch, without padding
    watch: tuple[str, ...]  # metrics of the progress line, in order
    evaluate: Callable[[Any, int], dict[str, float]] | None = None
    schedule: Callable[[Any], Any] | None = None  # optimiser updates -> learning rate
    updates: int = 1  # number of optimiser updates per step
    # Config keys of the learning rates. When training diverges, the error advises to
    # lower the first, or one whose name matches what is not finite (`value_optimizer`).
    rates: tuple[str, ...] = ("optimizer.learning_rate",)
    # Maps the last state to what is saved in its place, and further entries of `meta`.
    finish: Callable[[Any], tuple[Any, dict[str, Any]]] | None = None
    # Operations of a step over all devices, by models/costs, padding included. 0: they
    # are not counted.
    flops: float = 0.0
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


class Preempted(SystemExit):
    """Raised after SIGTERM or SIGINT, once the state is saved.

    The exit code is 143 after SIGTERM and 130 after SIGINT (Ctrl-C).
    """


def train(
    job: Job,
    state: Any,
    *,
    config: LoopConfig,
    key: Array,
    workdir: Path,
    writer: MetricWriter | None = None,
) -> Any:
    """Runs a job from its last checkpoint (or the given state) to the end.

    Args:
      job: The update, the data and how to log them.
      state: TrainState or PPOState at step 0; it is donated.
      config: The schedule of the loop.
      key: Root of all randomness of the run; steps fold their number into it.
      workdir: Folder of `checkpoints/`, `metrics.jsonl` and TensorBoard files.
      writer: The writer of the workdir's metrics, which is closed at the end; by
        default one that shows them in TensorBoard.

    Returns:
      The state after `num_steps`.

    Raises:
      DivergedError: a loss or the state is not finite.
      UserError: a score is not finite, or the checkpoint does not fit or belongs to a
        longer run.
      Preempted: on SIGTERM or SIGINT, after saving.
    """
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep=config.keep or None,
        named=config.saves,
        verify=config.verify,
    )
    try:
        with writer or MetricWriter(workdir, enabled=is_first()) as log:
            state, start, key, meta = _restore(job, state, config, checkpoints, key)
            log.resume(start, checksum=meta.get("metrics", ""))
            with _Preemption() as preemption:
                return _steps(
                    *(job, state, start, config, key),
                    *(meta, checkpoints, log, preemption),
                )
    finally:
        checkpoints.close()


def _restore(
    job: Job, state: Any, config: LoopConfig, checkpoints: Checkpoints, key: Array
):
    # 1. without a checkpoint: the given state, step 0
    # 2. else the state, iterator, key and `meta` of the newest complete checkpoint; the
    #    given state is freed first, although the stage that made it still refers to it
    step = checkpoints.latest
    if step is None:
        return state, 0, key, {}
    layout = layout_of(state.parts())
    free(state)
    parts, meta = checkpoints.restore(step, layout)
    left = config.num_steps - step
    if left < 0 or (left == 0 and not meta.get("ended", True)):
        raise UserError(
            f"{job.name}: this run is to end after step {config.num_steps}, and its "
            f"checkpoint is of step {step} of a longer one; set config.train back, or "
            "start in a new workdir"
        )
    if left:
        _tell(f"{job.name}: going on from step {step}")
    job.data.set_state(meta["data"])
    key = jax.random.wrap_key_data(jnp.array(meta["key"], jnp.uint32))
    return type(state).from_parts(parts), step, key, meta


class _Feed:
    """Moves the job's batches to the devices, each while the one before it is used."""

    def __init__(self, job: Job, count: int):
        self._job, self._left = job, count
        self.ready: Any = None  # the batch to use next, and its number of tokens
        self.position: Any = None  # position of the data before that batch
        self.seconds = 0.0  # seconds that the host spent on input since the last reset
        self.fetch()

    def fetch(self) -> None:
        """Makes the next batch ready; called after the current update is dispatched."""
        self.position = self._job.data.get_state()
        if not self._left:
            return
        began = time.monotonic()
        batch = next(self._job.data)
        tokens = self._job.count_tokens(batch)
        self.ready = self._job.to_device(batch), tokens
        self._left -= 1
        self.seconds += time.monotonic() - began


def _steps(job, state, start, config, key, meta, checkpoints, writer, preemption):
    progress = Progress(job.name, config.num_steps, start=start, enabled=is_first())
    # Metrics stay on the device until they are logged, so that the host runs ahead.
    pending, tokens, began = meta.get("pending", []), 0, time.monotonic()
    spent, shown = meta.get("flops", start * job.flops), dict[str, float]()
    feed, step, stopping = _Feed(job, config.num_steps - start), start, False
    for step in range(start + 1, config.num_steps + 1):
        batch, count = feed.ready
        tokens, spent = tokens + count, spent + job.flops
        state, metrics = job.update(state, batch, key)
        feed.fetch()
        block_until_ready_on_cpu(metrics)
        pending.append(metrics)
        last = step == config.num_steps
        # Read once per step; a later signal takes effect in the next step.
        stopping = agree_to_stop(bool(preemption.asked), step)
        saving = stopping or config.saves(step)
        logging = config.saves(step) or _due(step, config.log_every)
        # Checked before each save too, so that a bad state never replaces a good one.
        if saving or logging:
            pending, scaling = jax.device_get(pending), state.scaling()
            half = "loss_scale" in scaling
            _check_finite(job, step, checkpoints, pending, half=half)
        if logging:
            means = mean_metrics(pending)
            elapsed = time.monotonic() - began
            means |= _learning_rate(job, step, scaling) | scaling | _compute(job, spent)
            means["tokens_per_second"] = tokens / elapsed
            means["input_share"] = feed.seconds / elapsed
            writer.write(step, means)
            shown.update({k: means[k] for k in job.watch if k in means})
            progress.update(step, shown, tokens_per_second=tokens / elapsed)
            pending, tokens, began, feed.seconds = [], 0, time.monotonic(), 0.0
        evaluating = job.evaluate and (last or _due(step, config.eval_every))
        if saving or evaluating:
            # The state is checked as well: metrics are computed before the last update.
            _check_state(job, step, checkpoints, state)
        if evaluating:
            paused = time.monotonic()
            with about(f"{job.name}: evaluation at step {step}"):
                evaluated = job.evaluate(state, step)
            if evaluated:
                writer.write(step, evaluated)
            shown.update({k: evaluated[k] for k in job.watch if k in evaluated})
            progress.update(step, shown)
            began += time.monotonic() - paused  # excluded from tokens/s and input share
        if saving:
            meta = _meta(job, feed, key, writer, pending, spent) | {"ended": last}
            if last and job.finish is not None:
                state, more = job.finish(state)
                meta |= more
            checkpoints.save(step, state.parts(), meta)
        if stopping:
            break
    progress.close()
    checkpoints.wait()
    # A signal during the last save ends the run here: later work would not be saved.
    if stopping or agree_to_stop(bool(preemption.asked), step + 1):
        _leave(job.name, step, preemption)
    return state


def _leave(name: str, step: int, preemption: "_Preemption") -> NoReturn:
    _tell(
        f"{name}: stopped after step {step}, which is saved; start the same line again "
        "to go on"
    )
    raise Preempted(128 + (preemption.asked or signal.SIGTERM))


def _tell(text: str) -> None:
    if is_first():
        print(text, flush=True)


def _meta(job: Job, feed: _Feed, key: Array, writer: MetricWriter, pending, spent):
    """The JSON part of a checkpoint, from which a run resumes."""
    out: dict[str, Any] = {"data": feed.position, "key": _key_data(key), **job.meta}
    out["metrics"], out["flops"] = writer.checksum(), spent
    if pending:  # keeps the metrics since the last logged line, for the next line
        out["pending"] = [
            {name: [float(total), float(weight)] for name, (total, weight) in m.items()}
            for m in pending
        ]
    return out


def _learning_rate(job: Job, step: int, scaling: dict[str, float]) -> dict[str, float]:
    if job.schedule is None:
        return {}
    done = (step - 1) * job.updates - scaling.get("skipped_steps", 0)
    return {"learning_rate": float(job.schedule(max(done, 0)))}


def _compute(job: Job, spent: float) -> dict[str, float]:
    """Petaflop/s-days of the run so far, in all its parts if it was resumed."""
    return {"pfs_days": spent / PFS_DAY} if job.flops else {}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _key_data(key: Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def _check_state(job: Job, step: int, checkpoints: Checkpoints, state: Any) -> None:
    bad = first_not_finite(state.parts())
    if bad is not None:
        raise DivergedError(
            f"{job.name}: {bad} is not finite after step {step}; "
            + _lower(job, [bad], checkpoints)
        )


def _lower(job: Job, bad: list[str], checkpoints: Checkpoints) -> str:
    """Advice on how to resume from the last checkpoint with a lower rate."""
    checkpoints.wait()
    saved = checkpoints.latest

    def is_of(rate: str) -> bool:
        part = rate.partition("_optimizer")[0]
        return all(name.startswith(part) for name in bad)

    rate = next(filter(is_of, job.rates), job.rates[0])
    again = (
        f"lower config.{rate}: the same line again with --config.{rate}=LOWER "
        f"--config.resume.changed={rate}"
    )
    if saved is None:
        return f"nothing is saved yet; {again} begins anew"
    return (
        f"checkpoint {saved} is kept; {again} goes on from there. If that diverges "
        "too, start in a new workdir"
    )


def _check_finite(
    job: Job,
    step: int,
    checkpoints: Checkpoints,
    metrics: list[dict[str, Any]],
    *,
    half: bool = False,
) -> None:
    # Checks each step's sums, because a mean over steps would not tell the step.
    bad = {
        key
        for pairs in metrics
        for key, (total, _) in pairs.items()
        if ("loss" in key or "grad_norm" in key or key in _REWARDS)
        and not np.isfinite(total)
    }
    if "score" in bad:
        # Answers are tokens, so the score's error is not the policy's.
        raise UserError(
            f"{job.name}: the reward model's score of an answer is not finite at step "
            f"{step}; give another config.reward_init, or a config.model.compute_dtype "
            "that holds its numbers, in a new workdir"
        )
    if bad:
        raise DivergedError(
            f"{job.name}: {', '.join(sorted(bad))} is not finite at step {step}; "
            + _lower(job, sorted(bad), checkpoints)
            + "; or compute in bfloat16, whose range is float32's" * half
        )


class _Preemption:
    """Records SIGTERM and SIGINT while the loop runs, in the main thread only.

    With several processes JAX records SIGTERM, so that all stop together. A process
    that was started to ignore Ctrl-C continues to ignore it.
    """

    def __init__(self) -> None:
        self.asked = 0  # number of the signal received; 0: none
        self._several = jax.process_count() > 1
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "_Preemption":
        if threading.current_thread() is not threading.main_thread():
            return self  # in a notebook or a test, which runs in another thread
        numbers = [signal.SIGINT] if self._several else [signal.SIGINT, signal.SIGTERM]
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._old[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, _: Any) -> None:
        self.asked = number
        if number == signal.SIGINT:
            os.write(2, b"\nstopping after this step; Ctrl-C again ends at once\n")
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self._several:
                os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
        if self.asked and error is None:
            # It came after the loop last looked: the handler from before takes over.
            os.kill(os.getpid(), self.asked)
