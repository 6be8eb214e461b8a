"""Pairwise accuracy of a reward model on ranked answers (paper §4.1, C.2)."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.arrays import Params
from instructgpt.batches import PackedComparisonBatch
from instructgpt.batching import mesh_batches
from instructgpt.data.packing import ComparisonPacker
from instructgpt.data.rows import Rows, Source
from instructgpt.errors import about
from instructgpt.evals.intervals import Interval, ratio_interval
from instructgpt.finite import check_finite
from instructgpt.inference import RewardModel
from instructgpt.losses import pairwise_ranking, untied_pairs
from instructgpt.metrics import mean_metrics
from instructgpt.models.comparisons import comparison_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.sharding import (
    block_until_ready_on_cpu,
    local_ways,
    put_batch,
    replicated,
)


class Rankings:
    """A split of rankings, packed once for repeated evaluation.

    Attributes:
      ids: Ids of the rankings, in order.
      rows: The encoded rankings, in order.
    """

    def __init__(self, rows: Rows, *, batch_size: int, mesh: Mesh):
        """Packs the split.

        Args:
          rows: `ComparisonBatch` rows, of records with ids.
          batch_size: Rankings in a batch; rounded up to divide over the mesh.
          mesh: The mesh on which they are scored.
        """
        self.ids = [rows.record(row)["id"] for row in range(len(rows))]
        self._mesh = mesh
        self.rows = rows
        self._batches = mesh_batches(rows, None, batch_size=batch_size, mesh=mesh)
        self._pack = ComparisonPacker(self._batches, groups=local_ways(mesh))

    def __iter__(self) -> Iterator[PackedComparisonBatch]:
        """Yields the batches, on the devices."""
        for batch in self._batches:
            yield put_batch(self._pack(batch), self._mesh)


def count_untied(rows: Source) -> int:
    """Number of pairs, in all encoded rankings, in which one response is better."""
    labels = ([x[None] for x in rows[i].labels] for i in range(len(rows)))
    return sum(int(untied_pairs(*row).sum()) for row in labels)


class PairCounts(NamedTuple):
    """Numbers of correctly ordered and of untied pairs of each ranking, with its id."""

    ids: list[str]
    right: np.ndarray  # float[N], correctly ordered pairs; equal scores are half right
    pairs: np.ndarray  # float[N], untied pairs

    @classmethod
    def joined(cls, parts: Iterable["PairCounts"]) -> "PairCounts":
        """Joins the counts of several splits."""
        ids, right, pairs = zip(*parts, strict=True)
        return cls(
            [*itertools.chain(*ids)], np.concatenate(right), np.concatenate(pairs)
        )

    def of(self, start: str) -> "PairCounts":
        """The counts of rankings whose id begins with `start`."""
        rows = [row for row, name in enumerate(self.ids) if name.startswith(start)]
        return PairCounts(
            [self.ids[row] for row in rows], self.right[rows], self.pairs[rows]
        )


class ScoredRankings(NamedTuple):
    """Rankings with a reward model's scores of their K answers.

    Rankings with the same id have the same answers in the same order.
    """

    ids: list[str]
    scores: np.ndarray  # float[N, K]
    ranks: np.ndarray  # int[N, K], 1 is best
    present: np.ndarray  # bool[N, K]
    wording: np.ndarray | None = None  # int[N, K], see `untied_pairs`


class RankingResult(NamedTuple):
    """A reward model's loss and pair counts on a split."""

    loss: float  # mean over prompts, without ties
    counts: PairCounts
    scored: ScoredRankings

    @property
    def accuracy(self) -> float:
        """Share of untied pairs in the right order."""
        return float(self.counts.right.sum() / self.counts.pairs.sum())


def make_ranking_evaluator(
    model: ScalarModel, mesh: Mesh
) -> Callable[[Any, Rankings], RankingResult]:
    """Builds (params, rankings) -> RankingResult; ties of the labeler are dropped.

    The rankings must have an untied pair, see `count_untied`. The function raises
    UserError if a score is not finite.
    """

    # Results are replicated, so that every process has all numbers.
    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def run(params: Params, batch: Any) -> tuple[Any, ...]:
        scores = comparison_scores(model, params, batch)
        labels = jax.tree.map(lambda x: x.reshape(scores.shape), batch.labels)
        return scores, *labels, pairwise_ranking(scores, **labels._asdict()).loss

    def evaluate(params: Params, rankings: Rankings) -> RankingResult:
        outputs = (run(params, batch) for batch in rankings)
        found = jax.device_get([block_until_ready_on_cpu(x) for x in outputs])
        *arrays, losses = zip(*found, strict=True)
        # The last batch may end in blank rows, which have no id.
        size = len(rankings.ids)
        pairs_of = [np.concatenate(a)[:size] for a in arrays]
        scores, _, present, _ = pairs_of
        check_finite(scores[present], "scores of ranked answers")
        return RankingResult(
            mean_metrics([{"loss": loss} for loss in losses])["loss"],
            PairCounts(rankings.ids, *pair_counts(*pairs_of)),
            ScoredRankings(rankings.ids, *pairs_of),
        )

    return evaluate


def reward_rates(
    reward: RewardModel,
    splits: Mapping[str, Rows],
    *,
    batch_size: int,
    log: Callable[[str], None],
) -> dict[str, list[float]]:
    """Pairwise accuracy of a reward model, and the labelers' agreement.

    Args:
      reward: The reward model.
      splits: Labelers' name -> `ComparisonBatch` rows of rankings.
      batch_size: Rankings in a batch.
      log: Called with a message for each split that has no pair.

    Returns:
      A dict of [rate, low, high]: `all_pairs_NAME`, the reward model over untied pairs
      of every ranking; `shared_pairs_NAME`, the reward model over pairs that two
      labelers left untied; `agreement_NAME`, the labelers over these. Rates of no pairs
      are left out.
    """
    out: dict[str, list[float]] = {}
    with jax.set_mesh(reward.mesh):
        evaluate = make_ranking_evaluator(reward.model, reward.mesh)
        for name, rows in splits.items():
            rankings = Rankings(rows, batch_size=batch_size, mesh=reward.mesh)
            if not count_untied(rankings.rows):
                log(f"evaluate: no ranking of the {name} labelers has an untied pair")
                continue
            with about(reward.source):
                found = evaluate(reward.params, rankings)
            shared = shared_pair_counts(found.scored)
            for key, counts in (
                ("all_pairs", found.counts),
                ("shared_pairs", shared.model),
                ("agreement", shared.labelers),
            ):
                if counts.pairs.sum():
                    out[f"{key}_{name}"] = list(accuracy_interval(counts))
    return out


def accuracy_interval(counts: PairCounts) -> Interval:
    """Accuracy over untied pairs, with a 95 % interval over the prompts.

    The prompt is the sampled unit, because rankings of one prompt (with one id) by
    several labelers are not independent, and neither are the pairs of a ranking.

    Raises:
      ValueError: no pair is untied.
    """
    right: dict[str, float] = {}
    pairs: dict[str, float] = {}
    for name, r, p in zip(*counts, strict=True):
        right[name] = right.get(name, 0.0) + float(r)
        pairs[name] = pairs.get(name, 0.0) + float(p)
    return ratio_interval(list(right.values()), list(pairs.values()))


class SharedPairCounts(NamedTuple):
    """Counts of a reward model and of labelers over the same pairs, by prompt.

    The counted items are triples: two labelers of a prompt, and two answers that
    neither ties. The labelers' agreement is measured over the same triples (paper
    §3.4).
    """

    model: PairCounts  # right is the mean over the two labelers
    labelers: PairCounts  # right where the two labelers agree


def shared_pair_counts(scored: ScoredRankings) -> SharedPairCounts:
    """Counts a reward model's correct pairs where two labelers can be compared.

    A labeler's order of a pair is compared with another labeler's, and the model's
    order with that of each of the two. Counting the model over all untied pairs of a
    ranking would include pairs that the other labeler ties, which are harder.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(scored.ids):
        rows.setdefault(name, []).append(row)
    # The better one of each two answers: [N, K, K] of -1, 0 and 1.
    _, scores, ranks, present, wording = scored
    both = np.triu(present[:, :, None] & present[:, None, :], 1)
    if wording is not None:  # answers with the same tokens are not a pair
        both &= wording[:, :, None] != wording[:, None, :]
    preferred = both * np.sign(ranks[:, None, :] - ranks[:, :, None])
    ordered = both * np.sign(scores[:, :, None] - scores[:, None, :])
    counts = np.zeros((len(rows), 3))
    for number, members in enumerate(rows.values()):
        for one, other in itertools.combinations(members, 2):
            first, second = preferred[one], preferred[other]
            untied = (first != 0) & (second != 0)
            against = ordered[one] * first + ordered[other] * second
            counts[number] += (
                ((2 + against) / 4)[untied].sum(),
                (first == second)[untied].sum(),
                untied.sum(),
            )
    model, agree, pairs = counts.T
    ids = list(rows)
    return SharedPairCounts(
        PairCounts(ids, model, pairs), PairCounts(ids, agree, pairs)
    )


def pair_counts(
    scores: np.ndarray,
    ranks: np.ndarray,
    present: np.ndarray,
    wording: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of correctly ordered and of untied pairs of each ranking, on the host.

    Args:
      scores: float[N, K].
      ranks: int[N, K], 1 is best.
      present: bool[N, K].
      wording: int[N, K], see `untied_pairs`.

    Returns:
      (right float[N], pairs float[N]); a pair of equal scores is half right.
    """
    better = untied_pairs(ranks, present, wording)
    margins = scores[:, :, None] - scores[:, None, :]
    right = (np.sign(margins) + 1) / 2
    return (right * better).sum((1, 2)), better.sum((1, 2)).astype(float)
