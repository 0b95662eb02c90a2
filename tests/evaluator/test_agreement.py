"""Metrics are those of other libraries on the same lists, and where definitions differ, by how much is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from sklearn.metrics import roc_auc_score

from recbole_xling.config import XLingConfig
from recbole_xling.evaluator.collector import XLingCollector
from recbole_xling.evaluator.evaluator import XLingEvaluator

N_USERS, N_ITEMS, CUTOFFS = 60, 80, (1, 5, 10)
EXACT = {"rel": 0, "abs": 1e-6}


@pytest.fixture
def lists():
    """Scores ``(N_USERS, N_ITEMS)``, where item 0 is padding, and each user's targets: from 1 to 15 items."""
    rng = np.random.default_rng(7)
    scores = rng.permuted(np.tile(np.arange(N_ITEMS, dtype=np.float32), (N_USERS, 1)), axis=1)
    targets = [rng.choice(np.arange(1, N_ITEMS), rng.integers(1, 16), replace=False) for _ in range(N_USERS)]
    for user, items in enumerate(targets):
        scores[user, items] += rng.choice([0, 30]) + 0.5  # no ties, and some users are served well
    return scores, targets


@pytest.fixture
def ours(small_dataset, settings_without_layers, lists):
    """The value of each metric for each user, and those of the whole."""
    small_dataset()
    names = ["NDCG", "Recall", "MRR", "MAP", "GAUC"]
    changed = {"metrics": names, "topk": list(CUTOFFS), "valid_metric": "NDCG@10"}
    config = XLingConfig("BPR", "small", config_dict={**settings_without_layers, **changed})
    collector, evaluator = XLingCollector(config), XLingEvaluator(config)
    scores, targets = lists
    ranked = torch.from_numpy(scores.copy())
    ranked[:, 0] = -torch.inf
    rows = torch.arange(N_USERS).repeat_interleave(torch.tensor([len(items) for items in targets]))
    users = Interaction({"user_id": torch.arange(N_USERS)})
    collector.eval_batch_collect(ranked, users, rows, torch.from_numpy(np.concatenate(targets)))
    evaluator.evaluate(collector.finish(N_USERS))
    return evaluator


def as_dicts(scores, targets):
    """Return judgments and rankings in the form of trec_eval."""
    judged = {f"{user:02}": {str(item): 1 for item in items} for user, items in enumerate(targets)}
    ranked = {f"{u:02}": {str(i): float(scores[u, i]) for i in range(1, N_ITEMS)} for u in range(len(scores))}
    return judged, ranked


def achievable(targets, k):
    """Return what MAP of others, which divide by all targets, is to be multiplied with: lists have ``k`` places."""
    return np.array([len(items) / min(len(items), k) for items in targets])


@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_are_those_of_ir_measures(ours, lists, k):
    measures = pytest.importorskip("ir_measures")
    wanted = {"ndcg": measures.nDCG @ k, "recall": measures.R @ k, "mrr": measures.RR @ k, "map": measures.AP @ k}
    found = {name: np.empty(N_USERS) for name in wanted}
    names = {measure: name for name, measure in wanted.items()}
    for value in measures.iter_calc(list(wanted.values()), *as_dicts(*lists)):
        found[names[value.measure]][int(value.query_id)] = value.value
    found["map"] *= achievable(lists[1], k)
    for name, values in found.items():
        np.testing.assert_allclose(ours.per_user[f"{name}@{k}"], values, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.slow  # ranx compiles each metric first
@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_are_those_of_ranx(ours, lists, k):
    ranx = pytest.importorskip("ranx")
    judged, ranked = as_dicts(*lists)
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "mrr", "map")]
    found = ranx.evaluate(ranx.Qrels(judged), ranx.Run(ranked), names, return_mean=False)
    for name in names:
        values = np.asarray(found[name])  # in the order of the names of users
        if name.startswith("map"):
            values *= achievable(lists[1], k)
        np.testing.assert_allclose(ours.per_user[name], values, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_are_those_of_rectools(ours, lists, k):
    metrics = pytest.importorskip("rectools.metrics")
    import pandas as pd

    scores, targets = lists
    places = np.argsort(-scores[:, 1:], axis=1)[:, :k] + 1
    ranks = np.tile(np.arange(1, k + 1), N_USERS)
    recommended = {"user_id": np.repeat(np.arange(N_USERS), k), "item_id": places.ravel(), "rank": ranks}
    users = np.repeat(np.arange(N_USERS), [len(items) for items in targets])
    tested = pd.DataFrame({"user_id": users, "item_id": np.concatenate(targets)})
    wanted = {
        "ndcg": metrics.NDCG(k=k, divide_by_achievable=True),
        "recall": metrics.Recall(k=k),
        "mrr": metrics.MRR(k=k),
        "map": metrics.MAP(k=k),
    }
    for name, metric in wanted.items():
        values = metric.calc_per_user(pd.DataFrame(recommended), tested).sort_index().to_numpy()
        if name == "map":
            values = values * achievable(targets, k)
        np.testing.assert_allclose(ours.per_user[f"{name}@{k}"], values, rtol=0, atol=1e-6, err_msg=name)


def test_the_area_under_the_curve_is_that_of_scikit_learn(ours, lists, small_dataset, settings_without_layers):
    scores, targets = lists
    labels = np.zeros((N_USERS, N_ITEMS - 1))
    for user, items in enumerate(targets):
        labels[user, items - 1] = 1
    of_users = [roc_auc_score(label, score) for label, score in zip(labels, scores[:, 1:], strict=True)]
    assert ours.exact["gauc"] == pytest.approx(np.average(of_users, weights=labels.sum(axis=1)), **EXACT)
    mode = {"split": {"RS": [8, 1, 1]}, "order": "RO", "group_by": "none", "mode": "labeled"}
    changed = {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": mode}
    known = {**settings_without_layers, **changed, "threshold": {"rating": 3}}
    config = XLingConfig("BPR", "small", config_dict=known)
    found = XLingEvaluator(config).of_labels("auc", scores[:, 1:].ravel().astype(float), labels.ravel())
    assert found == pytest.approx(roc_auc_score(labels.ravel(), scores[:, 1:].ravel()), **EXACT)
