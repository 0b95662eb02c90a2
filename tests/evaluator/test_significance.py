"""Paired tests over users, and corrections for many of them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from recbole_xling.evaluator.significance import benjamini_hochberg, holm, paired_p_values


def test_corrections_equal_those_worked_out_by_hand():
    p_values = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    assert holm(p_values) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert benjamini_hochberg(p_values) == pytest.approx([0.02, 0.04, np.nan, 0.04, 0.02], nan_ok=True)
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_tests_count_each_user_once():
    rng = np.random.default_rng(0)
    means = rng.normal(0.1, 1, 40)
    users = np.repeat([f"u{user:02}" for user in range(40)], 5)
    found = paired_p_values(np.repeat(means, 5), users)
    want = scipy.stats.ttest_1samp(means, 0).pvalue, scipy.stats.wilcoxon(means).pvalue
    assert found == pytest.approx(want)


def test_nothing_differs_or_nobody_is_there():
    assert paired_p_values(np.zeros(5), np.arange(5)) == (1, 1)
    assert np.isnan(paired_p_values(np.ones(3), ["a"] * 3)).all()


@pytest.mark.parametrize("n", [2, 3, 9, 5000])
def test_where_all_users_differ_alike_the_number_of_users_decides(n):
    found = paired_p_values(np.full(n, -0.5), np.arange(n))[0]
    signs = scipy.stats.binomtest(n, n)  # of all orders of signs two are as far from none
    assert found == pytest.approx(signs.pvalue)
