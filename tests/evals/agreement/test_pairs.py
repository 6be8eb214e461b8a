"""Agreement counted by hand, and against scipy and krippendorff."""

import itertools

import krippendorff
import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata

from instructgpt.errors import UserError
from instructgpt.evals.agreement import alpha as alphas
from instructgpt.evals.agreement.alpha import (
    alpha_of,
    coincidences,
    need_krippendorff,
    ordinal_alpha,
    places,
)
from instructgpt.evals.agreement.pairs import (
    agreement,
    agreement_interval,
    bootstrap_rates,
    compare,
    kendall_tau,
    rates,
    signs,
)
from instructgpt.evals.agreement.resampling import (
    bootstrap_interval,
    bootstrap_ratio,
    draw_prompts,
)


def test_two_rankings_by_hand():
    # Pairs of the answers 0 to 3, in order: 01 02 03 12 13 23.
    one, other = signs([1, 2, 2, 3]), signs([2, 1, 3, 3])
    assert one.tolist() == [1, 1, 1, 0, 1, 1]
    assert other.tolist() == [-1, 1, 1, 1, 1, 0]
    # Neither ties 01 02 03 13, and they differ on 01 alone. Of all six pairs they say
    # the same of 02 03 13; tau is (3 - 1) / sqrt(5 * 5).
    assert compare(one, other).tolist() == [3, 4, 3, 6, 2 / 5, 1]


def test_a_pair_that_one_does_not_compare_is_left_out():
    one = np.array([1.0, np.nan, 0.0])
    assert compare(one, np.array([1.0, 1.0, 0.0])).tolist() == [1, 1, 2, 2, 1, 1]


def test_a_ranking_of_ties_alone_has_no_tau():
    assert compare(signs([1, 1, 1]), signs([1, 2, 3])).tolist() == [0, 0, 0, 3, 0, 0]


def test_tau_is_that_of_scipy(rng):
    for size in range(2, 10):
        one, other = rng.integers(1, 5, (2, size))
        if len(set(one)) > 1 < len(set(other)):
            expected = kendalltau(one, other).statistic
            assert kendall_tau(signs(one), signs(other)) == pytest.approx(expected)


def test_rates_pool_the_pairs_of_all_prompts():
    # Two prompts: 3 of 4 and 0 of 2 alike without ties, 3 of 6 and 1 of 3 with.
    table = np.array([[3, 4, 3, 6, 0.4, 1], [0, 2, 1, 3, -0.8, 2]], float)
    found = rates(table)
    assert found["without_ties"].value == pytest.approx(3 / 6)
    assert found["with_ties"].value == pytest.approx(4 / 9)
    assert found["tau"].value == pytest.approx((0.4 - 0.8) / 3)
    again = bootstrap_rates(table)
    assert again["without_ties"].value == found["without_ties"].value
    assert rates(np.array([[0, 0, 1, 3, 0, 0.0]])).keys() == {"with_ties"}
    assert rates(np.zeros((0, 6))) == {}


def test_agreement_by_hand():
    assert agreement([[[1, 2], [1, 2]]]) == 1.0
    assert agreement([[[1, 2], [2, 1]]]) == 0.0
    assert agreement([[[1, 2, 2], [1, 1, 2]]]) == 1.0  # only one pair has no tie
    assert np.isnan(agreement([[[1, 1], [1, 2]]]))


def test_agreement_is_a_rate_over_prompts_or_none():
    # They agree on 1 of 3 pairs of the first prompt and on both untied of the second.
    rankings = [[[1, 2, 3], [2, 3, 1]], [[1, 2, 2], [1, 3, 2]]]
    found = agreement_interval(rankings)
    assert found.value == pytest.approx(3 / 5)
    assert 0 <= found.low < found.value < found.high <= 1
    assert agreement_interval([[[1, 2, 3]], [[2, 1, 3]]]) is None
    assert agreement_interval([[[1, 1, 2], [1, 2, 2]], [[1, 1, 1]] * 3]).value == 1
    assert agreement_interval([[[1, 1, 1], [1, 2, 3]]]) is None


def test_places_share_a_scale():
    assert places([1, 2, 3]).tolist() == [0, 0.5, 1]
    assert places([2, 1, 2, 3]).tolist() == [
        0.5,
        0,
        0.5,
        1,
    ]  # mean ranks 2.5, 1, 2.5, 4
    assert places([1, 1, 3]).tolist() == places([1, 1, 2]).tolist() == [0.25, 0.25, 1]


def test_places_are_the_mean_ranks_of_scipy(rng):
    ranks = rng.integers(1, 5, 9)
    assert places(ranks) == pytest.approx((rankdata(ranks) - 1) / 8)


def test_alpha_by_hand():
    # Two labelers give two units the values (1, 1) and (1, 2). Three values are 1 and
    # one is 2; their middles are 1.5 and 3.5, their distance 4. The coincidences are
    # 1-1: 2, 1-2 and 2-1: 1 each. Observed: 2 * 4 = 8. Expected: 2 * 3 * 1 * 4 / 3 = 8.
    found = ordinal_alpha({"a": [[1, 1]], "b": [[1, 2]]})
    assert found.value == pytest.approx(0.0)
    # With (1, 1) and (2, 2): observed 0.
    assert ordinal_alpha({"a": [[1, 1]], "b": [[2, 2]]}).value == 1
    # Units with one value do not count.
    with_more = {"a": [[1, 1], [7]], "b": [[1, 2], []], "c": [[3]]}
    assert ordinal_alpha(with_more) == found


def test_alpha_of_published_data():
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), part C: ordinal
    # alpha is 0.815.
    gap = np.nan
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
            [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
        ]
    )
    units = {str(i): [unit[~np.isnan(unit)].tolist()] for i, unit in enumerate(data.T)}
    assert ordinal_alpha(units).value == pytest.approx(0.815, abs=5e-4)


def test_alpha_from_sums_is_that_of_krippendorff(rng):
    """The draws of the bootstrap come from sums of coincidences."""
    data = rng.integers(1, 6, (4, 30)).astype(float)
    data[rng.random(data.shape) < 0.3] = np.nan
    counts = np.stack([(data == value).sum(0) for value in range(1, 6)], axis=1)
    counts = counts[counts.sum(1) > 1]
    expected = krippendorff.alpha(data, level_of_measurement="ordinal")
    assert alpha_of(coincidences(counts)[None])[0] == pytest.approx(expected)
    assert np.isnan(alpha_of(np.array([[[4.0, 0], [0, 0]]])))[0]


def test_alpha_of_random_rankings_is_about_nothing(rng):
    """Places within a prompt are dependent, and alpha is still 0 by chance."""
    units = {}
    for prompt in range(400):
        given = [places(rng.permutation(5)) for _ in range(3)]
        units[str(prompt)] = np.array(given).T.tolist()
    found = ordinal_alpha(units)
    assert abs(found.value) < 0.04 and found.low < 0 < found.high


def test_alpha_may_be_undefined(monkeypatch):
    assert ordinal_alpha({"a": [[1], [2]]}) is None
    assert ordinal_alpha({"a": [[1, 1]], "b": [[1, 1]]}) is None
    assert ordinal_alpha({}) is None
    need_krippendorff()
    monkeypatch.setattr(alphas, "has_krippendorff", lambda: False)
    assert ordinal_alpha({"a": [[1, 1]], "b": [[1, 2]]}) is None
    with pytest.raises(UserError, match=r"needs the package krippendorff; pip install"):
        need_krippendorff()


def test_draws_are_of_prompts():
    drawn = draw_prompts(7, draws=50)
    assert drawn.shape == (50, 7) and (drawn.sum(1) == 7).all()
    assert (drawn == draw_prompts(7, draws=50)).all()


def test_bootstrap_of_a_mean_by_hand():
    """With equal weights it is close to Student's t interval of a mean."""
    values = np.linspace(-0.5, 0.7, 25)
    found = bootstrap_ratio(values, np.ones(25))
    half = 2.064 * values.std(ddof=1) / 5
    assert found.value == pytest.approx(0.1)
    assert found.high - 0.1 == pytest.approx(half, rel=0.1)
    assert 0.1 - found.low == pytest.approx(half, rel=0.1)
    # Prompts of no weight do not count.
    assert bootstrap_ratio(np.append(values, 0), np.append(np.ones(25), 0)) == found
    with pytest.raises(ValueError, match="no weight"):
        bootstrap_ratio(np.zeros(2), np.zeros(2))


def test_one_prompt_tells_nothing_of_others():
    assert bootstrap_ratio(np.array([0.3]), np.array([1.0])) == (0.3, -1, 1)
    assert bootstrap_interval(0.3, np.array([np.nan]), prompts=5) == (0.3, -1, 1)


def rankings(rng, prompts):
    """Ranks [prompts, 3, 5] of five answers by three labelers, with ties."""
    values = rng.standard_normal((prompts, 1, 5))
    felt = (values + 0.9 * rng.standard_normal((prompts, 3, 5))).round()
    return 1 + (felt[..., None, :] > felt[..., :, None]).sum(-1)


def measured(ranks):
    """All four measures of agreement with their bootstrap intervals."""
    given = signs(ranks)
    pairs = list(itertools.combinations(range(3), 2))
    table = np.stack([sum(compare(x[i], x[j]) for i, j in pairs) for x in given])
    units = {
        str(i): np.array([places(own) for own in x]).T.tolist()
        for i, x in enumerate(ranks)
    }
    return {
        **bootstrap_rates(table),
        "tau": rates(table)["tau"],
        "alpha": ordinal_alpha(units),
    }


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """Coverage of 95 % intervals from 25 prompts, in 200 samples."""
    rng = np.random.default_rng(1)
    truth = measured(rankings(rng, 4000))
    held = dict.fromkeys(truth, 0)
    for _ in range(200):
        for name, interval in measured(rankings(rng, 25)).items():
            held[name] += interval.low <= truth[name].value <= interval.high
    # The standard error of a coverage of 95 % is 1.5 %.
    assert all(0.90 <= count / 200 <= 0.99 for count in held.values()), held
