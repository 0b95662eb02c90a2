"""Metrics among candidates: against MIND's definitions written out, and against scikit-learn."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from recbole_xling.evaluator.impression_metrics import METRICS, candidate_metrics


def naive(scores, clicked):
    """Average MIND's definitions over all orders that the scores allow."""
    orders = [o for o in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
    return {name: np.mean([one_order([clicked[i] for i in order])[name] for order in orders]) for name in METRICS}


def one_order(labels):
    def dcg(labels, k):
        return sum((2**label - 1) / np.log2(place + 2) for place, label in enumerate(labels[:k]))

    places = [place for place, label in enumerate(labels) if label]
    wins = sum(not label for place in places for label in labels[place + 1 :])
    result = {"auc": wins / (len(places) * (len(labels) - len(places)))}
    result["mrr"] = np.mean([1 / (place + 1) for place in places])
    return result | {f"ndcg@{k}": dcg(labels, k) / dcg(sorted(labels, reverse=True), k) for k in (5, 10)}


def drawn(rng, n, sizes, levels):
    """Draw impressions with a clicked candidate and one that is not; few levels of scores give ties."""
    scores, clicked, lengths = [], [], []
    for _ in range(n):
        size = int(rng.integers(*sizes))
        labels = rng.permutation(size) < rng.integers(1, size)
        scores.append(rng.integers(0, levels, size) / 4)
        clicked.append(labels)
        lengths.append(size)
    return scores, clicked, np.array(lengths)


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_metrics_equal_the_mean_of_minds_definitions_over_all_orders_of_ties(levels):
    scores, clicked, sizes = drawn(np.random.default_rng(levels), 30, (2, 8), levels)
    got = candidate_metrics(np.concatenate(scores), np.concatenate(clicked), sizes)
    for row, (score, label) in enumerate(zip(scores, clicked, strict=True)):
        want = naive(score.tolist(), label.astype(int).tolist())
        assert {name: got[name][row] for name in METRICS} == pytest.approx(want)


def test_auc_equals_scikit_learns():
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    scores, clicked, sizes = drawn(np.random.default_rng(0), 50, (2, 60), 20)
    got = candidate_metrics(np.concatenate(scores), np.concatenate(clicked), sizes)["auc"]
    np.testing.assert_allclose(got, [roc_auc_score(c, s) for s, c in zip(scores, clicked, strict=True)])


def test_long_lists_follow_the_definitions_beyond_the_cutoffs():
    scores, clicked, sizes = drawn(np.random.default_rng(1), 20, (15, 40), 10**9)
    got = candidate_metrics(np.concatenate(scores).astype(np.float32), np.concatenate(clicked), sizes)
    for row, (score, label) in enumerate(zip(scores, clicked, strict=True)):
        want = one_order(label[np.argsort(-score)].astype(int).tolist())
        assert {name: got[name][row] for name in METRICS} == pytest.approx(want)


def test_candidate_metrics_of_no_impressions_are_empty():
    nothing = candidate_metrics(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64))
    assert {name: len(values) for name, values in nothing.items()} == dict.fromkeys(METRICS, 0)
