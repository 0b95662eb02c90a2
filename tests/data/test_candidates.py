"""Sampled candidates: distinct, the same in every evaluation, as probable as RecBole's."""

from __future__ import annotations

import collections
from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.data.candidates import _Pool
from recbole_xling.data.identity import DataIdentity
from recbole_xling.quick_start.build import build_data, build_trainer
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run


def names_of_lists(parts):
    """Return the names of each list's user, targets and negatives, in order of the lists."""
    data, dataset, found = parts.test_data, parts.dataset, collections.defaultdict(lambda: ([], []))
    first = 0
    for batch, lists, *_ in data:
        for number, user, item, label in zip(
            (lists + first).tolist(), batch["user_id"].tolist(), batch["item_id"].tolist(), batch["label"].tolist(),
            strict=True,
        ):  # fmt: skip
            name = str(dataset.field2id_token["user_id"][user]), number
            found[name][0 if label else 1].append(str(dataset.field2id_token["item_id"][item]))
        first += int(lists.max()) + 1
    return {f"{user} {number}": lists for (user, number), lists in found.items()}


def sampled(build_small, model="SASRec", mode="uni5", split=None, **changed):
    eval_args = {"split": split or {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode}
    return build_small(model, eval_args=eval_args, allow_unknown_keys=True, **changed)


@pytest.mark.parametrize("model", ["SASRec", "LLMSASRec", "BPR"])
@pytest.mark.parametrize("mode", ["uni5", "pop5"])
def test_negatives_are_distinct_and_the_same_each_time(small_dataset, build_small, model, mode):
    small_dataset()
    parts = sampled(build_small, model, mode, eval_batch_size=64)
    first = names_of_lists(parts)
    np.random.rand(100), torch.rand(100)
    assert names_of_lists(parts) == first
    again = sampled(build_small, model, mode, eval_batch_size=20)
    assert {name.split()[0]: lists for name, lists in names_of_lists(again).items()} == {
        name.split()[0]: lists for name, lists in first.items()
    }
    for targets, negatives in first.values():
        assert len(targets) == 1 and len(set(negatives)) == len(negatives) == 5
        assert not set(targets) & set(negatives)


def test_users_of_a_general_model_have_met_none_of_their_negatives(small_dataset, build_small):
    folder = small_dataset()
    rows = [line.split("\t")[:2] for line in (folder / "small.inter").read_text().splitlines()[1:]]
    parts = sampled(build_small, "BPR", "uni10", {"RS": [0.6, 0.2, 0.2]})
    for name, (targets, negatives) in names_of_lists(parts).items():
        met = {item for user, item in rows if user == name.split()[0]}
        assert set(targets) <= met and not set(negatives) & met
        assert len(negatives) == min(10 * len(targets), 30 - len(met))


def test_each_target_of_a_sequential_model_has_a_list_of_its_own(small_dataset, build_small):
    small_dataset()
    parts = sampled(build_small, "SASRec", "uni5", {"RS": [0.6, 0.2, 0.2]})
    lists = names_of_lists(parts)
    assert len(lists) == len(parts.test_data._dataset) > 40
    assert all(len(targets) == 1 for targets, _ in lists.values())
    trainer = build_trainer(parts.config, parts.model)
    trainer.evaluate(parts.test_data, load_best_model=False)
    rows, test = trainer.eval_collector.rows, parts.test_data._dataset.inter_feat
    assert rows.users.tolist() == test["user_id"].tolist() and rows.targets.tolist() == test["item_id"].tolist()


@pytest.mark.parametrize("mode", ["uni5", "pop5"])
@pytest.mark.parametrize("model", ["LLMSASRec", "BPR"])
def test_rows_keep_their_candidates_where_those_of_other_languages_are_left_out(
    small_dataset, build_small, model, mode
):
    small_dataset()
    split = {"LS": "valid_and_test"}
    every, some = (
        {(name.split()[0], targets[0]): negatives for name, (targets, negatives) in names_of_lists(parts).items()}
        for parts in (
            sampled(build_small, model, mode, split),
            sampled(build_small, model, mode, split, languages=["de"], language_of="target"),
        )
    )
    assert 0 < len(some) < len(every) and some.items() <= every.items()


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_as_many_negatives_as_items_rank_the_catalog(small_dataset, build_small, model, caplog):
    small_dataset()
    results = []
    for mode in ("full", "uni100"):
        parts = sampled(build_small, model, mode)
        results.append(build_trainer(parts.config, parts.model).evaluate(parts.test_data, load_best_model=False))
    assert results[0] == results[1]
    assert "all are taken" in caplog.text


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR"])
def test_a_loaded_run_meets_the_same_candidates(small_dataset, settings, model):
    small_dataset()
    changed = {"eval_args": {"mode": "uni5"}, "epochs": 1, "allow_unknown_keys": True}
    result = run(model, "small", config_dict={**settings, **changed})
    again = evaluate_run(result["run_dir"])
    assert again["test"] == result["test"] and again["slices"] == result["slices"]


@pytest.mark.parametrize("mode", ["uni5", "pop5"])
@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
def test_items_that_the_files_no_longer_have_are_not_drawn(small_dataset, settings, model, mode):
    folder = small_dataset()
    changed = {"eval_args": {"mode": mode}, "allow_unknown_keys": True}
    config = XLingConfig(model, "small", config_dict={**settings, **changed})
    known = replace(DataIdentity.of(build_data(config).train_data._dataset), same_ids=True)
    gone = {f"i{item}" for item in range(15)}
    for file, column in ((folder / "small.inter", 1), (folder / "small.item", 0)):
        header, *lines = file.read_text().splitlines()
        kept = [line for line in lines if line.split("\t")[column] not in gone]
        file.write_text("\n".join([header, *kept]) + "\n")
    lists = names_of_lists(build_data(config, known)).values()
    drawn = {item for _, negatives in lists for item in negatives}
    assert drawn and not drawn & gone


def test_history_is_left_out_of_the_negatives_on_demand(small_dataset, build_small):
    small_dataset()
    parts = sampled(build_small, "SASRec", "uni15", exclude_history=True)
    for batch, *_ in parts.test_data:
        for history, item, label in zip(batch["item_id_list"], batch["item_id"], batch["label"], strict=True):
            assert label == 1 or item not in history


def test_draws_follow_the_weights_and_ignore_the_numbers_of_items():
    weights = np.array([0.0, 1, 2, 0, 5])
    counts = collections.Counter()
    for seed in range(4000):
        counts.update(_Pool(["", "a", "b", "c", "d"], weights).draw(1, set(), np.random.default_rng(seed)).tolist())
    assert {item: count / 4000 for item, count in counts.items()} == pytest.approx(
        {1: 1 / 8, 2: 2 / 8, 4: 5 / 8}, abs=0.03
    )
    names, n = [f"i{number}" for number in range(1000)], 1000
    one = _Pool(["", *names], np.ones(n + 1)).draw(20, {3}, np.random.default_rng(0))
    other = _Pool(["", *names[::-1]], np.ones(n + 1)).draw(20, {n + 1 - 3}, np.random.default_rng(0))
    assert len(set(one.tolist())) == 20 and 3 not in one
    assert [names[item - 1] for item in one] == [names[::-1][item - 1] for item in other]
    skewed = np.append(0, np.append(1e12, np.ones(99)))
    assert sorted(_Pool(["", *names[:100]], skewed).draw(3, {1}, np.random.default_rng(0)).tolist())[0] > 1
