"""Intervals: they cover the true mean as often as they say, resample users, and compare models in pairs."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.evaluator.bootstrap import bootstrap_interval, paired_difference


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        values = rng.normal(3.0, 1.0, 60)
        low, high = bootstrap_interval(values, np.arange(60), trial, level=0.9, n_resamples=200)
        covered += low <= 3.0 <= high
    assert 80 <= covered <= 98


def test_rows_of_one_user_do_not_count_as_independent():
    values = np.random.default_rng(0).normal(size=50)
    once = bootstrap_interval(values, np.arange(50), 1)
    again = bootstrap_interval(np.repeat(values, 20), np.repeat([f"u{n}" for n in range(50)], 20), 1)
    as_rows = bootstrap_interval(np.repeat(values, 20), np.arange(1000), 1)
    assert again[1] - again[0] == pytest.approx(once[1] - once[0], rel=0.2)
    assert as_rows[1] - as_rows[0] < 0.5 * (again[1] - again[0])


def test_the_resampled_mean_is_over_rows_whatever_the_sizes_of_groups():
    values, users = np.array([0.0, 1.0, 1.0, 1.0]), ["a", "b", "b", "b"]
    low, high = bootstrap_interval(values, users)
    assert (low, high) == (0.0, 1.0)
    assert bootstrap_interval(values, users, 5) == bootstrap_interval(values, users, 5)
    assert bootstrap_interval(np.array([0.5, 0.7]), ["a", "a"]) == pytest.approx((0.6, 0.6))


def test_a_paired_comparison_finds_a_small_difference_between_noisy_results():
    rng = np.random.default_rng(0)
    hardness, users = rng.normal(size=200), np.arange(200)
    a, b = hardness + 0.05 + rng.normal(0, 0.05, 200), hardness
    found = paired_difference(a, b, users)
    assert 0 < found.low < found.difference < found.high
    assert found.difference == pytest.approx((a - b).mean())
    alone = [bootstrap_interval(values, users) for values in (a, b)]
    assert alone[0][0] < alone[1][1]  # apart, their intervals overlap


@pytest.mark.parametrize(("values", "groups"), [([], []), ([1.0, 2.0], ["a"])])
def test_values_and_groups_of_different_lengths_are_refused(values, groups):
    with pytest.raises(ValueError, match="groups"):
        bootstrap_interval(np.array(values), groups)
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(np.ones(2), np.ones(3), ["a", "b"])
