"""Held-out loss of a language model, unbiased by padding and batching."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from instructgpt.evals.batching import mesh_batches
from instructgpt.finite import check_finite
from instructgpt.metrics import mean_metrics
from instructgpt.models.transformer import Transformer
from instructgpt.sharding import block_until_ready_on_cpu, put_batch
from instructgpt.steps.sft import make_sft_loss


def make_loss_evaluator(
    model: Transformer,
    source: Any,
    encode: Callable[[Any], Any] | None,
    *,
    batch_size: int,
    mesh: Mesh,
    first_target: int = 1,
    keep: Any = None,
) -> Callable[[Any], float]:
    """Builds params -> mean negative log-likelihood in nats per target token.

    Args:
      model: The language model; dropout is off.
      source: Random access to records.
      encode: Record to TokenBatch row.
      batch_size: Rows at a time; rounded up to what the mesh divides.
      mesh: Where to run.
      first_target: See `make_sft_loss`.
      keep: Row numbers to use; None for all.

    Returns:
      A function that raises UserError if a batch's loss is not finite.
    """
    loss_fn = make_sft_loss(model, first_target=first_target, train=False)
    key = jax.random.key(0)  # unused: nothing is random without dropout
    run = jax.jit(lambda params, batch: loss_fn(params, batch, key)[0])

    def evaluate(params: Any) -> float:
        batches = mesh_batches(
            source, encode, batch_size=batch_size, mesh=mesh, keep=keep
        )
        outputs = (run(params, put_batch(batch, mesh)) for batch in batches)
        losses = jax.device_get([block_until_ready_on_cpu(x) for x in outputs])
        check_finite([loss.sum for loss in losses], "held-out losses")
        return mean_metrics([{"loss": loss} for loss in losses])["loss"]

    return evaluate
