"""RecBole's datasets are the same under pandas 2 and 3."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data import create_dataset
from recbole.utils import FeatureType

import recbole_xling  # noqa: F401

INTER = """user_id:token\titem_id:token\ttimestamp:float\tmood:token\ttags:token_seq
u1\ti1\t1\tgood\ta b
u1\ti2\t2\t\tb
u2\ti1\t3\tbad\t
"""
ITEM = """item_id:token\tyear:token\tprice:float\ttitle:token_seq\tvector:float_seq
i1\t1995\t10\tToy Story\t0.5 1.5
i2\tNA\t\t\t
i3\t1996\t20\tHeat\t2.5 3.5
"""


@pytest.fixture
def toy(config, tmp_path):
    """A function that reads a dataset with missing values of every kind."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text(INTER)
    (tmp_path / "toy" / "toy.item").write_text(ITEM)

    def read(**settings):
        return create_dataset(config(**({"filter_inter_by_user_or_item": False, "normalize_all": False} | settings)))

    return read


def test_missing_values_are_filled(toy):
    dataset = toy()
    assert dataset.inter_feat["mood"].tolist() == [1, 0, 2]
    assert [tags.tolist() for tags in dataset.inter_feat["tags"]] == [[1, 2], [2], []]
    items = dataset.item_feat  # row 0 is the padding item, of which everything is missing
    assert items["year"].tolist() == [0, 1, 0, 2]
    assert items["price"].tolist() == [15, 10, 15, 20]
    assert [len(title) for title in items["title"]] == [0, 2, 0, 1]
    dataset._change_feat_format()
    assert dataset.item_feat["title"].tolist() == [[0, 0], [1, 2], [0, 0], [3, 0]]
    assert dataset.item_feat["vector"].tolist() == [[0, 0], [0.5, 1.5], [0, 0], [2.5, 3.5]]
    assert dataset.item_feat["price"].dtype == torch.float32


def test_tensors_do_not_share_the_frame(toy):
    dataset = toy()
    frame = dataset.inter_feat
    tensor = dataset._dataframe_to_interaction(frame)["user_id"]
    tensor[0] = 99
    assert frame["user_id"].tolist() == [1, 1, 2] or int(pd.__version__.split(".")[0]) < 3


def test_normalized_and_discretized_sequences_keep_their_lengths(toy):
    normalized = toy(normalize_field=["vector"]).item_feat["vector"]
    assert [row.tolist() for row in normalized] == [[], pytest.approx([0, 1 / 3]), [], pytest.approx([2 / 3, 1])]
    settings = {"numerical_features": ["vector"], "discretization": {"vector": {"method": "ED", "bucket": 2}}}
    discretized = toy(**settings).item_feat["vector"]
    assert [len(index) for _, index in discretized] == [0, 2, 0, 2]
    plain_numerical = toy(numerical_features=["vector"]).item_feat["vector"]
    assert [len(index) for _, index in plain_numerical] == [0, 2, 0, 2]


def test_benchmark_sequences_get_their_lengths(config, tmp_path):
    (tmp_path / "ready").mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / "ready" / f"ready.{part}.inter").write_text(
            "user_id:token\titem_id_list:token_seq\titem_id:token\nu1\ti1 i2 i3\ti4\nu2\ti2\ti1\n"
        )
    settings = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    dataset = create_dataset(config("SASRec", "ready", train_neg_sample_args=None, **settings))
    assert dataset.inter_feat["item_length"].tolist() == [3, 1] * 3


def test_entity_sequences_keep_their_lengths():
    from recbole.data.dataset import KnowledgeBasedDataset

    frame = pd.DataFrame({"e": [np.array([1, 2]), np.array([], dtype=int), np.array([1])]})
    fields = SimpleNamespace(
        field2id_token={}, field2token_id={}, field2type={"e": FeatureType.TOKEN_SEQ}, field2feats=lambda _: [frame]
    )
    KnowledgeBasedDataset._reset_ent_remapID(fields, "e", np.array([0, 10, 20]), None, None)
    assert [row.tolist() for row in frame["e"]] == [[10, 20], [], [10]]
