"""XLingTwoTower on items with several texts: their mean, or what the reader sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shop import MARKETS, write_shop

from recbole_xling.config import XLingConfig
from recbole_xling.model import xlingtwotower as two_tower
from recbole_xling.quick_start.build import build
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import make_tiny_encoder, small_settings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def settings(tmp_path, encoder):
    write_shop(tmp_path / "data")
    own = {
        "encoder": encoder,
        "encoder_options": None,
        "encoder_max_length": 24,
        "peft": "lora",
        "lora_rank": 4,
        "load_col": None,
    }
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
    units = make(reader_vectors="reader").model.texts.served
    assert units.of_item.shape[0] == 3  # display, en, fr
    kinds = units.same[units.of_item]
    assert (kinds == kinds[0]).all()
    assert len(set(kinds[0, 1:].tolist())) == 24


@pytest.mark.device
@pytest.mark.parametrize("vectors", ["mean", "reader"])
def test_runs_train_test_and_load(settings, vectors):
    changed = {"reader_vectors": vectors, "centering": True, "hard_negatives": 2, "language_embedding": True}
    result = run("XLingTwoTower", "shop", config_dict={**settings, **changed, "alignment_weight": 0.1})
    assert result["n_test"] == 36 and result["readers"]["text_view"] == "reader"
    assert result["slices"]["cross_language=yes"]["n"] == 2


# ---- training sees other texts than evaluation ------------------------------------------------------------------


def spy(monkeypatch, seen):
    """Note what the loss is given."""
    loss = two_tower.in_batch_softmax
    monkeypatch.setattr(
        two_tower, "in_batch_softmax", lambda given, *options: seen.update(vars(given)) or loss(given, *options)
    )


@pytest.mark.parametrize(("kind", "vectors"), [("reader", "reader"), ("all", "mean")])
def test_training_is_that_of_a_run_that_is_evaluated_so(make, kind, vectors):
    wanted = make(reader_vectors=vectors, centering=True, language_embedding=True)
    parts = make(text_view="display", train_text_view=kind, centering=True, language_embedding=True)
    parts.model.load_state_dict(wanted.model.state_dict())
    batch = next(iter(wanted.train_data))
    want, got = (run_.model.eval().calculate_loss(batch) for run_ in (wanted, parts))
    torch.testing.assert_close(got, want)


def test_histories_and_candidates_have_the_texts_that_were_drawn(make, monkeypatch):
    """All items drawn in French, and those of histories in English."""
    parts, french, english = (
        make(train_text_view="random"),
        make(text_view="language:fr"),
        make(text_view="language:en"),
    )
    model, batch = parts.model, next(iter(parts.train_data))
    names = ["", *parts.dataset.catalog.training_views.own]
    drawn = [torch.full((parts.dataset.item_num,), names.index(language)) for language in ("en", "fr")]
    monkeypatch.setattr(model.training_views, "draw", lambda *number: tuple(drawn))
    inputs, seen = [], {}
    tower = model.user_tower.forward
    monkeypatch.setattr(model.user_tower, "forward", lambda *given: inputs.append(given[0]) or tower(*given))
    spy(monkeypatch, seen)
    model.eval().calculate_loss(batch)
    for other in (french, english):
        other.model.load_state_dict(model.state_dict())
    items, in_history = batch["item_id_list"], batch["item_id_list"] > 0
    torch.testing.assert_close(inputs[0][in_history], english.model.eval().item_table()[items[in_history]])
    target = batch["target_id_list"][batch["target_weight_list"] > 0]
    table = french.model.eval().item_table()
    torch.testing.assert_close(seen["items"][seen["target"][: len(target)]], table[target])
    present = torch.unique(torch.cat([items[in_history], target]))
    assert len(seen["items"]) == len(present)  # one text of each item


def test_the_softmax_over_all_items_has_each_in_the_text_that_was_drawn(make, monkeypatch):
    parts, seen = make(train_text_view="random", peft="frozen", popularity_prior=False), {}
    model = parts.model
    spy(monkeypatch, seen)
    with torch.no_grad():
        model.encoder.projection.weight.add_(0.1 * torch.randn_like(model.encoder.projection.weight))
    model.calculate_loss(next(iter(parts.train_data))[:4])
    scored = model.training_views.draw(model.seed, 0, 1)[1]
    trained = torch.from_numpy(parts.train_data._dataset.train_item_counts).nonzero()[:, 0]
    texts = torch.unique(model.texts.trained.of_item[scored[trained], trained])
    assert len(seen["items"]) == len(texts) > 20
    torch.testing.assert_close(seen["items"], model.encoder(model.texts.tokens, texts))


def test_an_item_is_no_negative_in_another_language(make, monkeypatch):
    parts = make(train_text_view="random", popularity_prior=False)
    model, seen = parts.model, {}
    spy(monkeypatch, seen)
    batch = next(iter(parts.train_data))
    model._step = 3
    model.calculate_loss(batch)
    scored = model.training_views.draw(model.seed, 3, 1)[1]
    items, target = batch["item_id_list"], batch["target_id_list"] * (batch["target_weight_list"] > 0)
    present = torch.cat([items.flatten(), target.flatten()])
    present = torch.unique(present[present > 0])
    units = torch.unique(model.texts.trained.of_item[scored[present], present])
    windows = [{*first, *second} - {0} for first, second in zip(items.tolist(), target.tolist(), strict=True)]
    for position, window in enumerate(torch.nonzero(target)[:, 0].tolist()):
        own = {int(model.texts.trained.of_item[scored[item], item]) for item in windows[window]}
        masked = seen["accidental_hit_mask"][position].nonzero()[:, 0]
        assert set(units[masked].tolist()) == own


@pytest.fixture
def without_german(settings):
    """Take the texts that everybody sees from some items, which are left with their French and English ones."""
    file = Path(settings["data_path"]) / "shop" / "shop.itemtext.jsonl"
    texts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    left = [text for text in texts if text["source"] != "display" or int(text["item_id"][1:]) not in range(2, 14)]
    file.write_text("".join(json.dumps(text) + "\n" for text in left), encoding="utf-8")


def test_own_items_are_no_negatives_where_some_readers_have_no_text_of_them(make, without_german, monkeypatch):
    parts, seen = make(reader_vectors="reader", popularity_prior=False, catalog_negatives=0), {}
    model, units = parts.model, parts.model.texts.trained
    assert int((units.of_item[0] == units.of_item[0, 0]).sum()) == 13  # German readers see nothing of 12 items
    spy(monkeypatch, seen)
    n_foreign = 0
    for batch in parts.train_data:
        model.calculate_loss(batch)
        items, target = batch["item_id_list"], batch["target_id_list"] * (batch["target_weight_list"] > 0)
        view = model.training_views.seen(batch["user_id"], torch.cat([items, target], dim=1), None)
        met, empty = torch.cat([items, target], dim=1), units.of_item[0, 0]
        candidates = torch.unique(units.of(met, view)[met > 0])
        windows = [*torch.nonzero(target)[:, 0].tolist(), *range(len(items))]
        assert len(windows) == len(seen["target"])
        for position, window in enumerate(windows):
            own = units.of_item[:, met[window][met[window] > 0]]
            is_own, is_text = torch.isin(candidates, own), candidates != empty
            assert torch.equal(seen["accidental_hit_mask"][position][is_text], is_own[is_text])
            n_foreign += int(torch.isin(candidates[is_text], own[:, own[0] == empty]).sum())
    assert n_foreign > 100


def test_the_empty_text_has_no_language(make, without_german):
    texts = make(reader_vectors="reader").model.texts
    empty = texts.trained.of_item[0, 0]
    assert texts.languages_of(torch.stack([empty, texts.trained.of_item[0, 1]])).tolist()[0] == 0
    assert (texts.languages_of(texts.trained.of_item.flatten().unique()) > 0).sum() == len(texts.text_language) - 1


def test_candidates_are_corrected_by_how_often_their_text_is_drawn(make):
    parts = make(train_text_view="random", popularity_prior=False, train_batch_size=16)
    model, n_batches = parts.model, 0
    present = torch.zeros(model.texts.trained.number)
    for epoch in range(150):
        parts.train_data.set_epoch(epoch)
        for batch in parts.train_data:
            items = torch.cat([batch["item_id_list"].flatten(), batch["target_id_list"].flatten()])
            items = torch.unique(items[items > 0])
            scored = model.training_views.draw(1, n_batches, 1)[1]
            present[torch.unique(model.texts.trained.of_item[scored[items], items])] += 1
            n_batches += 1
    often = present > 20
    assert often.sum() > 40
    expected = torch.exp(-model.logit_adjustment)[often]
    torch.testing.assert_close(expected, (present / n_batches)[often], rtol=0.35, atol=0.03)


@pytest.mark.device
def test_a_run_with_drawn_texts_trains_tests_and_loads(settings):
    changed = {"train_text_view": "random", "centering": True, "hard_negatives": 2, "language_embedding": True}
    result = run("XLingTwoTower", "shop", config_dict={**settings, **changed, "alignment_weight": 0.1})
    assert evaluate_run(result["run_dir"])["test"] == result["test"]
