"""Pairwise accuracy of a reward model on ranked answers (paper §4.1, C.2)."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.data.loader import eval_batches
from instructgpt.losses import pairwise_ranking
from instructgpt.metrics import mean_metrics
from instructgpt.models.scoring import response_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.sharding import put_batch


def make_accuracy_evaluator(
    model: ScalarModel,
    source: Any,
    encode: Callable[[Any], Any],
    *,
    batch_size: int,
    mesh: Mesh,
) -> Callable[[Any], dict[str, float]]:
    """Builds params -> {loss, accuracy} over a split's untied pairs.

    Accuracy is per pair, loss per prompt; ties of the labeler are dropped.
    """

    @jax.jit
    def run(params: Any, batch: Any) -> dict[str, Any]:
        scores = response_scores(
            model,
            params,
            (batch.prompt, batch.prompt_valid),
            (batch.responses, batch.response_valid),
        )
        out = pairwise_ranking(scores, batch.ranks, batch.present)
        return {"loss": out.loss, "accuracy": out.accuracy}

    def evaluate(params: Any) -> dict[str, float]:
        batches = eval_batches(
            source,
            encode,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        sums = [run(params, put_batch(batch, mesh)) for batch in batches]
        return mean_metrics(jax.device_get(sums))

    return evaluate


def pair_counts(
    scores: np.ndarray, ranks: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correctly ordered and untied pairs of each ranking, on the host.

    Args:
      scores: float[N, K].
      ranks: int[N, K], 1 is best.
      present: bool[N, K].

    Returns:
      (right float[N], pairs float[N]); an exact tie of scores is half right.
    """
    both = present[:, :, None] & present[:, None, :]
    better = both & (ranks[:, :, None] < ranks[:, None, :])
    margins = scores[:, :, None] - scores[:, None, :]
    right = (np.sign(margins) + 1) / 2
    return (right * better).sum((1, 2)), better.sum((1, 2)).astype(float)
