"""Pairwise accuracy of a reward model on ranked answers (paper §4.1, C.2)."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.batches import ComparisonBatch, PackedComparisonBatch
from instructgpt.batching import mesh_batches
from instructgpt.data.packing import ComparisonPacker
from instructgpt.data.rows import Indices, Rows, Source
from instructgpt.data.transforms import encode_comparison
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
from instructgpt.world import agreement_counts


class Rankings:
    """A split of rankings, encoded and packed, to be gone through again and again.

    Attributes:
      ids: of the rankings, in order.
      rows: the rankings encoded, in order.
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
        self.rows = Rows(source, encode, keep)
        self._batches = mesh_batches(self.rows, None, batch_size=batch_size, mesh=mesh)
        self._pack = ComparisonPacker(self._batches, groups=local_ways(mesh))

    def __iter__(self) -> Iterator[PackedComparisonBatch]:
        """Its batches, on the devices."""
        for batch in self._batches:
            yield put_batch(self._pack(batch), self._mesh)


def count_untied(rows: Source) -> int:
    """Pairs of all encoded rankings in which one response is the better."""
    labels = ([x[None] for x in rows[i].labels] for i in range(len(rows)))
    return sum(int(untied_pairs(*row).sum()) for row in labels)


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


class ScoredRankings(NamedTuple):
    """Rankings beside a reward model's scores of the K answers of each.

    Rankings of one id rank the same answers in the same order.
    """

    ids: list[str]
    scores: np.ndarray  # float[N, K]
    ranks: np.ndarray  # int[N, K], 1 is best
    present: np.ndarray  # bool[N, K]
    wording: np.ndarray | None = None  # int[N, K], see `untied_pairs`


class RankingResult(NamedTuple):
    """How well a reward model orders a split."""

    loss: float  # per prompt, ties dropped
    counts: PairCounts
    scored: ScoredRankings

    @property
    def accuracy(self) -> float:
        """Share of the untied pairs that are in the right order."""
        return float(self.counts.right.sum() / self.counts.pairs.sum())


def make_ranking_evaluator(
    model: ScalarModel, mesh: Mesh
) -> Callable[[Any, Rankings], RankingResult]:
    """Builds (params, rankings) -> RankingResult; ties of the labeler are dropped.

    The rankings must have an untied pair, see `count_untied`. The function raises
    UserError if a score is not finite.
    """

    # Whole on every process, so that each has all numbers.
    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def run(params: Any, batch: Any) -> tuple[Any, ...]:
        scores = comparison_scores(model, params, batch)
        labels = jax.tree.map(lambda x: x.reshape(scores.shape), batch.labels)
        return scores, *labels, pairwise_ranking(scores, **labels._asdict()).loss

    def evaluate(params: Any, rankings: Rankings) -> RankingResult:
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
    splits: Mapping[str, tuple[Any, Indices | None]],
    *,
    max_responses: int,
    batch_size: int,
    log: Callable[[str], None],
) -> dict[str, list[float]]:
    """Pairwise accuracy of a reward model beside the labelers' own agreement.

    Args:
      reward: The model.
      splits: Rankings by the name of who ranked, and the numbers of those to use.
      max_responses: K, slots for the answers of a prompt.
      batch_size: Rankings at a time.
      log: Told which of the splits has no pair.

    Returns:
      [rate, low, high] each: `all_pairs_NAME` over the untied pairs of every ranking,
      and over the pairs that two labelers left untied `shared_pairs_NAME` of the reward
      model and `agreement_NAME` of the labelers. A rate over no pairs is left out.
    """
    encode = functools.partial(
        encode_comparison,
        prompt_format=reward.text.prompt_format,
        max_prompt=reward.text.max_prompt,
        max_response=reward.text.max_response,
        max_responses=max_responses,
    )
    out: dict[str, list[float]] = {}
    with jax.set_mesh(reward.mesh):
        evaluate = make_ranking_evaluator(reward.model, reward.mesh)
        for name, (source, keep) in splits.items():
            rankings = Rankings(
                source, encode, batch_size=batch_size, mesh=reward.mesh, keep=keep
            )
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


class SharedPairCounts(NamedTuple):
    """A reward model and the labelers over the same pairs, a row for each prompt.

    What is counted are triples: two labelers of a prompt and two answers that neither
    of them ties. Over these the agreement of labelers is taken (paper §3.4).
    """

    model: PairCounts  # right is the mean of the model against either labeler
    labelers: PairCounts  # right where the two labelers agree


def shared_pair_counts(scored: ScoredRankings) -> SharedPairCounts:
    """Counts a reward model where two labelers can be compared with each other.

    A labeler is right or wrong about a pair as another labeler orders it, and so is
    the model here, once against each of the two. Over all untied pairs of a ranking it
    would also be counted on those that the other labeler ties, which are harder.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(scored.ids):
        rows.setdefault(name, []).append(row)
    # Which of each two answers is the better one: [N, K, K] of -1, 0 and 1.
    _, scores, ranks, present, wording = scored
    both = np.triu(present[:, :, None] & present[:, None, :], 1)
    if wording is not None:  # the same tokens are no pair
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


def agreement_interval(
    rankings: Sequence[Sequence[Sequence[int]]],
) -> Interval | None:
    """How often labelers agree on two answers that neither ties (paper §3.4).

    Args:
      rankings: [N][L][K], of each prompt the ranks of its K answers by each labeler.

    Returns:
      The rate with a 95 % interval over the prompts; None if there is no such pair, as
      when each prompt has a single labeler.
    """
    agree, total = zip(*map(agreement_counts, rankings), strict=True)
    return ratio_interval(agree, total) if sum(total) else None


def pair_counts(
    scores: np.ndarray,
    ranks: np.ndarray,
    present: np.ndarray,
    wording: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Correctly ordered and untied pairs of each ranking, on the host.

    Args:
      scores: float[N, K].
      ranks: int[N, K], 1 is best.
      present: bool[N, K].
      wording: int[N, K], see `untied_pairs`.

    Returns:
      (right float[N], pairs float[N]); an exact tie of scores is half right.
    """
    better = untied_pairs(ranks, present, wording)
    margins = scores[:, :, None] - scores[:, None, :]
    right = (np.sign(margins) + 1) / 2
    return (right * better).sum((1, 2)), better.sum((1, 2)).astype(float)
