"""Correspondence of languages against references with whole matrices, and vectors that must not look good."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from recbole_xling.errors import DataError
from recbole_xling.evaluator import correspondence as module
from recbole_xling.evaluator.correspondence import Side, correspondence, skewness


def _sides(n=60, size=16, noise=0.7, seed=1):
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(n, size))
    left, right = (meaning + noise * rng.normal(size=(n, size)) + rng.normal(size=size) for _ in range(2))
    return Side("de", left.astype(np.float32)), Side("fr", right.astype(np.float32))


def _cosines(left, right):
    units = [side.vectors / np.linalg.norm(side.vectors, axis=1, keepdims=True) for side in (left, right)]
    return units[0].astype(np.float64) @ units[1].T.astype(np.float64)


def test_values_are_those_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)  # many blocks, the last ones smaller
    monkeypatch.setattr(module, "_COLUMNS", 11)
    left, right = _sides()
    asked = np.arange(60) < 50
    lines = correspondence(left, right, asked, seed=3)
    assert [(line["from"], line["to"], line["n"], line["candidates"]) for line in lines] == [
        ("de", "fr", 50, 60),
        ("fr", "de", 50, 60),
    ]
    of_left = _cosines(left, right)
    for line, cosines, to in zip(lines, (of_left, of_left.T), (right, left), strict=True):
        own = np.diag(cosines)
        rank = 1 + (cosines > own[:, None]).sum(axis=1)
        for k, name in ((1, "accuracy"), (5, "recall@5"), (10, "recall@10")):
            assert line[name] == pytest.approx((rank <= k)[:50].mean())
            low, high = line["intervals"][name]
            assert low <= line[name] <= high
        assert 0.2 < line["accuracy"] < 0.95  # or nothing is compared
        others = cosines[~np.eye(60, dtype=bool)]
        assert line["cosine_pairs"] == pytest.approx(own.mean(), abs=1e-6)
        assert line["cosine_others"] == pytest.approx(others.mean(), abs=1e-6)
        assert line["separation"] == pytest.approx((own.mean() - others.mean()) / others.std(), rel=1e-4)
        nearest = np.argsort(-cosines, axis=1)[:, :10]
        times = np.bincount(nearest.ravel(), minlength=60)
        assert line["hubness"] == pytest.approx(scipy.stats.skew(times))
        assert line["never_found"] == pytest.approx((times == 0).mean())
        same = _cosines(to, to)
        assert line["mean_cosine"] == pytest.approx(same[~np.eye(60, dtype=bool)].mean(), abs=1e-6)
        units = to.vectors / np.linalg.norm(to.vectors, axis=1, keepdims=True)
        _, directions = np.linalg.eigh(units.T @ units)
        function = [np.exp(sign * units @ directions).sum(axis=0) for sign in (1, -1)]
        assert line["isotropy"] == pytest.approx(np.min(function) / np.max(function), rel=1e-4)


def test_the_threshold_is_the_best_of_one_half_and_measured_on_the_other():
    left, right = _sides(n=200, noise=1.0)
    line = correspondence(left, right, seed=5)[0]
    cosines = _cosines(left, right)
    best, right_one = cosines.max(axis=1), cosines.argmax(axis=1) == np.arange(200)
    order = np.random.default_rng(5).permutation(200)
    halves = order[:100], order[100:]

    def scores(half, threshold):
        kept = best[half] >= threshold
        hits = (right_one[half] & kept).sum()
        return hits / max(1, kept.sum()), hits / len(half), 2 * hits / (kept.sum() + len(half))

    best_f1 = max(scores(halves[0], threshold)[2] for threshold in best[halves[0]])
    assert scores(halves[0], line["threshold"])[2] == pytest.approx(best_f1)
    assert (line["precision"], line["recall"], line["f1"]) == pytest.approx(scores(halves[1], line["threshold"]))
    assert line["precision"] > line["recall"]  # the threshold is above some


@pytest.mark.parametrize("rows", [7, 1024])
def test_vectors_that_are_all_the_same_find_nothing(monkeypatch, rows):
    monkeypatch.setattr(module, "_ROWS", rows)
    same = np.tile(np.random.default_rng(0).normal(size=24).astype(np.float32), (50, 1))
    line = correspondence(Side("de", same), Side("fr", same))[0]
    assert line["accuracy"] == pytest.approx(1 / 50) and line["recall@10"] == pytest.approx(10 / 50)
    assert line["separation"] == 0 and line["f1"] < 0.1
    assert line["mean_cosine"] == pytest.approx(1) and line["isotropy"] == pytest.approx(np.exp(-1) / np.exp(1))


def test_texts_that_are_twice_there_count_as_chance_would_have_them():
    left, _ = _sides(n=40)
    twice = Side("fr", np.concatenate([left.vectors[:20], left.vectors[:20]]))
    line = correspondence(Side("de", twice.vectors), twice)[0]
    assert line["accuracy"] == pytest.approx(0.5) and line["recall@5"] == 1


def test_a_hub_shows():
    left, right = _sides(n=300, size=64, noise=0.1)
    hub = right.vectors.copy()
    hub[0] = left.vectors.mean(axis=0) * 10
    assert correspondence(left, Side("fr", hub))[0]["hubness"] > 2 + correspondence(left, right)[0]["hubness"]
    assert skewness(np.array([3, 3, 3])) == 0


def test_what_cannot_be_measured_is_refused():
    left, right = _sides()
    with pytest.raises(DataError, match="de and fr have 9 pairs, not 10"):
        correspondence(left, right, np.arange(60) < 9)
    right.vectors[4] = 0
    with pytest.raises(DataError, match="text 5 in fr is zero"):
        correspondence(left, right)
