"""Measures of rows: their metrics, and what these are in resamples of users."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from recbole_xling.evaluator.measure import LabelMetrics, MeanValues, difference, mean_over

METRICS = ["auc", "mae", "rmse", "logloss"]


def reference(score, label, weights):
    error = score - label
    return [
        roc_auc_score(label, score, sample_weight=weights) if len(set(label[weights > 0])) == 2 else np.nan,
        np.average(np.abs(error), weights=weights),
        np.sqrt(np.average(error**2, weights=weights)),
        log_loss(label, np.clip(score, 1e-15, 1 - 1e-15), sample_weight=weights, labels=[0, 1]),
    ]


def test_metrics_of_labels_are_resampled_by_users_ties_and_single_labels_included():
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {"user_id": rng.integers(0, 7, 24), "score": rng.integers(0, 5, 24) / 4, "label": rng.integers(0, 2, 24) * 1.0}
    )
    measure = LabelMetrics(table, METRICS, 5, lambda metric, *_: float(METRICS.index(metric)))
    draws = np.random.default_rng(5)
    times = [np.bincount(draws.integers(0, 7, 7), minlength=7) for _ in range(1000)][:60]
    score, label, users = (table[name].to_numpy() for name in ("score", "label", "user_id"))
    for rows in (np.arange(24), np.arange(6)):
        found = measure(rows)
        assert found.values.tolist() == [0.0, 1.0, 2.0, 3.0]
        for draw, of_user in enumerate(times):
            weights = of_user[users[rows]]
            if weights.any():
                np.testing.assert_allclose(found.resampled[draw], reference(score[rows], label[rows], weights))
            else:
                assert np.isnan(found.resampled[draw]).all()


def test_a_metric_that_nobody_knows_how_to_resample_has_no_interval():
    table = pl.DataFrame({"user_id": ["a", "b"], "score": [0.1, 0.2], "label": [0.0, 1.0]})
    measure = LabelMetrics(table, ["mae", "own"], 0, lambda *_: 0.5)
    entry = measure.entry(measure())
    assert entry["own"] == 0.5 and set(entry["intervals"]) == {"mae"}


def test_means_and_differences_leave_out_what_is_not_defined():
    table = pl.DataFrame({"user_id": ["a", "b", "c"], "x": [1.0, 2.0, 6.0]})
    measure = MeanValues(table, ["x"], 0)
    one, other = measure(np.array([0, 1])), measure(np.array([2]))
    assert mean_over([one, other]).values == pytest.approx([3.75])
    assert difference(one, other).values == pytest.approx([-4.5])
    drawn = [~np.isnan(part.resampled[:, 0]) for part in (one, other)]
    alone = ~drawn[1]  # of 'c', who is not in each resample
    assert alone.any() and (mean_over([one, other]).resampled[alone] == one.resampled[alone]).all()
    assert (~np.isnan(difference(one, other).resampled[:, 0]) == (drawn[0] & drawn[1])).all()
    assert measure.entry(other)["intervals"]["x"] == [6.0, 6.0]
