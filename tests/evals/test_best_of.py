"""The estimator of best-of-n, against all subsets and against sampled maxima."""

import itertools
import math

import numpy as np
import pytest

from instructgpt.evals.best_of import (
    best_of_rows,
    best_of_table,
    expected_best,
    kl_of_best,
    sizes_up_to,
)


def over_all_subsets(scores, values, n):
    """The mean value of the best of each subset, and of the tied ones in it."""
    out = []
    for score, value in zip(scores, values, strict=True):
        found = []
        for subset in itertools.combinations(range(len(score)), n):
            best = max(score[i] for i in subset)
            found.append(np.mean([value[i] for i in subset if score[i] == best]))
        out.append(np.mean(found))
    return out


@pytest.mark.parametrize("n", range(1, 8))
def test_it_is_the_mean_over_all_subsets(rng, n):
    scores, values = rng.normal(size=(2, 3, 7))
    scores[1] = rng.integers(0, 3, 7)  # several answers have the same score
    scores[2] = 1.0
    found = expected_best(scores, values, n=n)
    np.testing.assert_allclose(found, over_all_subsets(scores, values, n))
    own = expected_best(scores, scores, n=n)
    np.testing.assert_allclose(own, over_all_subsets(scores, scores, n))


def test_its_ends_are_the_mean_and_the_best():
    scores = np.array([[3.0, 1.0, 2.0]])
    values = np.array([[10.0, 20.0, 60.0]])
    assert expected_best(scores, values, n=1) == [pytest.approx(30)]
    assert expected_best(scores, values, n=3) == [10]
    # Two of the three pairs hold the best answer, and one the second and the third.
    assert expected_best(scores, values, n=2) == [pytest.approx((10 + 10 + 60) / 3)]
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"best of {n} answers, and there are 3"):
            expected_best(scores, values, n=n)


def test_the_kl_is_that_of_the_best_of_n():
    """The best of n uniform draws has the density n u^(n - 1) on (0, 1)."""
    assert kl_of_best(1) == 0
    for n in (2, 5, 64):
        u = (np.arange(200_000) + 0.5) / 200_000
        log_density = math.log(n) + (n - 1) * np.log(u)
        mean = np.mean(np.exp(log_density) * log_density)
        assert kl_of_best(n) == pytest.approx(mean, abs=1e-3)
    assert kl_of_best(64) == pytest.approx(math.log(64) - 63 / 64)


def test_rows_hold_each_size_with_intervals(rng):
    assert sizes_up_to(64) == [1, 2, 4, 8, 16, 32, 64]
    assert sizes_up_to(6) == [1, 2, 4, 6] and sizes_up_to(1) == [1]
    scores = rng.normal(size=(40, 6))
    likert = np.clip(np.round(4 + scores), 1, 7)
    rows = best_of_rows({"rm_score": scores, "likert": likert})
    assert [row["n"] for row in rows] == [1, 2, 4, 6]
    means = [row["rm_score"][0] for row in rows]
    assert means == sorted(means) and means[0] == pytest.approx(scores.mean())
    assert rows[-1]["likert"][0] == pytest.approx(likert.max(1).mean())
    for row in rows:
        for name in ("rm_score", "likert"):
            value, low, high = row[name]
            assert low < value < high
    table = best_of_table({"best_of": rows, "points": {}})
    assert "Gold Likert" in table and f"{rows[-1]['likert'][0]:.2f} [" in table
    without = best_of_rows({"rm_score": scores})
    assert "Gold" not in best_of_table({"best_of": without, "points": {}})
