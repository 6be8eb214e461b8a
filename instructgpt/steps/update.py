"""Shared parts of all steps: gradients over microbatches, and one jitted update.

A loss function returns a sum with its weight. Gradients of the sums are added over
microbatches and divided by the added weights once, so any split of a batch gives
the gradient of the whole.

Under float16 the sum is multiplied by the state's loss scale before it is
differentiated, and an update whose gradients are not finite is skipped.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from instructgpt.arrays import Array, Bool, Float, Key, Params
from instructgpt.losses import Weighted
from instructgpt.optim import LossScale, global_norm
from instructgpt.sharding import split_rows
from instructgpt.state import TrainState

Batch = Any
Metrics = dict[str, Weighted]
# (params, batch, key, *frozen) -> (loss, metrics); the metrics need not hold the loss.
# `frozen` are further parameters that the loss reads and that are not trained, such as
# those of a reference model.
LossFn = Callable[..., tuple[Weighted, Metrics]]
# (state, batch, key, *frozen) -> (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def scalar(value: Float[Array, ""] | float) -> Weighted:
    """Makes a metric of weight 1 from a value that is already a mean."""
    return Weighted(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def gradients(
    loss_fn: LossFn,
    params: Params,
    batch: Batch,
    key: Key[Array, ""],
    *frozen: Params,
    microbatches: int = 1,
    loss_scale: LossScale | None = None,
) -> tuple[Params, Weighted, Metrics]:
    """Gradient of the mean loss over a batch, in float32.

    Args:
      loss_fn: See LossFn.
      params: Parameters to differentiate with respect to.
      batch: Tree of arrays [B, ...].
      key: Random key, folded with the microbatch's number.
      frozen: Parameters that the loss reads and that get no gradient.
      microbatches: Parts of the batch, in memory one at a time; divides B.
      loss_scale: Multiplies the loss before differentiation, and divides the gradients.

    Returns:
      (gradients, loss, metrics), none of which includes the scale.
    """

    def of_sum(params: Params, batch: Batch, key: Array):
        loss, metrics = loss_fn(params, batch, key, *frozen)
        total = loss.sum if loss_scale is None else loss.sum * loss_scale.scale
        return total, (loss, metrics)

    def one(batch: Batch, key: Array):
        (_, out), grads = jax.value_and_grad(of_sum, has_aux=True)(params, batch, key)
        return grads, *out

    if microbatches == 1:
        grads, loss, metrics = one(batch, jax.random.fold_in(key, 0))
    else:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(microbatches))
        xs = split_rows(batch, microbatches), keys
        shapes = jax.eval_shape(one, *jax.tree.map(lambda x: x[0], xs))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(total, x):
            return jax.tree.map(jnp.add, total, one(*x)), None

        (grads, loss, metrics), _ = jax.lax.scan(body, zeros, xs)
    # A product, because XLA fuses it into the reader of a gradient, but no division.
    share = 1.0 / jnp.where(loss.weight > 0, loss.weight, 1.0)
    if loss_scale is not None:
        share = share / loss_scale.scale
    return jax.tree.map(lambda g: g * share, grads), loss, metrics


class Updated(NamedTuple):
    """A state after an update, and whether the update was applied."""

    state: TrainState
    made: Bool[Array, ""] | None  # whether it was applied; None: always

    def choose(self, new: Params, old: Params) -> Params:
        """Returns `new` if the update was applied, else `old`."""
        if self.made is None:
            return new
        return jax.tree.map(functools.partial(jnp.where, self.made), new, old)


def update(
    state: TrainState, grads: Params, optimizer: optax.GradientTransformation
) -> Updated:
    """Applies one optimiser update; with a loss scale, only if gradients are finite.

    A skipped update still increases the state's `step` and changes the loss scale; the
    parameters and the optimiser's state stay as they are.

    Args:
      state: The state before the update.
      grads: Mean gradients, without the scale.
      optimizer: Applied to the gradients.
    """
    new = state.updated(grads, optimizer)
    if state.loss_scale is None:
        return Updated(new, None)
    finite = jnp.isfinite(global_norm(grads))
    out = Updated(new, finite)
    scale = state.loss_scale.after(finite)
    old = dataclasses.replace(state, step=new.step)
    return out._replace(
        state=dataclasses.replace(out.choose(new, old), loss_scale=scale)
    )


def norm_metric(grads: Params, loss_scale: LossScale | None) -> Weighted:
    """The norm of the gradients, without overflows that a smaller loss scale can cure.

    A norm that is not finite has weight 0 while the scale can still be halved. At the
    smallest scale it is kept, so that training ends with an error.

    Args:
      grads: Mean gradients.
      loss_scale: The scale with which they were computed.
    """
    norm = scalar(global_norm(grads))
    if loss_scale is None:
        return norm
    counts = jnp.isfinite(norm.sum) | loss_scale.exhausted
    return jax.tree.map(lambda x: jnp.where(counts, x, 0.0), norm)


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    microbatches: int = 1,
    prepare: Callable[[Batch], Batch] | None = None,
    shardings: Any = None,
) -> TrainStep:
    """Builds the jitted update (state, batch, key, *frozen) -> (state, metrics).

    The state is donated. The key is folded with the state's step, so the caller passes
    the same key each time. Frozen parameters are arguments, so that the program holds
    no copy of them: they keep the caller's sharding and memory.

    Args:
      loss_fn: See LossFn.
      optimizer: Applied to the mean gradient.
      microbatches: See `gradients`.
      prepare: Applied to the whole batch before it is cut into microbatches.
      shardings: Shardings of the state, pinned on the output so that nothing
        recompiles.
    """

    def step(state: TrainState, batch: Batch, key: Array, *frozen: Params):
        key = jax.random.fold_in(key, state.step)
        batch = batch if prepare is None else prepare(batch)
        grads, loss, metrics = gradients(
            loss_fn,
            state.params,
            batch,
            key,
            *frozen,
            microbatches=microbatches,
            loss_scale=state.loss_scale,
        )
        norm = norm_metric(grads, state.loss_scale)
        metrics = {"loss": loss, **metrics, "grad_norm": norm}
        return update(state, grads, optimizer).state, metrics

    out = None if shardings is None else (shardings, None)
    return jax.jit(step, donate_argnums=0, out_shardings=out)
