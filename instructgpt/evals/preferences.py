"""Pairwise accuracy of a reward model on ranked answers (paper §4.1, C.2)."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.batches import ComparisonBatch, PackedComparisonBatch
from instructgpt.data.packing import ComparisonPacker
from instructgpt.data.rows import Indices
from instructgpt.evals.batching import mesh_batches
from instructgpt.evals.intervals import Interval, ratio_interval
from instructgpt.finite import check_finite
from instructgpt.losses import pairwise_ranking
from instructgpt.metrics import mean_metrics
from instructgpt.models.scoring import comparison_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.sharding import local_ways, put_batch, replicated


class Rankings:
    """A split of rankings, encoded and packed, to be gone through again and again.

    Attributes:
      ids: of the rankings, in order.
    """

    def __init__(
        self,
        source: Any,
        encode: Callable[[Any], ComparisonBatch],
        *,
        batch_size: int,
        mesh: Mesh,
        keep: Indices | None = None,
    ):
        """Encodes the split.

        Args:
          source: Records of rankings.
          encode: Record -> `ComparisonBatch` row.
          batch_size: Rankings at a time; rounded up to what the mesh divides.
          mesh: Where they are scored.
          keep: Numbers of the rankings to use, None for all.
        """
        numbers = range(len(source)) if keep is None else keep
        self.ids = [source[int(i)]["id"] for i in numbers]
        self._mesh = mesh
        self._batches = mesh_batches(
            source, encode, batch_size=batch_size, mesh=mesh, keep=keep
        )
        self._pack = ComparisonPacker(self._batches, groups=local_ways(mesh))

    def __iter__(self) -> Iterator[PackedComparisonBatch]:
        """Its batches, on the devices."""
        for batch in self._batches:
            yield put_batch(self._pack(batch), self._mesh)


class PairCounts(NamedTuple):
    """Of each ranking: its id, its correctly ordered pairs and its untied pairs."""

    ids: list[str]
    right: np.ndarray  # float[N]; an exact tie of scores is half right
    pairs: np.ndarray  # float[N]

    @classmethod
    def joined(cls, parts: Iterable["PairCounts"]) -> "PairCounts":
        """Several splits as one."""
        ids, right, pairs = zip(*parts, strict=True)
        return cls(
            [*itertools.chain(*ids)], np.concatenate(right), np.concatenate(pairs)
        )

    def of(self, start: str) -> "PairCounts":
        """Those whose id starts so."""
        rows = [row for row, name in enumerate(self.ids) if name.startswith(start)]
        return PairCounts(
            [self.ids[row] for row in rows], self.right[rows], self.pairs[rows]
        )


class RankingResult(NamedTuple):
    """How well a reward model orders a split."""

    loss: float  # per prompt, ties dropped
    counts: PairCounts

    @property
    def accuracy(self) -> float:
        """Share of the untied pairs that are in the right order."""
        return float(self.counts.right.sum() / self.counts.pairs.sum())


def make_ranking_evaluator(
    model: ScalarModel, mesh: Mesh
) -> Callable[[Any, Rankings], RankingResult]:
    """Builds (params, rankings) -> RankingResult; ties of the labeler are dropped.

    The function raises UserError if a score is not finite.
    """

    # Whole on every process, so that each has all numbers.
    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def run(params: Any, batch: Any) -> tuple[Any, ...]:
        scores = comparison_scores(model, params, batch)
        ranks, present = (x.reshape(scores.shape) for x in (batch.ranks, batch.present))
        return scores, ranks, present, pairwise_ranking(scores, ranks, present).loss

    def evaluate(params: Any, rankings: Rankings) -> RankingResult:
        found = jax.device_get([run(params, batch) for batch in rankings])
        *columns, losses = zip(*found, strict=True)
        scores, ranks, present = (np.concatenate(column) for column in columns)
        check_finite(scores[present], "scores of ranked answers")
        right, pairs = pair_counts(scores, ranks, present)
        # The last batch may end in blank rows, which have no id.
        size = len(rankings.ids)
        return RankingResult(
            mean_metrics([{"loss": loss} for loss in losses])["loss"],
            PairCounts(rankings.ids, right[:size], pairs[:size]),
        )

    return evaluate


def accuracy_interval(counts: PairCounts) -> Interval:
    """Accuracy over untied pairs, with a 95 % interval over the prompts.

    Rankings of one prompt (of one id) by several labelers are not independent, and
    neither are the pairs of a ranking: the prompt is the sampled unit.

    Raises:
      ValueError: no pair is untied.
    """
    right: dict[str, float] = {}
    pairs: dict[str, float] = {}
    for name, r, p in zip(*counts, strict=True):
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
