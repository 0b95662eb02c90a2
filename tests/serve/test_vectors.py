"""Scores from vectors against all of them computed at once, and what indexes find."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.errors import ConfigError
from recbole_xling.serve import vectors as module
from recbole_xling.serve.indexes import index_file, open_index, write_index
from recbole_xling.serve.scorer import Rows
from recbole_xling.serve.vectors import VectorScorer, View


def made(n_items, size=8, n_users=20, **index):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(n_items, size)).astype(np.float32)
    items *= rng.gamma(2, size=(n_items, 1)).astype(np.float32)  # of different lengths, as learned vectors have
    bias, users = rng.normal(size=n_items).astype(np.float32), rng.normal(size=(n_users, size)).astype(np.float32)
    view = View(items, items, np.zeros(n_items, dtype=np.int64), **{"indexed": np.empty(0, dtype=np.int64), **index})
    return VectorScorer("model", [view], bias, size, users, without_history=True), items, bias, users


def rows(n_users):
    return Rows(np.arange(n_users), ["und"] * n_users, [np.empty(0, dtype=np.int64)] * n_users)


def expected(users, items, bias, candidates, left_out, k):
    scores = np.full((len(users), len(items)), -np.inf)
    scores[:, candidates] = (users @ items.T + bias)[:, candidates]
    for row, gone in zip(scores, left_out, strict=True):
        row[gone] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


def test_lists_made_block_by_block_are_those_of_all_scores(monkeypatch):
    monkeypatch.setattr(module, "_ITEMS", 7)
    monkeypatch.setattr(module, "_ROWS", 3)
    scorer, items, bias, users = made(60)
    rng = np.random.default_rng(1)
    left_out = [rng.choice(60, size=rng.integers(0, 20), replace=False) for _ in users]
    for candidates in (np.arange(1, 60), np.flatnonzero(rng.random(60) < 0.5), np.array([4, 5, 6, 40]), np.arange(0)):
        best = scorer.best(0, rows(20), candidates, left_out, 9)
        order, scores = expected(users, items, bias, candidates, left_out, min(9, len(candidates)))
        there = np.isfinite(scores)
        np.testing.assert_array_equal(np.isfinite(best.scores), there)
        np.testing.assert_array_equal(best.items[there], order[there])
        np.testing.assert_allclose(best.scores[there], scores[there], rtol=1e-5, atol=1e-6)


# built by several threads, an index of usearch is another one each time
@pytest.mark.parametrize(("kind", "recall"), [("flat", 1), ("hnsw", 0.98), ("usearch", 0.95)])
def test_an_index_finds_what_scores_highest_whatever_the_lengths_of_vectors(tmp_path, kind, recall):
    n_items = 2000
    pytest.importorskip("usearch" if kind == "usearch" else "faiss")
    _, items, bias, users = made(n_items, n_users=50)
    path = tmp_path / index_file(kind, 0)
    write_index(kind, items, bias, path)
    search = open_index(kind, path)
    order, _ = expected(users, items, bias, np.arange(n_items), [[]] * 50, 10)
    found = search(users, 10)
    assert np.mean([np.isin(wanted, places).mean() for wanted, places in zip(order, found, strict=True)]) >= recall


def test_an_index_is_asked_for_more_where_items_are_left_out(tmp_path):
    pytest.importorskip("faiss")
    _, items, bias, users = made(500)
    write_index("flat", items[1:], bias[1:], tmp_path / "index")
    asked, search = [], open_index("flat", tmp_path / "index")

    def counted(users, k):
        asked.append(k)
        return search(users, k)

    scorer, *_ = made(500, indexed=np.arange(1, 500), search=counted)
    candidates = np.setdiff1d(np.arange(1, 500), [3, 8])  # two were withdrawn
    left_out = [np.arange(1, 30)] * 20
    best = scorer.best(0, rows(20), candidates, left_out, 5)
    order, scores = expected(users, items, bias, candidates, left_out, 5)
    np.testing.assert_array_equal(best.items, order)
    np.testing.assert_allclose(best.scores, scores, rtol=1e-5, atol=1e-6)
    assert asked == [5 + 29 + 2]
    scorer.best(0, rows(20), np.arange(1, 300), left_out, 5)  # a filter: all candidates are scored
    assert len(asked) == 1


def test_users_that_are_no_numbers_are_not_ranked():
    class Broken(module.Tower):
        def __call__(self, view, rows):
            return np.full((len(rows.users), 8), np.nan, dtype=np.float32)

    scorer, *_ = made(30)
    broken = VectorScorer("model", scorer._views, scorer._bias, 8, Broken(None, 5, {}), without_history=True)
    with pytest.raises(ConfigError, match="numbers that are not finite"):
        broken.best(0, rows(2), np.arange(1, 30), [[], []], 5)
