"""Pairwise accuracy of a reward model on ranked answers (paper §4.1, C.2)."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.data.loader import eval_batches
from instructgpt.data.rows import Indices
from instructgpt.evals.intervals import Interval, ratio_interval
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
    keep: Indices | None = None,
) -> Callable[[Any], dict[str, float]]:
    """Builds params -> {loss, accuracy} over a split's untied pairs.

    Accuracy is per pair, loss per prompt; ties of the labeler are dropped. `keep` has
    the numbers of the rankings to use, None for all.
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
            keep=keep,
        )
        sums = [run(params, put_batch(batch, mesh)) for batch in batches]
        return mean_metrics(jax.device_get(sums))

    return evaluate


def accuracy_interval(
    score: Callable[..., Any],
    source: Any,
    encode: Callable[[Any], Any],
    *,
    batch_size: int,
    mesh: Mesh,
    keep: Indices | None = None,
) -> Interval:
    """Accuracy over a split's untied pairs, with a 95 % interval over its prompts.

    Rankings of one prompt (of one `id`) by several labelers are not independent, and
    neither are the pairs of a ranking: the prompt is the sampled unit.

    Args:
      score: (prompt, prompt_valid, responses, response_valid) -> float32[B, K].
      source: Rankings.
      encode: Record -> `ComparisonBatch` row.
      batch_size: Rankings at a time.
      mesh: Where they are scored.
      keep: As for `make_accuracy_evaluator`.

    Raises:
      ValueError: no pair is untied.
    """
    numbers = range(len(source)) if keep is None else keep
    ids = iter([source[int(i)]["id"] for i in numbers])
    right: dict[str, float] = {}
    pairs: dict[str, float] = {}
    for batch in eval_batches(source, encode, batch_size=batch_size, keep=keep):
        scores = np.asarray(jax.device_get(score(*put_batch(batch, mesh)[:4])))
        counts = pair_counts(scores, batch.ranks, batch.present)
        # The last batch may end in blank rows, which have no id.
        for r, p, name in zip(*counts, ids, strict=False):
            right[name] = right.get(name, 0.0) + float(r)
            pairs[name] = pairs.get(name, 0.0) + float(p)
    return ratio_interval(list(right.values()), list(pairs.values()))


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
