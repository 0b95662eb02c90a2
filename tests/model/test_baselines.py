"""Baselines: equal to RecBole's where users are known, and as good for those that training has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.errors import CheckpointError
from recbole_xling.model.baselines import mean_of_texts
from recbole_xling.model.layers.item_representation import whiten
from recbole_xling.quick_start.build import build, load_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing import ModelContract, small_settings, write_small_dataset


class _WithoutWeights(ModelContract):
    """The contract without what only training can keep."""

    def test_trains(self, parts):
        assert parts.model.calculate_loss(next(iter(parts.train_data))) == 0
        assert not list(parts.model.parameters())

    test_overfits_a_small_set = None


class TestContentKNN(_WithoutWeights):
    model = "ContentKNN"
    settings = {"history_decay": 0.8}
    variants = {"centered": {}, "white": {"text_whitening": True}}


class TestHistoryEASE(_WithoutWeights):
    model = "HistoryEASE"


class TestContentEASE(_WithoutWeights):
    model = "ContentEASE"
    variants = {"texts": {}, "ids": {"text_weight": 0.0}}


class TestHistoryItemKNN(_WithoutWeights):
    model = "HistoryItemKNN"
    settings = {"k": 4, "history_decay": 0.9}


class TestLanguagePop(_WithoutWeights):
    model = "LanguagePop"


@pytest.fixture
def scores_of(tmp_path):
    """Return a function that gives users, histories and scores of the test rows of a model."""

    def score(model, **changed):
        settings = {**small_settings(tmp_path), "MAX_ITEM_LIST_LENGTH": 20, **changed}
        parts = build(XLingConfig(model, "small", config_dict=settings))
        loader = parts.test_data
        rows = loader._dataset[np.arange(len(loader._dataset))] if loader.is_sequential else loader.user_df
        scores = torch.as_tensor(parts.model.full_sort_predict(rows)).view(len(rows), -1)
        names = parts.dataset.field2id_token
        users = [names["user_id"][user] for user in rows["user_id"]]
        return parts, users, rows, dict(zip(users, scores, strict=True))

    return score


@pytest.mark.parametrize(
    ("ours", "theirs", "changed"),
    [
        ("HistoryEASE", "EASE", {"reg_weight": 3.0}),
        ("HistoryItemKNN", "ItemKNN", {"k": 5, "shrink": 2.0}),
    ],
)
def test_users_whose_history_is_their_training_get_recboles_scores(tmp_path, scores_of, ours, theirs, changed):
    lengths = np.random.default_rng(0).integers(4, 9, 40)
    write_small_dataset(tmp_path / "data", lengths=lengths)
    changed = {**changed, "eval_args": {"split": {"LS": "test_only"}}, "epochs": 1}  # all but the last is trained
    parts, _, _, own = scores_of(ours, **changed)
    other, _, _, recbole = scores_of(theirs, **changed)
    for user, found in own.items():
        names = parts.dataset.field2id_token["item_id"]
        same = [other.dataset.field2token_id["item_id"][token] for token in names[1:]]
        torch.testing.assert_close(found[1:].float(), recbole[user][same].float(), rtol=1e-3, atol=1e-5)


def _write_readers(tmp_path):
    """Write readers of German, the first half, and of French, who see the same items."""
    folder = write_small_dataset(tmp_path / "data", n_users=40, lengths=[6] * 40)
    users = [f"u{user}\t{'de' if user < 20 else 'fr'}" for user in range(40)]
    (folder / "small.user").write_text("\n".join(["user_id:token\tuser_language:token", *users]) + "\n")


TRANSFER = {"eval_args": {"split": {"LT": {"source": ["de"], "target": ["fr"], "by": "user"}}}}


def test_readers_that_training_has_not_seen_are_served_by_their_history(tmp_path, scores_of):
    _write_readers(tmp_path)
    for model in ("HistoryEASE", "HistoryItemKNN"):
        _, users, _, own = scores_of(model, **TRANSFER)
        assert len(users) == 20
        assert all(found[1:].std() > 0 for found in own.values())


def test_similarities_of_ease_are_those_of_its_closed_form(tmp_path, scores_of):
    write_small_dataset(tmp_path / "data")
    parts, _, rows, own = scores_of("HistoryEASE", reg_weight=7.0, history_decay=0.5)
    matrix = parts.train_data._dataset.inter_matrix().toarray()
    inverse = np.linalg.inv(matrix.T @ matrix + 7.0 * np.eye(matrix.shape[1]))
    weights = np.eye(matrix.shape[1]) - inverse / np.diag(inverse)
    length = int(rows["item_length"][0])
    history = rows["item_id_list"][0][:length].numpy()
    want = sum(0.5 ** (length - 1 - place) * weights[item] for place, item in enumerate(history))
    np.testing.assert_allclose(next(iter(own.values()))[1:], want[1:], atol=1e-5)


def test_texts_count_as_further_users(tmp_path, scores_of):
    """By its definition: ridge regression of each item's column on those of all others, interactions above texts."""
    write_small_dataset(tmp_path / "data")
    raw = {"centering": False, "text_whitening": False}
    parts, _, rows, own = scores_of("ContentEASE", reg_weight=2.0, text_weight=5.0, **raw)
    matrix = parts.train_data._dataset.inter_matrix().toarray()
    vectors = parts.dataset.catalog.vectors
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    columns = np.concatenate([matrix, 5**0.5 * unit.T])[:, 1:]  # without the padding item
    others = ~np.eye(columns.shape[1], dtype=bool)
    weights = np.zeros(others.shape)
    for item, rest in enumerate(others):
        known = columns[:, rest]
        penalized = known.T @ known + 2.0 * np.eye(rest.sum())
        weights[rest, item] = np.linalg.solve(penalized, known.T @ columns[:, item])
    history = rows["item_id_list"][0][: int(rows["item_length"][0])].numpy()
    np.testing.assert_allclose(next(iter(own.values()))[1:], weights[history - 1].sum(axis=0), atol=1e-5)


def test_without_weight_texts_do_not_count(tmp_path, scores_of):
    write_small_dataset(tmp_path / "data")
    *_, ids = scores_of("HistoryEASE", reg_weight=4.0)
    *_, both = scores_of("ContentEASE", reg_weight=4.0, text_weight=0.0)
    for user, found in ids.items():
        torch.testing.assert_close(both[user], found)


@pytest.mark.parametrize("changed", [{"MAX_ITEM_LIST_LENGTH": 1}, {"unused_col": {"inter": ["rating"]}}])
def test_each_training_interaction_counts_once(tmp_path, scores_of, changed):
    write_small_dataset(tmp_path / "data")
    parts, *_ = scores_of("HistoryEASE", **changed)
    users, items = parts.train_data._dataset.training_pairs()
    assert parts.model.matrix.sum() == len(users)
    np.testing.assert_array_equal(parts.model.matrix.sum(axis=0).A1, np.bincount(items, minlength=parts.model.n_items))


def test_content_is_the_cosine_with_the_mean_of_the_history(tmp_path, scores_of):
    write_small_dataset(tmp_path / "data")
    changed = {"centering": False, "text_whitening": True, "history_decay": 0.5}
    parts, _, rows, own = scores_of("ContentKNN", **changed)
    vectors = whiten(parts.dataset.catalog.vectors)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    length = int(rows["item_length"][3])
    history = rows["item_id_list"][3][:length].numpy()
    user = sum(0.5 ** (length - 1 - place) * unit[item] for place, item in enumerate(history))
    want = unit @ user / np.linalg.norm(user)
    np.testing.assert_allclose(list(own.values())[3][1:], want[1:], atol=1e-5)


def test_popularity_is_that_among_readers_of_the_language(tmp_path, scores_of):
    _write_readers(tmp_path)
    parts, users, _, own = scores_of("LanguagePop")
    train = parts.train_data._dataset
    names = train.field2id_token["user_id"]
    german = np.array([name != "[PAD]" and int(name[1:]) < 20 for name in names])
    counts = train.inter_matrix().toarray()
    for user in (users[0], users[-1]):
        group = counts[german if int(user[1:]) < 20 else ~german].sum(axis=0)
        want = group + counts.sum(axis=0) / (1 + counts.sum(axis=0).max())
        np.testing.assert_allclose(own[user][1:], want[1:], rtol=1e-5)
    parts, _, _, own = scores_of("LanguagePop", **TRANSFER)  # nobody in training reads French
    counts = parts.train_data._dataset.inter_matrix().toarray().sum(axis=0)
    for found in own.values():
        assert np.array_equal(np.argsort(-found[1:], stable=True), np.argsort(-counts[1:], kind="stable"))


@pytest.mark.device
def test_a_loaded_run_does_not_take_up_other_interactions(tmp_path):
    folder = write_small_dataset(tmp_path / "data")
    result = run("HistoryEASE", "small", config_dict=small_settings(tmp_path))
    file = Path(folder / "small.inter")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-9], *(line.replace("\ti", "\ti1") for line in lines[-9:])]) + "\n")
    with pytest.raises(CheckpointError):
        load_run(result["run_dir"])


def test_each_different_text_of_an_item_counts_once():
    one, other = (torch.nn.functional.normalize(torch.tensor(part), dim=-1) for part in ([1.0, 0.2], [0.1, 1.0]))
    nothing = torch.zeros(2)
    near = torch.nn.functional.normalize(one + 0.01 * other, dim=-1)  # the same text, centered by others
    tables = torch.stack([torch.stack(view) for view in ((one, one), (other, near), (near, one), (one, nothing))])
    text = torch.tensor([[5, 5], [3, 5], [5, 5], [5, 0]])
    expected = torch.nn.functional.normalize(torch.stack([one + other, one]), dim=-1)
    torch.testing.assert_close(mean_of_texts(tables, text), expected)


def test_a_model_that_is_not_trained_says_that_settings_of_training_do_nothing(small_dataset, settings, caplog):
    small_dataset()
    known = {key: value for key, value in settings.items() if not key.startswith(("hidden", "inner", "attn"))}
    build(XLingConfig("HistoryEASE", "small", config_dict={**known, "train_history": "set", "history_mask": 0.5}))
    assert "without effect on HistoryEASE beside the other settings: train_history=set, history_mask=0.5" in caplog.text
