"""How often a reward model orders a pair as the labelers did."""

import jax
import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.evals.preferences import (
    PairCounts,
    Rankings,
    accuracy_interval,
    make_ranking_evaluator,
    pair_counts,
)
from instructgpt.losses import pairwise_ranking
from instructgpt.models.scoring import response_scores
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


def test_rankings_of_one_prompt_are_one_unit():
    counts = PairCounts(list("aabb"), np.array([3, 1, 0, 2.0]), np.full(4, 3.0))
    merged = PairCounts(list("ab"), np.array([4, 2.0]), np.full(2, 6.0))
    assert accuracy_interval(counts) == accuracy_interval(merged)
    parts = [counts.of(name) for name in "ab"]
    assert accuracy_interval(PairCounts.joined(parts)) == accuracy_interval(merged)
    of_a = counts.of("a")
    assert (of_a.ids, of_a.right.tolist()) == (["a", "a"], [3, 1])
    assert accuracy_interval(of_a).value == pytest.approx(4 / 6)


class Source:
    """Eight records, each a row of a batch."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"id": f"id {index}", "row": index}


def rankings_of(batch, mesh, keep=None):
    return Rankings(
        Source(),
        lambda record: type(batch)(*(field[record["row"]] for field in batch)),
        batch_size=4,
        mesh=mesh,
        keep=keep,
    )


# On the last two of these meshes a batch of four has more rows than it was given.
@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 1), (3, 1, 1), (3, 2, 1)])
def test_counts_and_accuracy_are_those_of_plain_scores(mesh, rng):
    batch = tiny.comparison_batch(rng)
    params = tiny.params_of(MODEL)
    # Five of the eight, so that the last batch of four has three blank rows.
    keep = [0, 2, 3, 5, 7]
    rankings = rankings_of(batch, tiny.mesh_of(*mesh), keep)
    scores = response_scores(
        MODEL,
        params,
        (batch.prompt, batch.prompt_valid),
        (batch.responses, batch.response_valid),
    )
    right, pairs = pair_counts(np.asarray(scores), batch.ranks, batch.present)
    with jax.set_mesh(tiny.mesh_of(*mesh)):
        evaluate = make_ranking_evaluator(MODEL, tiny.mesh_of(*mesh))
        found = evaluate(params, rankings)
    assert found.counts.ids == [f"id {i}" for i in keep]
    assert found.counts.right.tolist() == right[keep].tolist()
    assert found.counts.pairs.tolist() == pairs[keep].tolist()
    assert found.accuracy == pytest.approx(right[keep].sum() / pairs[keep].sum())
    chosen = scores[np.array(keep)], batch.ranks[keep], batch.present[keep]
    assert found.loss == pytest.approx(float(pairwise_ranking(*chosen).loss.mean()))


def test_scores_that_are_not_finite_are_refused(rng):
    params = tiny.params_of(MODEL)
    params["bias"] = params["bias"] + np.inf
    mesh = tiny.mesh_of()
    with jax.set_mesh(mesh), pytest.raises(UserError, match="scores of ranked answers"):
        evaluate = make_ranking_evaluator(MODEL, mesh)
        evaluate(params, rankings_of(tiny.comparison_batch(rng), mesh))
