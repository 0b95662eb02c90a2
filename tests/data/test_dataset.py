"""XLingDataset gives RecBole's rows, in RecBole's order, with RecBole's histories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.dataset import SequentialDataset

from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset

SPLITS = {
    "leave two out": {"split": {"LS": "valid_and_test"}, "group_by": "user"},
    "leave one out for test": {"split": {"LS": "test_only"}, "group_by": "user"},
    "leave one out for validation": {"split": {"LS": "valid_only"}, "group_by": "user"},
    "ratio per user": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user"},
    "ratio per user, uneven": {"split": {"RS": [5, 3, 2]}, "group_by": "user"},
    "ratio over all": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "none"},
    "time boundary": {"split": {"TS": [0.8, 0.1, 0.1]}, "group_by": "user"},
}


def assert_same_splits(config) -> None:
    theirs = SequentialDataset(config).build()
    ours = XLingDataset(config).build()
    assert len(theirs) == len(ours) == 3
    for their, our in zip(theirs, ours, strict=True):
        assert len(our) == len(their)
        if not len(their):
            continue
        want, got = their[np.arange(len(their))], our[np.arange(len(our))]
        assert set(want.columns) == set(got.columns)
        for field in want.columns:
            assert torch.equal(want[field], got[field]), field


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("ties", [False, True], ids=["distinct times", "ties"])
def test_rows_equal_recbole_on_random_data(small_dataset, settings, split, ties):
    lengths = [1, 2, 3, 1, 2, 3, 20, 30, *np.random.default_rng(1).integers(1, 15, size=40)]
    small_dataset(n_users=len(lengths), n_items=9, lengths=lengths, ties=ties)  # 9 items: users meet items again
    eval_args = {**split, "order": "TO", "mode": "full"}
    assert_same_splits(XLingConfig("LLMSASRec", "small", config_dict={**settings, "eval_args": eval_args}))


@pytest.mark.parametrize("name", ["leave two out", "ratio per user"])
def test_rows_equal_recbole_on_ml_100k(tmp_path, settings, name):
    """Where each time is replaced by its place among all times: RecBole cannot tell Unix seconds apart."""
    table = pd.read_csv(f"{XLingConfig('LLMSASRec', 'ml-100k')['data_path']}/ml-100k.inter", sep="\t")
    table["timestamp:float"] = table["timestamp:float"].rank(method="dense")
    (tmp_path / "data" / "placed").mkdir(parents=True)
    table.to_csv(tmp_path / "data" / "placed" / "placed.inter", sep="\t", index=False)
    eval_args = {**SPLITS[name], "order": "TO", "mode": "full"}
    changed = {**settings, "eval_args": eval_args, "MAX_ITEM_LIST_LENGTH": 50, "load_col": {"inter": "*"}}
    assert_same_splits(XLingConfig("LLMSASRec", "placed", config_dict=changed))


def test_interaction_matrix_equals_recbole(small_dataset, settings):
    small_dataset(lengths=[1, 2, 3, *[9] * 37])
    config = XLingConfig("LLMSASRec", "small", config_dict=settings)
    their, our = SequentialDataset(config).build()[0], XLingDataset(config).build()[0]
    assert (their.inter_matrix().toarray() == our.inter_matrix().toarray()).all()


def test_sequences_are_shared_and_no_history_is_stored(small_dataset, settings):
    small_dataset()
    train, valid, test = XLingDataset(XLingConfig("LLMSASRec", "small", config_dict=settings)).build()
    assert train.sequence is valid.sequence is test.sequence
    assert all(values.dim() == 1 for values in train.inter_feat.interaction.values())


def test_train_item_counts_leave_out_what_is_held_out(small_dataset, settings):
    small_dataset(lengths=[1, 2, 3, 4] * 10)
    config = XLingConfig("LLMSASRec", "small", config_dict=settings)
    dataset = XLingDataset(config)
    everything = np.bincount(dataset.inter_feat["item_id"].to_numpy(), minlength=dataset.item_num)
    train, valid, test = dataset.build()
    held_out = sum(np.bincount(part.inter_feat["item_id"].numpy(), minlength=train.item_num) for part in (valid, test))
    # users with a single interaction have no row at all
    single = 10
    assert train.train_item_counts.sum() == everything.sum() - held_out.sum() - single
    assert (train.train_item_counts <= everything - held_out).all()
