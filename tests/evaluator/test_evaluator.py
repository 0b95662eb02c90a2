"""Overall values are RecBole's; per-user values average to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.trainer import Trainer

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import build, build_trainer
from recbole_xling.quick_start.train import run

METRICS = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "GAUC", "ItemCoverage", "GiniIndex", "AveragePopularity"]


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
@pytest.mark.parametrize("mode", ["full", "uni20"])
def test_metrics_equal_recboles_evaluator(small_dataset, settings, settings_without_layers, model, mode):
    small_dataset()
    split = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": mode}
    changed = {"metrics": METRICS, "topk": [1, 5, 10], "eval_args": split}
    known = settings_without_layers if model == "BPR" else settings
    parts = build(XLingConfig(model, "small", config_dict={**known, **changed, "eval_batch_size": 64}))
    ours = build_trainer(parts.config, parts.model)
    ours.eval_collector.data_collect(parts.train_data)
    theirs = Trainer(parts.config, parts.model)
    theirs.eval_collector, theirs.evaluator = Collector(parts.config), Evaluator(parts.config)
    theirs.eval_collector.data_collect(parts.train_data)
    # RecBole calls .cpu() on everything the struct holds, numbers and counters included, and fails
    theirs.eval_collector.get_data_struct = lambda: theirs.eval_collector.data_struct
    torch.manual_seed(0), np.random.seed(0)
    want = theirs.evaluate(parts.test_data, load_best_model=False)
    torch.manual_seed(0), np.random.seed(0)
    got = ours.evaluate(parts.test_data, load_best_model=False)
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name] == round(float(value), 4), name
    for name, values in ours.evaluator.per_user.items():
        assert len(values) == len(ours.eval_collector.rows)
        assert np.mean(values) == pytest.approx(ours.evaluator.exact[name])


def test_evaluated_rows_name_the_user_and_targets_of_each_value(small_dataset, build_small):
    small_dataset()
    parts = build_small(eval_batch_size=7)
    trainer = build_trainer(parts.config, parts.model)
    trainer.evaluate(parts.test_data, load_best_model=False)
    rows = trainer.eval_collector.rows
    test = parts.test_data._dataset.inter_feat
    assert rows.users.tolist() == test["user_id"].tolist()
    assert rows.targets.tolist() == test["item_id"].tolist()
    scores = parts.model.eval().full_sort_predict(parts.test_data._dataset[np.arange(len(test))])
    rank = (scores > scores.gather(1, test["item_id"][:, None])).sum(dim=1).numpy()
    np.testing.assert_array_equal(trainer.evaluator.per_user["recall@5"], rank < 5)
    np.testing.assert_allclose(trainer.evaluator.per_user["ndcg@10"], np.where(rank < 10, 1 / np.log2(rank + 2), 0))


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec"])
def test_items_of_the_history_are_left_out_of_the_ranking_on_demand(small_dataset, build_small, model):
    small_dataset()
    parts = build_small(model, exclude_history=True, eval_batch_size=64, topk=[1, 5, 10])
    trainer = build_trainer(parts.config, parts.model)
    trainer.evaluate(parts.test_data, load_best_model=False)
    rows = parts.test_data._dataset[np.arange(len(parts.test_data._dataset))]
    scores = parts.model.eval().full_sort_predict(rows).detach().view(len(rows), -1).numpy()
    for row, history in zip(scores, rows["item_id_list"].numpy(), strict=True):
        row[0] = -np.inf
        row[history] = -np.inf  # the target, too, where it was there before
    target = np.take_along_axis(scores, rows["item_id"].numpy()[:, None], axis=1)
    rank = (scores > target).sum(axis=1)
    np.testing.assert_array_equal(trainer.evaluator.per_user["recall@5"], np.isfinite(target[:, 0]) & (rank < 5))


def test_repeated_evaluation_gives_the_same_result(small_dataset, build_small):
    small_dataset()
    parts = build_small()
    trainer = build_trainer(parts.config, parts.model)
    first = trainer.evaluate(parts.test_data, load_best_model=False)
    trainer.evaluate(parts.valid_data, load_best_model=False)
    assert trainer.evaluate(parts.test_data, load_best_model=False) == first


@pytest.mark.parametrize("length", [8, 1])  # of histories as models read them
@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
def test_targets_that_exclude_history_hides_are_counted(small_dataset, settings, model, length, caplog):
    folder = small_dataset()
    file = folder / "small.inter"
    head, *rows = [line.split("\t") for line in file.read_text().splitlines()]
    walks = {}
    for row in sorted(rows, key=lambda row: float(row[3])):
        walks.setdefault(row[0], []).append(row)
    for walk in list(walks.values())[:9]:
        walk[-1][1] = walk[-3][1]  # at least nine users meet an item again in the end
    met = sum(walk[-1][1] in [row[1] for row in walk[:-1]] for walk in walks.values())
    rows = [row for walk in walks.values() for row in walk]
    file.write_text("\n".join("\t".join(row) for row in [head, *rows]) + "\n")
    known = {**settings, "allow_unknown_keys": True, "epochs": 1, "MAX_ITEM_LIST_LENGTH": length}
    assert "unreachable_targets" not in run(model, "small", config_dict=known)
    everything = {"exclude_history": True, "metrics": ["Recall"], "topk": [30], "valid_metric": "Recall@30"}
    result = run(model, "small", config_dict={**known, **everything})
    assert result["unreachable_targets"] == (0 if model == "BPR" else met)
    if model != "BPR":  # a list of all items has what is left out at its end, which is not found by that
        assert result["test"]["recall@30"] == pytest.approx((40 - met) / 40)
    assert (f"takes {met} of 40 targets out of the ranking" in caplog.text) == (model != "BPR")
