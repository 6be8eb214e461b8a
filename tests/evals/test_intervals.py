import json

import numpy as np
import pytest

from instructgpt.evals.intervals import mean_interval, ratio_interval, win_rate


def test_win_rate_by_hand():
    # Win, loss, tie, win: (1 + 0 + 0.5 + 1) / 4.
    rate, low, high = win_rate([0.75, 0.1, 0.5, 0.9], [0.25, 0.2, 0.5, 0.1])
    assert rate == pytest.approx(0.625)
    # Sample variance of (1, 0, 0.5, 1) is 0.6875 / 3.
    half = 1.959964 * np.sqrt(0.6875 / 3 / 4)
    assert low == pytest.approx(0.625 - half)
    assert high == pytest.approx(1.0)  # 0.625 + half is above 1


def test_win_rate_against_itself_is_exactly_half():
    assert win_rate([0.3, 0.7], [0.3, 0.7]) == (0.5, 0.5, 0.5)


def test_win_rate_is_antisymmetric(rng):
    a, b = rng.integers(1, 8, size=(2, 50))
    rate, low, high = win_rate(a, b)
    assert win_rate(b, a) == pytest.approx((1 - rate, 1 - high, 1 - low))


def test_win_rate_wants_the_same_prompts():
    with pytest.raises(ValueError, match="one utility a prompt"):
        win_rate([0.5], [0.5, 0.25])
    with pytest.raises(ValueError, match="nothing to average"):
        win_rate([], [])


def test_mean_interval_covers_the_truth_about_19_times_in_20(rng):
    draws = rng.choice([1.0, 4.5, 7.0], size=(2000, 60), p=[0.2, 0.5, 0.3])
    truth = 0.2 * 1 + 0.5 * 4.5 + 0.3 * 7
    intervals = [mean_interval(row) for row in draws]
    covered = np.mean([low <= truth <= high for _, low, high in intervals])
    assert 0.93 < covered < 0.97


def test_limits_clip_the_interval():
    assert mean_interval([0, 0, 0, 1], limits=(0, 1)).low == 0
    assert mean_interval([0, 0, 0, 1]).low < 0


def test_ratio_is_pooled_and_prompts_are_the_unit(rng):
    # 100 prompts whose six pairs are all right or all wrong: worth 100 observations,
    # not 600.
    right = rng.random(100) < 0.75
    pooled = ratio_interval(6.0 * right, np.full(100, 6.0))
    assert pooled == pytest.approx(mean_interval(right))
    # A prompt with more pairs counts more: (1 + 6) / (2 + 10), not (1/2 + 6/10) / 2.
    assert ratio_interval([1, 6], [2, 10]).value == pytest.approx(7 / 12)


def test_interval_is_a_list_in_json():
    assert json.loads(json.dumps(mean_interval([0.5, 0.5]))) == [0.5, 0.5, 0.5]
