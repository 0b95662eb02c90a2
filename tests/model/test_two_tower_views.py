"""XLingTwoTower on items with several texts: their mean, or what the reader sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shop import MARKETS, write_shop

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import build
from recbole_xling.quick_start.train import run
from recbole_xling.testing import make_tiny_encoder, small_settings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def settings(tmp_path, encoder):
    write_shop(tmp_path / "data")
    own = {"encoder": encoder, "encoder_options": None, "encoder_max_length": 24, "lora_rank": 4, "load_col": None}
    return {**small_settings(tmp_path), **own, "centering": False, "epochs": 1, "topk": [10]}


@pytest.fixture
def make(settings):
    return lambda **changed: build(XLingConfig("XLingTwoTower", "shop", config_dict={**settings, **changed}))


def test_a_reader_is_scored_and_trained_by_the_texts_of_his_language(make):
    by_reader = make(reader_vectors="reader")
    rows, batch = by_reader.test_data._dataset[np.arange(36)], next(iter(by_reader.train_data))
    tokens = by_reader.dataset.field2id_token["user_id"]
    scores = by_reader.model.eval().full_sort_predict(rows)
    for market, language in enumerate(MARKETS.values()):
        of_language = make(text_view=f"language:{language}")
        of_language.model.load_state_dict(by_reader.model.state_dict())
        mine = torch.tensor([token != "[PAD]" and int(str(token)[1:]) % 3 == market for token in tokens])
        there = mine[rows["user_id"]]
        torch.testing.assert_close(scores[there], of_language.model.eval().full_sort_predict(rows[there]))
        torch.testing.assert_close(
            by_reader.model.predict(rows)[there], scores[there, rows["item_id"][there]], rtol=1e-4, atol=1e-5
        )
        here = batch[mine[batch["user_id"]]]
        # constants of candidates differ by how often a batch has them, which other markets' customers count for
        for run_ in (of_language, by_reader):
            run_.model.logit_adjustment.zero_()
        want, got = (run_.model.eval().calculate_loss(here) for run_ in (of_language, by_reader))
        torch.testing.assert_close(got, want)


def test_the_mean_of_an_items_texts_has_unit_length(make):
    tables = [make(text_view=view).model.eval().item_table() for view in ("display", "language:fr", "language:en")]
    parts = make()
    several = parts.model.eval().item_table()
    tokens = list(parts.dataset.field2id_token["item_id"])
    for item, token in enumerate(tokens[1:], start=1):
        distinct = [table[item] for table, skip in zip(tables, (None, "i0", "i1"), strict=True) if token != skip]
        torch.testing.assert_close(several[item], F.normalize(sum(distinct), dim=-1), rtol=1e-4, atol=1e-5)
    batch = next(iter(parts.train_data))
    assert torch.isfinite(parts.model.calculate_loss(batch))


def test_texts_of_one_item_are_the_same_and_empty_texts_link_nothing(make):
    units = make(reader_vectors="reader").model.units
    assert units.of_item.shape[0] == 3  # display, en, fr
    kinds = units.same[units.of_item]
    assert (kinds == kinds[0]).all()
    assert len(set(kinds[0, 1:].tolist())) == 24


@pytest.mark.parametrize("vectors", ["mean", "reader"])
def test_runs_train_test_and_load(settings, vectors):
    changed = {"reader_vectors": vectors, "centering": True, "hard_negatives": 2, "language_embedding": True}
    result = run("XLingTwoTower", "shop", config_dict={**settings, **changed, "alignment_weight": 0.1})
    assert result["n_test"] == 36 and result["readers"]["text_view"] == "reader"
    assert result["slices"]["cross_language=yes"]["n"] == 2
