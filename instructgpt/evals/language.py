"""Held-out loss of a language model, which padding and batching do not bias."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.arrays import Params
from instructgpt.batching import mesh_batches
from instructgpt.data.documents import TokenWindows
from instructgpt.errors import about
from instructgpt.evals.interface import Results, Setting, Value
from instructgpt.evals.intervals import mean_interval
from instructgpt.finite import check_finite
from instructgpt.inference import LanguageModel
from instructgpt.metrics import mean_metrics
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import Transformer
from instructgpt.sharding import block_until_ready_on_cpu, put_batch
from instructgpt.steps.sft import make_sft_loss


def make_loss_evaluator(
    model: Transformer, source: Any, **how: Any
) -> Callable[[Any], float]:
    """Builds params -> mean negative log-likelihood in nats per target token.

    The arguments are those of `make_batch_losses`, which also says what is raised.
    """
    run = make_batch_losses(model, source, **how)
    return lambda params: mean_metrics([{"loss": loss} for loss in run(params)])["loss"]


def make_batch_losses(
    model: Transformer,
    source: Any,
    *,
    batch_size: int,
    mesh: Mesh,
    first_target: int = 1,
) -> Callable[[Any], list[tuple[float, float]]]:
    """Builds params -> (sum, weight) of each batch: nats, and number of targets.

    Args:
      model: The language model; dropout is off.
      source: Random access to TokenBatch rows.
      batch_size: Rows of a batch; rounded up to divide over the mesh.
      mesh: The mesh to run on.
      first_target: See `make_sft_loss`.

    Returns:
      A function that raises UserError if a batch's loss is not finite.
    """
    loss_fn = make_sft_loss(model, first_target=first_target, train=False)
    key = jax.random.key(0)  # unused: nothing is random without dropout
    run = jax.jit(lambda params, batch: loss_fn(params, batch, key)[0])

    def evaluate(params: Params) -> list[tuple[float, float]]:
        batches = mesh_batches(source, None, batch_size=batch_size, mesh=mesh)
        outputs = (run(params, put_batch(batch, mesh)) for batch in batches)
        losses = jax.device_get([block_until_ready_on_cpu(x) for x in outputs])
        check_finite([loss.sum for loss in losses], "held-out losses")
        return [(float(loss.sum), float(loss.weight)) for loss in losses]

    return evaluate


class HeldOutLoss:
    """Mean loss on held-out pretraining text: the alignment tax (paper §4.2)."""

    def __init__(self, windows: Callable[[ModelConfig], TokenWindows]):
        self._windows = windows
        self._losses: dict[ModelConfig, Callable[[Any], list[tuple[float, float]]]] = {}

    @classmethod
    def open(cls, setting: Setting) -> "HeldOutLoss | None":
        """Uses the documents of the split; returns None if there are none."""
        if setting.data.has("documents", setting.split):
            return cls(setting.windows)
        setting.log(
            f"evaluate: the data have no {setting.split} documents, so there is no "
            f"held-out pretraining loss; add documents.{setting.split}.jsonl to have it"
        )
        return None

    def check(self, config: ModelConfig) -> None:
        """Raises UserError if the text does not fit a model of this config."""
        self._windows(config)

    def run(
        self, model: LanguageModel, records: Sequence[Mapping[str, Any]]
    ) -> Results:
        """Returns the loss in nats per token; `records` are not used."""
        del records
        losses = [{"loss": loss} for loss in self._batches(model)]
        return Results({"pretrain_loss": mean_metrics(losses)["loss"]})

    def interval(self, model: LanguageModel) -> Value:
        """The loss with its interval over batches; of one batch, the loss alone."""
        sums, weights = np.array(self._batches(model)).T
        mean = sums.sum() / weights.sum()
        if len(sums) == 1:
            return float(mean)
        # The linearised mean of a ratio: batches differ little in their weights.
        residuals = (sums - mean * weights) * len(sums) / weights.sum()
        return mean_interval(mean + residuals)

    def _batches(self, model: LanguageModel) -> list[tuple[float, float]]:
        config = model.model.config
        if config not in self._losses:  # models of one config share a compiled program
            self._losses[config] = make_batch_losses(
                model.model, self._windows(config), batch_size=16, mesh=model.mesh
            )
        with jax.set_mesh(model.mesh), about(model.source):
            return self._losses[config](model.params)
