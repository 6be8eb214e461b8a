"""Losses against naive loops, and one case of each by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.losses import Weighted, masked_sum, pairwise_ranking


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def naive_ranking(scores, ranks, present, divisor, wording=None):
    """(sum of per-prompt losses, prompts that count, right pairs, margins, pairs)."""
    total, prompts, right, margin, pairs = 0.0, 0, 0.0, 0.0, 0
    words = np.arange(len(scores[0])) + 0 * ranks if wording is None else wording
    for score, rank, there, word in zip(scores, ranks, present, words, strict=True):
        slots = [k for k in range(len(score)) if there[k]]
        untied = [
            (w, v)
            for w in slots
            for v in slots
            if rank[w] < rank[v] and word[w] != word[v]
        ]
        if not untied:
            continue
        loss = 0.0
        for winner, loser in untied:
            gap = score[winner] - score[loser]
            loss -= math.log(sigmoid(gap))
            right += 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0
            margin += gap
        k = len(slots)
        total += loss / (len(untied) if divisor == "untied" else k * (k - 1) / 2)
        prompts += 1
        pairs += len(untied)
    return total, prompts, right, margin, pairs


def ranking_case(rng):
    scores = rng.normal(size=(12, 5)).astype(np.float32)
    ranks = rng.integers(1, 4, (12, 5)).astype(np.int32)
    present = rng.random((12, 5)) < 0.7
    ranks[0], scores[1, 1] = 2, scores[1, 0]  # all tied; two equal scores
    present[:2] = True
    ranks[1] = (1, 2, 3, 1, 2)
    return scores, ranks, present


def test_masked_sums_where_the_mask_is_true():
    out = masked_sum(jnp.array([0.5, 2.0, 4.0]), jnp.array([True, False, True]))
    assert (float(out.sum), float(out.weight)) == (4.5, 2.0)


def test_masked_ignores_what_padding_holds():
    out = masked_sum(jnp.array([0.5, np.nan, np.inf]), jnp.array([True, False, False]))
    assert (float(out.sum), float(out.weight)) == (0.5, 1.0)


def test_mean_of_no_weight_is_zero():
    assert float(Weighted(jnp.float32(0.0), jnp.float32(0.0)).mean()) == 0.0
    assert float(Weighted(jnp.float32(3.0), jnp.float32(4.0)).mean()) == 0.75


def test_ranking_by_hand():
    out = pairwise_ranking(
        jnp.array([[2.0, 0.5, 1.0]]),
        ranks=jnp.array([[1, 2, 2]]),
        present=jnp.ones((1, 3), bool),
    )
    # The pair 0.5, 1.0 is tied; two remain, both won.
    expected = -(math.log(sigmoid(1.5)) + math.log(sigmoid(1.0))) / 2
    assert float(out.loss.sum) == pytest.approx(expected, rel=1e-6)
    assert float(out.loss.weight) == 1.0
    assert float(out.accuracy.mean()) == 1.0
    assert float(out.margin.mean()) == pytest.approx(1.25)


@pytest.mark.parametrize("divisor", ["untied", "all"])
@pytest.mark.parametrize("repeated", [False, True])
def test_ranking_against_a_loop(rng, divisor, repeated):
    case = ranking_case(rng)
    wording = rng.integers(0, 3, (12, 5)).astype(np.int32) if repeated else None
    total, prompts, right, margin, pairs = naive_ranking(*case, divisor, wording)
    scores, ranks, present = map(jnp.asarray, case)
    out = pairwise_ranking(
        scores, ranks=ranks, present=present, wording=wording, divisor=divisor
    )
    np.testing.assert_allclose(out.loss.sum, total, rtol=1e-5)
    np.testing.assert_allclose(out.accuracy.sum, right, rtol=1e-6)
    np.testing.assert_allclose(out.margin.sum, margin, rtol=1e-4, atol=1e-5)
    assert float(out.loss.weight) == prompts < 12
    assert float(out.accuracy.weight) == float(out.margin.weight) == pairs


def test_divisors_differ_only_where_there_are_ties():
    scores, present = jnp.array([[2.0, 0.5, 1.0]]), jnp.ones((1, 3), bool)

    def losses(ranks):
        return [
            float(
                pairwise_ranking(
                    scores, ranks=jnp.array([ranks]), present=present, divisor=divisor
                ).loss.sum
            )
            for divisor in ("untied", "all")
        ]

    untied, all_pairs = losses([1, 3, 2])
    assert untied == pytest.approx(all_pairs)
    untied, all_pairs = losses([1, 2, 2])  # two of three pairs are left
    assert all_pairs == pytest.approx(untied * 2 / 3)


def test_loss_is_a_mean_over_prompts_not_over_pairs():
    scores = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]])
    ranks = jnp.array([[1, 2, 2, 2], [1, 2, 9, 9]])
    present = jnp.array([[True] * 4, [True, True, False, False]])
    out = pairwise_ranking(scores, ranks=ranks, present=present)
    per_prompt = [-math.log(sigmoid(1.0)), -math.log(sigmoid(-3.0))]
    assert float(out.loss.mean()) == pytest.approx(sum(per_prompt) / 2, rel=1e-6)


def test_prompt_with_only_ties_weighs_nothing():
    scores = jnp.array([[2.0, -1.0], [0.25, 0.75]])
    ranks, present = jnp.array([[1, 1], [2, 1]]), jnp.ones((2, 2), bool)
    out = pairwise_ranking(scores, ranks=ranks, present=present)
    alone = pairwise_ranking(scores[1:], ranks=ranks[1:], present=present[1:])
    assert float(out.loss.mean()) == float(alone.loss.mean())
    grads = jax.grad(
        lambda s: pairwise_ranking(s, ranks=ranks, present=present).loss.sum
    )(scores)
    assert np.all(grads[0] == 0) and np.all(grads[1] != 0)


def test_batch_of_only_ties_has_loss_zero_and_weight_zero():
    out = pairwise_ranking(
        jnp.array([[2.0, -1.0]]),
        ranks=jnp.array([[1, 1]]),
        present=jnp.ones((1, 2), bool),
    )
    assert (float(out.loss.sum), float(out.loss.weight)) == (0.0, 0.0)
    assert float(out.loss.mean()) == 0.0


def test_what_an_empty_slot_holds_changes_nothing(rng):
    scores, ranks, present = ranking_case(rng)
    garbage = np.where(present, scores, 50.0).astype(np.float32)
    other_ranks = np.where(present, ranks, -3).astype(np.int32)

    def loss_and_grad(scores, ranks):
        return jax.value_and_grad(
            lambda s: (
                pairwise_ranking(s, ranks=ranks, present=jnp.asarray(present)).loss.sum
            )
        )(jnp.asarray(scores))

    loss, grads = loss_and_grad(scores, ranks)
    other, other_grads = loss_and_grad(garbage, other_ranks)
    assert float(loss) == float(other)
    np.testing.assert_array_equal(grads, other_grads)
    assert np.all(np.asarray(grads)[~present] == 0)


def test_a_constant_model_is_half_right():
    out = pairwise_ranking(
        jnp.full((1, 4), 0.3),
        ranks=jnp.array([[1, 2, 3, 4]]),
        present=jnp.ones((1, 4), bool),
    )
    assert float(out.accuracy.mean()) == 0.5
    assert float(out.loss.mean()) == pytest.approx(math.log(2))
