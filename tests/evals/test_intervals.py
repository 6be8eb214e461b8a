import json

import numpy as np
import pytest

from instructgpt.evals.intervals import (
    mean_interval,
    ratio_interval,
    ratio_intervals,
    win_rate,
)
from tests.benchmarks import coverage

T3 = 3.182446  # 97.5th percentile of Student's t with 3 degrees of freedom


def test_win_rate_by_hand():
    # Win, loss, tie, win: (1 + 0 + 0.5 + 1) / 4.
    rate, low, high = win_rate([0.75, 0.1, 0.5, 0.9], [0.25, 0.2, 0.5, 0.1])
    assert rate == pytest.approx(0.625)
    # The sample variance of (1, 0, 0.5, 1) is 0.6875 / 3; four prompts weigh twice as
    # much as the prior.
    estimated = 0.6875 / 3 / 4 / (0.625 * 0.375)
    inverse = (4 * estimated + 2 / 4) / 6
    for end in (low, high):
        assert abs(end - rate) == pytest.approx(T3 * np.sqrt(end * (1 - end) * inverse))
    assert 0 < low < rate < high < 1


def test_a_single_win_says_little_of_the_variance():
    rate, low, high = win_rate([1] + [0] * 9, [0] + [1] * 9)
    # Squared residuals are 0.81 once and 0.01 nine times, so the variance has
    # 2 / (0.657 / 0.81 - 1 / 10) degrees of freedom; the estimate is 0.9 / 9 / 10.
    certainty = 2 / (0.657 / 0.81 - 0.1)
    inverse = (certainty * 0.01 / 0.09 + 2 / 10) / (certainty + 2)
    t9 = 2.262157
    for end in (low, high):
        assert abs(end - rate) == pytest.approx(t9 * np.sqrt(end * (1 - end) * inverse))


def test_win_rate_is_antisymmetric(rng):
    a, b = rng.integers(1, 8, size=(2, 50))
    rate, low, high = win_rate(a, b)
    assert win_rate(b, a) == pytest.approx((1 - rate, 1 - high, 1 - low))


def test_ties_on_every_prompt_leave_a_doubt():
    rate, low, high = win_rate([0.3, 0.7] * 20, [0.3, 0.7] * 20)
    assert low < rate == 0.5 < high
    # Less than where half of the prompts are won and half lost.
    split = win_rate([0.3, 0.7] * 20, [0.7, 0.3] * 20)
    assert split.value == 0.5 and high - low < (split.high - split.low) / 2


def test_win_rate_wants_the_same_prompts():
    with pytest.raises(ValueError, match="one utility a prompt"):
        win_rate([0.5], [0.5, 0.25])
    with pytest.raises(ValueError, match="nothing to average"):
        win_rate([], [])


@pytest.mark.parametrize("name", coverage.DATA)
def test_intervals_of_rates_hold_the_truth(name):
    for prompts, least in ((5, 0.90), (20, 0.93), (500, 0.93)):
        for rate in coverage.RATES:
            found = coverage.simulate(name, rate, prompts, 2000)
            assert found.covered >= least, (prompts, rate)
            assert found.least >= 0 and found.greatest <= 1
            if prompts == 500:  # Then they are no longer than they have to be.
                assert found.length < 1.15 and found.covered < 0.98


def test_coverage_is_printed_as_a_table(capsys):
    coverage.main(["--replications=3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(coverage.DATA) * len(coverage.RATES)
    assert len({line.count("|") for line in lines}) == 1


def test_mean_interval_covers_the_truth_about_19_times_in_20(rng):
    draws = rng.choice([1.0, 4.5, 7.0], size=(2000, 60), p=[0.2, 0.5, 0.3])
    truth = 0.2 * 1 + 0.5 * 4.5 + 0.3 * 7
    for limits in (None, (1.0, 7.0)):
        intervals = [mean_interval(row, limits=limits) for row in draws]
        covered = np.mean([low <= truth <= high for _, low, high in intervals])
        assert 0.93 < covered < 0.97


def test_mean_of_few_values_has_students_quantile():
    # The sample variance of 1, 2, 3, 4 is 5 / 3.
    mean, low, high = mean_interval([1, 2, 3, 4])
    half = T3 * np.sqrt(5 / 3 / 4)
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))
    # The interval of five normal values covers the mean 95 % of the time, too.
    draws = np.random.default_rng(1).normal(3.0, 2.0, size=(4000, 5))
    intervals = [mean_interval(row) for row in draws]
    covered = np.mean([low <= 3 <= high for _, low, high in intervals])
    assert 0.94 < covered < 0.96


def test_one_value_says_nothing_of_how_far_values_spread():
    assert mean_interval([4.0]) == (4.0, -np.inf, np.inf)
    assert mean_interval([4.0], limits=(1, 7)) == pytest.approx((4.0, 1.0, 7.0))
    assert ratio_interval([3], [4]) == pytest.approx((0.75, 0.0, 1.0))


def test_limits_hold_the_interval():
    value, low, high = mean_interval([0, 0, 0, 1], limits=(0, 1))
    assert 0 < low < value == 0.25 < high < 1
    assert mean_interval([0, 0, 0, 1]).low < 0
    # On another scale it is the same interval.
    assert mean_interval([1, 1, 1, 7], limits=(1, 7)) == pytest.approx(
        (1 + 6 * value, 1 + 6 * low, 1 + 6 * high)
    )
    with pytest.raises(ValueError, match="sums between 0"):
        mean_interval([0, 0, 8], limits=(1, 7))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rates_of_0_and_1_have_an_interval_too(value):
    widths = []
    for prompts in (4, 20, 500):
        rate, low, high = ratio_interval(np.full(prompts, 6 * value), [6.0] * prompts)
        assert rate == value
        assert low == 0 or high == 1
        widths.append(high - low)
    # Wilson's for 0 of N: t^2 / (N + t^2).
    assert widths[0] == pytest.approx(T3**2 / (4 + T3**2))
    assert widths[0] > widths[1] > widths[2] > 0.005


def test_ratio_is_pooled_and_prompts_are_the_unit(rng):
    # 100 prompts whose six pairs are all right or all wrong: worth 100 observations,
    # not 600.
    right = rng.random(100) < 0.75
    pooled = ratio_interval(6.0 * right, np.full(100, 6.0))
    assert pooled == pytest.approx(mean_interval(right, limits=(0, 1)))
    # A prompt with more pairs counts more: (1 + 6) / (2 + 10), not (1/2 + 6/10) / 2.
    assert ratio_interval([1, 6], [2, 10]).value == pytest.approx(7 / 12)
    # A prompt without pairs does not count.
    sums, weights = [2.0, 6, 3], [3.0, 10, 6]
    assert ratio_interval([*sums, 0], [*weights, 0]) == ratio_interval(sums, weights)


def test_many_samples_at_once_are_each_their_own(rng):
    weights = rng.integers(1, 9, size=(3, 7)).astype(float)
    sums = np.floor(weights * rng.random((3, 7)))
    found = np.stack(ratio_intervals(sums, weights), axis=-1)
    alone = [ratio_interval(s, w) for s, w in zip(sums, weights, strict=True)]
    np.testing.assert_allclose(found, alone, rtol=1e-12)


def test_what_is_no_rate_is_refused():
    with pytest.raises(ValueError, match="nothing to average"):
        ratio_interval([0, 0], [0, 0])
    with pytest.raises(ValueError, match="nothing to average"):
        mean_interval([])
    with pytest.raises(ValueError, match="sums between 0"):
        ratio_interval([3, 1], [2, 2])
    with pytest.raises(ValueError, match="sums between 0"):
        ratio_interval([float("nan"), 1], [2, 2])


def test_interval_is_a_list_in_json():
    assert json.loads(json.dumps(mean_interval([0.5, 0.5]))) == [0.5, 0.5, 0.5]
