"""Scores from vectors against all of them computed at once, and what indexes find."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from recbole_xling.errors import ConfigError
from recbole_xling.serve import indexes
from recbole_xling.serve import vectors as module
from recbole_xling.serve.indexes import index_file, open_index, write_index
from recbole_xling.serve.scorer import Rows
from recbole_xling.serve.vectors import LEAST_WEIGHT, Tower, VectorScorer, View


def made(n_items, size=8, n_users=20, **index):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(n_items, size)).astype(np.float32)
    items *= rng.gamma(2, size=(n_items, 1)).astype(np.float32)  # of different lengths, as learned vectors have
    bias, users = rng.normal(size=n_items).astype(np.float32), rng.normal(size=(n_users, size)).astype(np.float32)
    languages, known = np.zeros(n_items, dtype=np.int64), np.ones(n_items, dtype=bool)
    view = View(items, items, languages, known, **{"indexed": np.empty(0, dtype=np.int64), **index})
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
    monkeypatch.setattr(module, "_FIRST_ITEMS", 5)
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


# vectors without any groups, which lists of near ones are of little use for; built by several threads, an index of
# usearch is another one each time
@pytest.mark.parametrize(("kind", "recall"), [("flat", 1), ("hnsw", 0.98), ("ivfpq", 0.85), ("usearch", 0.95)])
def test_an_index_finds_what_scores_highest_whatever_the_lengths_of_vectors(tmp_path, monkeypatch, kind, recall):
    n_items = 2000
    monkeypatch.setattr(indexes, "_FEWEST", n_items)
    monkeypatch.setattr(indexes, "_RANKED", 200)
    pytest.importorskip("usearch" if kind == "usearch" else "faiss")
    _, items, bias, users = made(n_items, n_users=50)
    path = tmp_path / index_file(kind, 0)
    search = open_index(kind, path, write_index(kind, items, bias, path))
    order, _ = expected(users, items, bias, np.arange(n_items), [[]] * 50, 10)
    found = search(users, 10)
    assert np.mean([np.isin(wanted, places).mean() for wanted, places in zip(order, found, strict=True)]) >= recall


@pytest.mark.parametrize("kind", ["flat", "hnsw", "usearch"])
def test_a_bias_of_another_scale_does_not_hide_the_best_items(tmp_path, kind):
    pytest.importorskip("usearch" if kind == "usearch" else "faiss")
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(3000, 8)).astype(np.float32) * 0.05, rng.normal(size=(50, 8)).astype(np.float32)
    bias = -5 - rng.gamma(2, size=3000).astype(np.float32)  # far from 0, as logarithms of shares are
    search = open_index(kind, tmp_path / "index", write_index(kind, items, bias, tmp_path / "index"))
    view = View(items, items, np.zeros(3000, dtype=np.int64), np.ones(3000, dtype=bool), np.arange(3000), search)
    scorer = VectorScorer("model", [view], bias, 8, users, without_history=True)
    best = scorer.best(0, rows(50), np.arange(3000), [np.empty(0, dtype=np.int64)] * 50, 10)
    order, scores = expected(users, items, bias, np.arange(3000), [[]] * 50, 10)
    np.testing.assert_array_equal(best.items, order)  # an item that many want is one of those with the highest bias
    np.testing.assert_allclose(best.scores, scores, rtol=1e-5, atol=1e-6)


def test_few_items_have_no_index_of_codes(tmp_path):
    pytest.importorskip("faiss")
    _, items, bias, _ = made(500)
    with pytest.raises(ConfigError, match=r"needs 10,000 items, not 500"):
        write_index("ivfpq", items, bias, tmp_path / "index")


def test_an_index_is_asked_for_more_where_items_are_left_out(tmp_path):
    pytest.importorskip("faiss")
    _, items, bias, users = made(500)
    weight = write_index("flat", items[1:], bias[1:], tmp_path / "index")
    asked, search = [], open_index("flat", tmp_path / "index", weight)

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
    assert asked == [5 + 29 + 2 + 1]
    scorer.best(0, rows(20), np.arange(1, 300), left_out, 5)  # a filter: all candidates are scored
    assert len(asked) == 1


@pytest.mark.parametrize("n_gone", [3, 45])
def test_withdrawn_items_are_made_up_for_by_further_ones_of_the_index(tmp_path, n_gone):
    pytest.importorskip("faiss")
    _, items, bias, users = made(500)
    weight = write_index("flat", items[1:], bias[1:], tmp_path / "index")
    scorer, *_ = made(500, indexed=np.arange(1, 500), search=open_index("flat", tmp_path / "index", weight))
    order, _ = expected(users, items, bias, np.arange(1, 500), [[]] * 20, n_gone)
    candidates = np.setdiff1d(np.arange(1, 500), order[0])  # the best of the first user
    best = scorer.best(0, rows(20), candidates, [np.empty(0, dtype=np.int64)] * 20, 40)
    order, scores = expected(users, items, bias, candidates, [[]] * 20, 40)
    np.testing.assert_array_equal(best.items, order)
    np.testing.assert_allclose(best.scores, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "usearch"])
@pytest.mark.parametrize("n_added", [0, 30])
def test_what_is_beside_the_index_does_not_hide_that_it_found_too_little(tmp_path, kind, n_added):
    """All that users like most is gone, while there are items of a higher bias, or added ones, to fill their lists."""
    pytest.importorskip("usearch" if kind == "usearch" else "faiss")
    rng = np.random.default_rng(0)
    items, liked = rng.normal(size=(4000, 8)).astype(np.float32), np.full(8, 2, dtype=np.float32)
    items[:230] = liked + 0.1 * rng.normal(size=(230, 8))
    items[200:230] *= 0.8  # what comes next
    bias = 0.5 * rng.random(4000).astype(np.float32) * (n_added == 0)
    bias[:230] = 0
    search = open_index(kind, tmp_path / "index", write_index(kind, items, bias, tmp_path / "index"))
    view = View(items, items, np.zeros(4000, dtype=np.int64), np.ones(4000, dtype=bool), np.arange(4000), search)
    last = Tower(lambda given: given["items"][:, 0], 1, {})
    scorer = VectorScorer("model", [view], bias, 8, last, without_history=True)
    more = rng.normal(size=(n_added, 8)).astype(np.float32)
    scorer = scorer.grown([more], [["und"] * n_added], skipped=0, bias=0.0)
    table, biases = np.concatenate([items, more]), np.append(bias, np.zeros(n_added, np.float32))
    candidates, history = np.arange(200, 4000 + n_added), np.array([3])
    best = scorer.best(0, Rows(np.zeros(1, dtype=np.int64), ["und"], [history]), candidates, [history], 10)
    order, scores = expected(items[[3]], table, biases, candidates, [history], 10)
    np.testing.assert_array_equal(best.items, order)
    np.testing.assert_allclose(best.scores, scores, rtol=1e-5, atol=1e-5)


def test_not_all_items_are_scored_where_the_index_has_found_enough(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "_LIKELY", 50)
    _, items, bias, users = made(500, n_users=200)
    search = open_index("flat", tmp_path / "index", write_index("flat", items, bias, tmp_path / "index"))
    scorer, *_ = made(500, n_users=200, indexed=np.arange(500), search=search)
    monkeypatch.setattr(scorer, "_exact", None)
    nothing = [np.empty(0, dtype=np.int64)] * 200
    for k in (1, 5, 50):
        best = scorer.best(0, rows(200), np.arange(500), nothing, k)
        np.testing.assert_array_equal(best.items, expected(users, items, bias, np.arange(500), nothing, k)[0])


@pytest.mark.parametrize("indexed", [False, True])
def test_a_longer_list_begins_with_the_shorter_one_where_scores_are_equal(tmp_path, indexed):
    items = np.random.default_rng(0).integers(0, 2, size=(500, 3)).astype(np.float32)
    bias, users, own = np.zeros(500, dtype=np.float32), np.eye(3, dtype=np.float32), {}
    if indexed:
        pytest.importorskip("faiss")
        search = open_index("flat", tmp_path / "index", write_index("flat", items, bias, tmp_path / "index"))
        own = {"search": search}
    places = np.arange(500) if indexed else np.arange(0)
    view = View(items, items, np.zeros(500, dtype=np.int64), None, places, **own)
    scorer = VectorScorer("model", [view], bias, 3, users, without_history=True)
    nothing = [np.empty(0, dtype=np.int64)] * 3
    order, _ = expected(users, items, bias, np.arange(500), nothing, 500)
    for k in (1, 2, 7, 499) if not indexed else (499,):  # an index chooses among equal ones itself
        best = scorer.best(0, rows(3), np.arange(500), nothing, k)
        np.testing.assert_array_equal(best.items, order[:, :k])


@pytest.mark.parametrize("indexed", [False, True])
def test_further_items_are_ranked_among_the_others(tmp_path, indexed):
    """With vectors of which the first two numbers do not count for scores, and with and without an index."""
    if indexed:
        pytest.importorskip("faiss")
    _, items, bias, users = made(60)
    own = {}
    if indexed:
        weight = write_index("flat", items[1:], bias[1:], tmp_path / "index")
        own = {"indexed": np.arange(1, 60), "search": open_index("flat", tmp_path / "index", weight)}
    view = made(60, **own)[0]._views[0]

    def total(given):  # the sum of the history
        inside = np.arange(4) < given["item_seq_len"][:, None]
        return (given["items"] * inside[..., None]).sum(axis=1)

    tower = Tower(total, 4, {"de": 1, "fr": 2})
    scorer = VectorScorer("model", [view], bias, 8, tower, without_history=True)
    more = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)
    grown = scorer.grown([more], [["de", "fr-CA", "xx", "de", "de"]], skipped=2, bias=0.25)
    scored = np.concatenate([np.zeros((5, 2)), more[:, 2:]], axis=1)
    table, biases = np.concatenate([items, scored]), np.concatenate([bias, np.full(5, 0.25, np.float32)])
    histories = [np.array([3, 61]), np.array([64, 2, 63]), np.array([61, 64])]
    users = np.stack([items[3] + more[1], more[4] + items[2] + more[3], more[1] + more[4]])
    weight = np.array([1, 2 / 3, LEAST_WEIGHT], np.float32)  # as training has met a half, a third, nothing
    biases = biases * weight[:, None]
    asked = Rows(np.zeros(3, dtype=np.int64), ["und"] * 3, histories)
    for candidates in (np.arange(1, 65), np.setdiff1d(np.arange(1, 65), [5, 62]), np.arange(50, 65)):
        best = grown.best(0, asked, candidates, histories, 9)
        order, scores = expected(users, table, biases, candidates, histories, 9)
        np.testing.assert_array_equal(best.items, order)
        np.testing.assert_allclose(best.scores, scores, rtol=1e-5, atol=1e-5)
    assert np.isin(np.arange(60, 65), grown.best(0, asked, np.arange(1, 65), histories, 60).items).all()
    np.testing.assert_array_equal(grown.vectors(0, np.array([61, 4])), np.stack([more[1], items[4]]))
    np.testing.assert_array_equal(grown._views[0].languages[60:], [1, 2, 0, 1, 1])
    np.testing.assert_array_equal(grown._views[0].known[59:], [True] + [False] * 5)


def test_users_that_are_no_numbers_are_not_ranked():
    def compute(given):
        return np.full((len(given["items"]), 8), np.nan, dtype=np.float32)

    scorer, *_ = made(30)
    broken = VectorScorer("model", scorer._views, scorer._bias, 8, Tower(compute, 5, {}), without_history=True)
    with pytest.raises(ConfigError, match="numbers that are not finite"):
        broken.best(0, rows(2), np.arange(1, 30), [[], []], 5)


def test_usearch_and_onnxruntime_can_be_in_one_process():
    """In the other order the second import ends the process."""
    pytest.importorskip("usearch")
    pytest.importorskip("onnxruntime")
    code = (
        "from recbole_xling.serve.indexes import check_kind; check_kind('usearch'); import onnxruntime; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
