"""How often a reward model orders a pair as the labelers did."""

import jax
import numpy as np
import pytest

from instructgpt.data.rows import Rows
from instructgpt.errors import UserError
from instructgpt.evals.agreement.pairs import agreement_counts
from instructgpt.evals.ranking_accuracy import (
    PairCounts,
    Rankings,
    ScoredRankings,
    accuracy_interval,
    count_untied,
    make_ranking_evaluator,
    pair_counts,
    shared_pair_counts,
)
from instructgpt.losses import pairwise_ranking
from instructgpt.models.comparisons import response_scores
from instructgpt.models.transformer import ScalarModel
from tests import tiny

MODEL = ScalarModel(tiny.config())


def test_pairs_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [0.5, 0.5, 9.0], [1.0, 2.0, 3.0]])
    ranks = np.array([[1, 2, 3], [1, 2, 0], [1, 1, 1]])
    present = np.array([[True] * 3, [True, True, False], [True] * 3])
    right, pairs = pair_counts(scores, ranks, present)
    # 3 > 1 and 3 > 2 are right, 1 > 2 is wrong; then a tie of scores; then no pair.
    assert (right.tolist(), pairs.tolist()) == ([2, 0.5, 0], [3, 1, 0])
    # In the first ranking 3 and 1 are scores of the same tokens, so 3 > 1 is no pair.
    wording = np.array([[0, 0, 2], [0, 1, 2], [0, 1, 2]])
    right, pairs = pair_counts(scores, ranks, present, wording)
    assert (right.tolist(), pairs.tolist()) == ([1, 0.5, 0], [2, 1, 0])


def test_rankings_of_one_prompt_are_one_unit():
    counts = PairCounts(list("aabb"), np.array([3, 1, 0, 2.0]), np.full(4, 3.0))
    merged = PairCounts(list("ab"), np.array([4, 2.0]), np.full(2, 6.0))
    assert accuracy_interval(counts) == accuracy_interval(merged)
    parts = [counts.of(name) for name in "ab"]
    assert accuracy_interval(PairCounts.joined(parts)) == accuracy_interval(merged)
    of_a = counts.of("a")
    assert (of_a.ids, of_a.right.tolist()) == (["a", "a"], [3, 1])
    assert accuracy_interval(of_a).value == pytest.approx(4 / 6)


def scored_rankings(ids, scores, ranks):
    ranks = np.array(ranks)
    return ScoredRankings(list(ids), np.array(scores, float), ranks, ranks > 0)


def test_pairs_that_two_labelers_share_by_hand():
    # Answers A, B and C; the second labeler of prompt x ties B and C, the first none,
    # so they share A-B (both prefer A) and A-C (they disagree). The model prefers A to
    # B, which is right twice, and C to A, which is right for one of the two.
    found = shared_pair_counts(
        scored_rankings(
            "xxy", [[2, 1, 3], [2, 1, 3], [1, 2, 3]], [[2, 3, 1], [1, 2, 2], [1, 2, 3]]
        )
    )
    assert found.model.ids == found.labelers.ids == ["x", "y"]
    # A labeler who ranks alone shares no pair.
    assert found.model.pairs.tolist() == found.labelers.pairs.tolist() == [2, 0]
    assert found.model.right.tolist() == [1.5, 0]
    assert found.labelers.right.tolist() == [1, 0]
    # All untied pairs are three of the first labeler's and two of the second's.
    right, pairs = pair_counts(
        np.array([[2.0, 1, 3], [2, 1, 3]]),
        np.array([[2, 3, 1], [1, 2, 2]]),
        np.ones((2, 3), bool),
    )
    assert (right.sum(), pairs.sum()) == (4, 5)


def test_equal_scores_and_empty_slots_of_shared_pairs():
    # The model ties A and B: half right against either labeler. The third slot is
    # empty, whatever its score.
    scored = scored_rankings("xx", [[1, 1, 7], [1, 1, 7]], [[1, 2, 0], [2, 1, 0]])
    found = shared_pair_counts(scored)
    assert (found.model.right.tolist(), found.model.pairs.tolist()) == ([0.5], [1])
    assert found.labelers.right.tolist() == [0]


def test_a_model_is_counted_on_the_pairs_of_the_labelers_agreement(rng):
    ranks = rng.integers(1, 4, size=(3, 4, 5))  # three prompts, four labelers each
    ids = [name for name in "xyz" for _ in range(4)]
    scores = np.repeat(rng.normal(size=(3, 1, 5)), 4, 1)
    found = shared_pair_counts(
        scored_rankings(ids, scores.reshape(12, 5), ranks.reshape(12, 5))
    )
    counts = [agreement_counts(rankings.tolist()) for rankings in ranks]
    agree, total = zip(*counts, strict=True)
    assert found.labelers.right.tolist() == list(agree)
    assert found.labelers.pairs.tolist() == found.model.pairs.tolist() == list(total)
    assert 0 < found.model.right.sum() < sum(total)


def test_two_labelers_as_the_model_are_as_right_as_they_agree():
    # A model that orders answers as one of two labelers does is always right against
    # that one, and against the other as often as the two agree: 1 of 3.
    ranks = [[1, 2, 3], [2, 3, 1]]
    scored = scored_rankings("xx", [[3, 2, 1]] * 2, ranks)
    found = shared_pair_counts(scored)
    assert found.labelers.right / found.labelers.pairs == pytest.approx(1 / 3)
    assert found.model.right / found.model.pairs == pytest.approx((1 + 1 / 3) / 2)


class Source:
    """Eight records, each a row of a batch."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"id": f"id {index}", "row": index}


def rankings_of(batch, mesh, keep=None):
    def encode(record):
        return type(batch)(*(field[record["row"]] for field in batch))

    return Rankings(Rows(Source(), encode, keep), batch_size=4, mesh=mesh)


# On the last two of these meshes a batch of four has more rows than it was given.
@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 1), (3, 1, 1), (3, 2, 1)])
def test_counts_and_accuracy_are_those_of_plain_scores(mesh, rng):
    batch = tiny.comparison_batch(rng)
    params = tiny.params_of(MODEL)
    # Five of the eight, so that the last batch of four has three blank rows.
    keep = [0, 2, 4, 5, 7]
    rankings = rankings_of(batch, tiny.mesh_of(*mesh), keep)
    scores = response_scores(
        MODEL,
        params,
        (batch.prompt, batch.prompt_valid),
        (batch.responses, batch.response_valid),
    )
    right, pairs = pair_counts(np.asarray(scores), *batch.labels)
    with jax.set_mesh(tiny.mesh_of(*mesh)):
        evaluate = make_ranking_evaluator(MODEL, tiny.mesh_of(*mesh))
        found = evaluate(params, rankings)
    assert found.counts.ids == [f"id {i}" for i in keep]
    assert found.counts.right.tolist() == right[keep].tolist()
    assert found.counts.pairs.tolist() == pairs[keep].tolist()
    assert found.accuracy == pytest.approx(right[keep].sum() / pairs[keep].sum())
    assert found.scored.ids == found.counts.ids
    assert found.scored.ranks.tolist() == batch.ranks[keep].tolist()
    assert found.scored.present.tolist() == batch.present[keep].tolist()
    np.testing.assert_allclose(
        found.scored.scores[batch.present[keep]],
        np.asarray(scores)[keep][batch.present[keep]],
        atol=1e-4,
    )
    labels = {name: x[keep] for name, x in batch.labels._asdict().items()}
    expected = pairwise_ranking(scores[np.array(keep)], **labels).loss.mean()
    assert found.loss == pytest.approx(float(expected))
    assert count_untied(rankings.rows) == pairs[keep].sum()


def test_scores_that_are_not_finite_are_refused(rng):
    params = tiny.params_of(MODEL)
    params["bias"] = params["bias"] + np.inf
    mesh = tiny.mesh_of()
    with jax.set_mesh(mesh), pytest.raises(UserError, match="scores of ranked answers"):
        evaluate = make_ranking_evaluator(MODEL, mesh)
        evaluate(params, rankings_of(tiny.comparison_batch(rng), mesh))
