"""XLingMLP: the contract of models, what its features do, labels and interactions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from shop import write_shop
from torch import nn

from recbole_xling.config import XLingConfig
from recbole_xling.errors import CheckpointError, DataError
from recbole_xling.model.layers.feature_columns import FeatureColumns
from recbole_xling.model.xlingmlp import XLingMLP
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import ModelContract, small_settings, write_small_dataset

LABELED = {
    "threshold": {"rating": 3},
    "train_neg_sample_args": None,
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "RO", "group_by": "user", "mode": "labeled"},
}


def mlp_settings(folder):
    """Settings of a run on the small dataset, without those of models with a history."""
    settings = small_settings(folder)
    del settings["MAX_ITEM_LIST_LENGTH"]
    return {**settings, "embedding_size": 8, "text_size": 8, "mlp_hidden_size": [16, 8]}


class TestContract(ModelContract):
    model = "XLingMLP"
    variants = {
        "all features": {},
        "text alone": {"features": ["text"]},
        "labels": {"threshold": {"rating": 3}, "train_neg_sample_args": None},
    }
    test_overfits_a_small_set = None  # by the next item, which it does not tell; see below

    @pytest.fixture
    def base_settings(self, tmp_path):
        return mlp_settings(tmp_path)


@pytest.fixture
def make(tmp_path):
    """Return a function that builds the model on the small dataset, or on one that was written before."""

    def built(**changed):
        if not (tmp_path / "data" / "small").is_dir():
            write_small_dataset(tmp_path / "data")
        return build(XLingConfig("XLingMLP", "small", config_dict={**mlp_settings(tmp_path), **changed}))

    return built


def with_profiles(folder):
    """Write users' languages and ages, items' tags and years, and a second text for items in German."""
    data = write_small_dataset(folder / "data")
    users = "\n".join(f"u{i}\t{'de' if i % 2 else 'en'}\t{20 + i}" for i in range(40))
    (data / "small.user").write_text(f"user_id:token\tuser_language:token\tage:float\n{users}\n")
    items = "\n".join(f"i{i}\t{('de', 'en', 'fr')[i % 3]}\t{'a b' if i % 2 else 'b'}\t{1990 + i}" for i in range(30))
    (data / "small.item").write_text(f"item_id:token\titem_language:token\ttags:token_seq\tyear:float\n{items}\n")
    with open(data / "small.itemtext.jsonl", "a", encoding="utf-8") as file:
        for item in range(1, 30, 3):  # English ones
            text = {"title": f"Auf Deutsch {item}"}
            record = {"item_id": f"i{item}", "language": "de", "fields": text, "source": "parallel"}
            file.write(json.dumps(record) + "\n")
    return {
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "timestamp"],
            "user": ["user_id", "user_language", "age"],
            "item": ["item_id", "item_language", "tags", "year"],
        },
        "reader_vectors": "reader",
    }


def test_the_padding_item_has_no_score(make):
    parts = make()
    rows = parts.test_data._dataset[np.arange(4)]
    with torch.no_grad():
        assert parts.model.eval().full_sort_predict(rows).view(4, -1)[:, 0].isneginf().all()
        rows["item_id"] = torch.zeros_like(rows["item_id"])
        assert parts.model.predict(rows).isneginf().all()


def test_scores_are_the_formula(make, tmp_path):
    parts = make(**with_profiles(tmp_path))
    model, dataset, catalog = parts.model.eval(), parts.train_data._dataset, parts.context
    assert (model.user_columns.names, model.item_columns.names) == (["age"], ["tags", "year"])
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-0.5, 0.5)
        users = {name: number for number, name in enumerate(dataset.field2id_token["user_id"])}
        items = {name: number for number, name in enumerate(dataset.field2id_token["item_id"])}
        ages, years = (torch.arange(n, dtype=torch.float) for n in (40, 30))
        table = dataset.get_item_feature()
        for user, item in (("u1", "i1"), ("u2", "i1"), ("u3", "i3"), ("u4", "i5")):
            u, i = users[user], items[item]
            spoken = torch.tensor([catalog.user_languages[u]] == ["de"])
            reads = model.reads.weight[model.user_language[u]]
            sees_german = user in ("u1", "u3")  # i1 has a German text, i3 is German
            view = int(model.view[u])
            assert spoken == (int(user[1]) % 2 == 1) and (view > 0) == bool(spoken)
            shown = model.item_language[view, i]
            assert (shown == model.user_language[users["u1"]]) == sees_german
            tags = model.item_columns.vectors["0"](table["tags"][i]).sum(0) / (2 if int(item[1:]) % 2 else 1)
            age = (int(user[1:]) - ages.mean()) / ages.std() * model.user_columns.vectors["0"].weight[:, 0]
            year = (int(item[1:]) - years.mean()) / years.std() * model.item_columns.vectors["1"].weight[:, 0]
            text = model.text_projection(model.text_vectors[model.text_row[view, i]])
            of_user = torch.cat([model.users.weight[u], reads, age])
            of_item = torch.cat([model.items.weight[i], model.is_in.weight[shown], text, tags, year])
            x = torch.cat([of_user, of_item])
            first = torch.cat([model.of_user.weight, model.of_item.weight], dim=1) @ x + model.of_user.bias
            second = model.further[1](first.relu()).relu()
            expected = model.head(second).sigmoid()[0]
            score = model.full_sort_predict({"user_id": torch.tensor([u])})[0, i]
            torch.testing.assert_close(score, expected, atol=1e-5, rtol=1e-4)
    assert not torch.equal(
        model.text_vectors[model.text_row[int(model.view[users["u1"]]), items["i1"]]],
        model.text_vectors[model.text_row[0, items["i1"]]],
    ), "the reader of German has another text"


def test_the_loss_is_the_binary_cross_entropy_of_labels(make):
    parts = make(**LABELED)
    rows = next(iter(parts.train_data))
    model = parts.model.eval()
    with torch.no_grad():
        probability = model.predict(rows).double()
        label = rows["label"].double()
        expected = -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()
        torch.testing.assert_close(model.calculate_loss(rows).double(), expected, atol=1e-6, rtol=1e-5)
    assert set(label.tolist()) == {0.0, 1.0}


def test_interactions_are_ones_and_sampled_items_zeros(make):
    parts = make(train_neg_sample_args={"distribution": "uniform", "sample_num": 3})
    rows = next(iter(parts.train_data))
    known = set(
        zip(*(parts.train_data._dataset.inter_feat[name].tolist() for name in ("user_id", "item_id")), strict=True)
    )
    pairs = zip(rows["user_id"].tolist(), rows["item_id"].tolist(), rows["label"].tolist(), strict=True)
    assert all((label == 1) == ((user, item) in known) for user, item, label in pairs)
    assert float(rows["label"].mean()) == 0.25


@pytest.mark.parametrize("features", [["user_id", "item_id"], ["user_id", "text"]])
def test_learns_what_each_user_likes(make, features):
    changed = {**LABELED, "features": features, "dropout_prob": 0.0, "id_dropout_prob": 0.0, "epochs": 150}
    parts = make(**changed, learning_rate=0.01)
    trainer = build_trainer(parts.config, parts.model)
    trainer.fit(parts.train_data, saved=False, verbose=False)
    rows = parts.train_data._dataset.inter_feat
    with torch.no_grad():
        wrong = (parts.model.eval().predict(rows) > 0.5).float() != rows["label"]
    assert float(wrong.float().mean()) < 0.02


def test_ids_without_training_count_as_unknown(make, tmp_path):
    data = write_small_dataset(tmp_path / "data")
    with open(data / "small.item", "a") as file:
        file.write("new\tde\n")
    parts = make(features=["user_id", "item_id", "language"])
    model, rows = parts.model.eval(), {"user_id": torch.tensor([1, 2])}
    new, known = (parts.dataset.token2id("item_id", token) for token in ("new", "i1"))
    with torch.no_grad():
        before = model.full_sort_predict(rows)
        model.items.weight[new] += 1
        assert torch.equal(model.full_sort_predict(rows), before)
        model.items.weight[known] += 1
        assert not torch.equal(model.full_sort_predict(rows)[:, known], before[:, known])


@pytest.mark.device
def test_languages_and_texts_alone_serve_another_dataset(tmp_path):
    settings = mlp_settings(tmp_path)
    write_small_dataset(tmp_path / "data")
    write_small_dataset(tmp_path / "data", "other", n_users=20, n_items=25, seed=3)
    trained = run("XLingMLP", "small", config_dict={**settings, "features": ["language", "text"]})
    found = evaluate_run(trained["run_dir"], "other")
    assert found["zero_shot"] and found["n_test"] == 20
    bound = run("XLingMLP", "small", config_dict={**settings, "features": ["item_id", "columns"]})
    with pytest.raises(CheckpointError, match="features has item_id; features has columns"):
        evaluate_run(bound["run_dir"], "other")


def test_a_number_that_changes_moves_no_other_item(tmp_path):
    settings = {**mlp_settings(tmp_path), **with_profiles(tmp_path)}
    folder = run("XLingMLP", "small", config_dict=settings)["run_dir"]

    def scores():
        loaded = load_run(folder)
        item = list(loaded.dataset.field2id_token["item_id"]).index("i7")
        found = loaded.model.full_sort_predict({"user_id": torch.arange(1, 6)})
        return found[:, item].clone(), found[:, [other for other in range(1, found.shape[1]) if other != item]]

    with torch.no_grad():
        before = scores()
        file = tmp_path / "data" / "small" / "small.item"
        file.write_text(file.read_text().replace("\t1997\n", "\t1997000\n"))
        after = scores()
    assert torch.equal(before[1], after[1]) and not torch.equal(before[0], after[0])


def test_a_column_that_is_constant_in_training_keeps_what_differs_later_small():
    table = Interaction({"item_id": torch.arange(4), "year": torch.tensor([0.0, 5, 5, 5])})
    dataset = SimpleNamespace(field2type={"item_id": FeatureType.TOKEN, "year": FeatureType.FLOAT})
    columns = FeatureColumns(dataset, table, ["item_id"], 2)
    torch.testing.assert_close(columns.scales["year"], torch.tensor([5.0, 1.0]))


@pytest.mark.device
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    settings = {**mlp_settings(tmp_path), "epochs": 4}
    write_small_dataset(tmp_path / "data")
    whole = run("XLingMLP", "small", config_dict=settings)

    calls, loss = [], XLingMLP.calculate_loss
    n_batches = len(build(XLingConfig("XLingMLP", "small", config_dict=settings)).train_data)

    def stopped(model, rows):
        calls.append(1)
        if len(calls) > 2 * n_batches:
            raise KeyboardInterrupt
        return loss(model, rows)

    with monkeypatch.context() as patch:
        patch.setattr(XLingMLP, "calculate_loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("XLingMLP", "small", config_dict=settings)
    begun = next(path.parent for path in (tmp_path / "saved").rglob("last.pt") if str(path.parent) != whole["run_dir"])
    again = run(arguments=[f"--resume={begun}"])
    first, second = (load_run(folder["run_dir"]).model.state_dict() for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_texts_the_text_is_refused(make, tmp_path):
    write_small_dataset(tmp_path / "data", item_text=False)
    with pytest.raises(DataError, match="item"):
        make()
    assert isinstance(make(features=["user_id", "item_id", "language"]).model, nn.Module)


@pytest.mark.device
def test_results_of_labels_per_language(tmp_path):
    settings = {**mlp_settings(tmp_path), **with_profiles(tmp_path), **LABELED}
    result = run("XLingMLP", "small", config_dict=settings)
    rows = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    assert result["n_test"] == rows.height == sum(result["slices"][f"user_language={tag}"]["n"] for tag in ("de", "en"))
    for tag in ("de", "en"):
        part = rows.filter(rows["user_language"] == tag)
        score, label = part["score"].to_numpy(), part["label"].to_numpy()
        pairs = score[label == 1][:, None] - score[label == 0]
        auc = float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
        loss = float(-np.mean(label * np.log(score) + (1 - label) * np.log(1 - score)))
        found = result["slices"][f"user_language={tag}"]
        assert found["auc"] == pytest.approx(auc, abs=1e-9) and found["logloss"] == pytest.approx(loss, rel=1e-6)
    assert "target_language=de" in result["slices"] and result["slices"]["language_macro"]["auc"] > 0


def test_views_of_training_are_not_read(tmp_path):
    """What readers of other languages see here is the mean of an item's texts, whatever texts others train on."""
    write_shop(tmp_path / "data")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id"], "item": ["item_id"]}
    known = {**mlp_settings(tmp_path), "text_view": "reader", "features": ["language", "text"], "load_col": columns}
    parts = [
        build(XLingConfig("XLingMLP", "shop", config_dict={**known, **changed}))
        for changed in ({}, {"train_text_view": "random"})
    ]
    parts[1].model.load_state_dict(parts[0].model.state_dict())
    rows = [part.test_data._dataset[np.arange(36)] for part in parts]
    scores = [part.model.eval().full_sort_predict(row) for part, row in zip(parts, rows, strict=True)]
    torch.testing.assert_close(*scores)
