"""Item vectors of items with several texts: their mean, or what the reader sees."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from shop import write_shop

from recbole_xling.config import XLingConfig
from recbole_xling.data.loader import TARGET_WEIGHT
from recbole_xling.quick_start.build import build
from recbole_xling.quick_start.train import run

TEXT_ONLY = {"item_representation": "text_only", "text_projection": "linear", "hidden_size": 16, "n_layers": 1}
DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


@pytest.fixture
def make(tmp_path, settings):
    write_shop(tmp_path / "data")
    return lambda **changed: build(
        XLingConfig("LLMSASRec", "shop", config_dict={**settings, **TEXT_ONLY, **DROPOUT, "load_col": None, **changed})
    )


def users_of(parts, market):
    tokens = parts.dataset.field2id_token["user_id"]
    return [int(str(token)[1:]) % 3 == market if token != "[PAD]" else False for token in tokens]


def test_the_mean_of_an_items_texts_is_as_long_as_they_are(make):
    several, *single = (
        make(text_view=view).dataset.catalog.vectors for view in ("auto", "display", "language:fr", "language:en")
    )
    np.testing.assert_allclose(np.linalg.norm(several[1:], axis=1), 1, rtol=1e-5)
    for item, token in enumerate(make().dataset.field2id_token["item_id"]):
        if token not in ("[PAD]", "i0", "i1"):
            mean = sum(vectors[item] for vectors in single)
            np.testing.assert_allclose(several[item], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
        elif token == "i0":  # it has no French text: its two texts count once each
            mean = single[0][item] + single[2][item]
            np.testing.assert_allclose(several[item], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    assert (several[0] == 0).all()


@pytest.mark.parametrize("changed", [{}, {"loss_type": "sampled_softmax"}], ids=["CE", "sampled"])
@pytest.mark.parametrize("representation", ["text_only", "delta"])
def test_a_reader_is_scored_and_trained_by_the_texts_of_his_language(make, representation, changed):
    changed = {**changed, "item_representation": representation, "id_dropout_prob": 0.0}
    by_reader = make(reader_vectors="reader", **changed)
    batch, rows = next(iter(by_reader.train_data)), by_reader.test_data._dataset[np.arange(36)]
    losses = []
    for market, language in enumerate(("de", "fr", "en")):
        of_language = make(text_view=f"language:{language}", **changed)
        of_language.model.load_state_dict(by_reader.model.state_dict())
        mine = torch.tensor(users_of(by_reader, market))
        there, here = rows[mine[rows["user_id"]]], batch[mine[batch["user_id"]]]
        with torch.no_grad():
            want, got = (run.model.eval().full_sort_predict(there) for run in (of_language, by_reader))
            torch.testing.assert_close(got, want)
            torch.testing.assert_close(by_reader.model.predict(there), got[torch.arange(len(got)), there["item_id"]])
            torch.manual_seed(1)
            losses.append(of_language.model.train().calculate_loss(here))
            torch.manual_seed(1)
            torch.testing.assert_close(by_reader.model.train().calculate_loss(here), losses[-1])
    if not changed.get("loss_type"):  # negatives are drawn from the whole batch
        torch.testing.assert_close(by_reader.model.train().calculate_loss(batch), torch.stack(losses).sum())
    together = by_reader.model.eval().full_sort_predict(rows)
    assert len(together) == 36 and torch.isfinite(together[:, 1:]).all()
    assert batch[TARGET_WEIGHT].sum() == pytest.approx(1)


def test_the_language_of_an_item_is_that_of_the_view(make):
    by_reader = make(reader_vectors="reader", item_language_embedding=True)
    languages = by_reader.model.items.language_ids  # de, en, fr: 1, 2, 3
    assert [set(row[1:].tolist()) for row in languages] == [{1}, {1, 2}, {1, 3}]
    assert make(item_language_embedding=True).model.items.language_ids.shape[0] == 1


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path, settings, run_two):
    write_shop(tmp_path / "data", "small")
    changed = {**settings, **TEXT_ONLY, **DROPOUT, "load_col": None, "reader_vectors": "reader", "train_batch_size": 8}
    done = run_two("LLMSASRec", changed)
    assert done.returncode == 0, done.stderr
    two, one = json.loads(done.stdout.splitlines()[-1]), run("LLMSASRec", "small", config_dict=changed)
    assert two["readers"] == one["readers"]
    assert two["test"]["ndcg@10"] == pytest.approx(one["test"]["ndcg@10"], abs=0.02)
    assert two["slices"].keys() == one["slices"].keys()
