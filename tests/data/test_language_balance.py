"""Balancing languages: how often windows are drawn, what targets weigh, and training on one language alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.language_balance import LanguageBalance, RowLanguages
from recbole_xling.data.loader import FIRST_WEIGHT, TARGET_LIST, TARGET_WEIGHT, WindowLoader
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.quick_start.build import build

READERS = {"de": 60, "fr": 15, "it": 5}


@pytest.fixture
def balanced(small_dataset, settings):
    """Return a function that makes the loader of a dataset whose readers state three languages of different sizes."""
    folder = small_dataset(n_users=80, lengths=np.random.default_rng(1).integers(4, 14, size=80))
    names = [language for language, n in READERS.items() for _ in range(n)]
    lines = [f"u{user}\t{language}" for user, language in enumerate(names)]
    (folder / "small.user").write_text("\n".join(["user_id:token\tuser_language:token", *lines]) + "\n")

    def make(**changed):
        config = XLingConfig("LLMSASRec", "small", config_dict={**settings, **changed})
        return WindowLoader(config, XLingDataset(config).build()[0])

    make.languages = {f"u{user}": language for user, language in enumerate(names)}
    return make


def _totals(make, loader, epochs=1, weigh=lambda weight: (weight > 0).sum(dim=1)):
    """Sum something over the rows of each language."""
    found = dict.fromkeys(READERS, 0.0)
    for _ in range(epochs):
        for batch in loader:
            users = loader.dataset.id2token("user_id", batch["user_id"].numpy())
            for user, value in zip(users, weigh(batch[TARGET_WEIGHT]).tolist(), strict=True):
                found[make.languages[str(user)]] += value
    return found


def _same_batches(one, other):
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a[field], b[field]) for a, b in pairs for field in (TARGET_LIST, TARGET_WEIGHT, "user_id"))


@pytest.mark.parametrize("of", ["reader", "target"])
def test_all_kinds_of_models_have_the_rows_of_the_same_languages(small_dataset, settings, settings_without_layers, of):
    small_dataset(lengths=np.random.default_rng(3).integers(4, 9, size=40))
    found = {}
    for model in ("LLMSASRec", "SASRec", "BPR"):
        known = settings_without_layers if model == "BPR" else settings
        config = XLingConfig(model, "small", config_dict={**known, "languages": ["de"], "language_of": of})
        parts = build(config)
        users = parts.test_data._dataset.inter_feat["user_id"].tolist()
        found[model] = sorted(users), parts.context.train_counts.tolist()
    assert found["SASRec"] == found["LLMSASRec"]
    assert found["BPR"] == found["LLMSASRec"] or of == "target"  # whose first rows may be of another language
    assert len(found["BPR"][0]) == len(found["LLMSASRec"][0])


def test_each_first_interaction_counts_once_where_models_read_one_item(small_dataset, settings):
    small_dataset()
    counts = [
        build(XLingConfig(model, "small", config_dict={**settings, "MAX_ITEM_LIST_LENGTH": 1})).context.train_counts
        for model in ("LLMSASRec", "SASRec")
    ]
    np.testing.assert_array_equal(*counts)


@pytest.mark.parametrize("temperature", [2.0, 5.0, 0.5])
def test_languages_have_the_shares_of_the_formula(balanced, temperature):
    n = _totals(balanced, balanced())
    drawn = _totals(balanced, balanced(language_temperature=temperature), epochs=60)
    wanted = {language: count ** (1 / temperature) for language, count in n.items()}
    for language in READERS:
        share = drawn[language] / sum(drawn.values())
        assert share == pytest.approx(wanted[language] / sum(wanted.values()), rel=0.03, abs=0.002)
    assert sum(drawn.values()) == pytest.approx(60 * sum(n.values()), rel=0.03)


def test_every_window_of_a_language_is_drawn_as_often_as_the_next_one(balanced):
    loader = balanced(language_temperature=4.0)
    times = {}
    for batch in loader:
        for user in loader.dataset.id2token("user_id", batch["user_id"].numpy()):
            times[str(user)] = times.get(str(user), 0) + 1
    n_windows = {}
    for batch in balanced():
        for user in loader.dataset.id2token("user_id", batch["user_id"].numpy()):
            n_windows[str(user)] = n_windows.get(str(user), 0) + 1
    for language in READERS:
        often = [times.get(u, 0) for u in n_windows if n_windows[u] == 1 and balanced.languages[u] == language]
        assert max(often) - min(often) <= 1


def test_settings_that_balance_nothing_change_nothing(balanced):
    plain = balanced(train_batch_size=50)
    for changed in ({"language_temperature": 1.0, "language_temperature_end": 1.0}, {"languages": list(READERS)}):
        assert _same_batches(plain, balanced(train_batch_size=50, **changed))
        plain.set_epoch(0)


def test_a_resumed_run_draws_what_an_uninterrupted_one_draws_and_epochs_have_as_many_steps(balanced):
    changed = {"language_temperature": 5.0, "language_temperature_end": 1.0, "epochs": 4, "train_batch_size": 40}
    whole = balanced(**changed)
    steps = [len(list(whole)) for _ in range(3)]
    assert len(set(steps)) == 1 == len({*steps, len(balanced(train_batch_size=40))})
    resumed = balanced(**changed)
    for loader in (whole, resumed):
        loader.set_epoch(2)
    assert _same_batches(whole, resumed)


def test_the_temperature_changes_evenly_until_the_last_epoch_has_everything_once(balanced):
    loader = balanced(language_temperature=5.0, language_temperature_end=1.0, epochs=5)
    assert [loader._balance.temperature(epoch) for epoch in range(6)] == [5.0, 4.0, 3.0, 2.0, 1.0, 1.0]
    loader.set_epoch(4)
    assert _totals(balanced, loader) == _totals(balanced, balanced())


def test_inverse_weights_give_languages_equal_shares_of_the_loss_and_the_mean_weight_is_one(balanced):
    plain = _totals(balanced, balanced())
    loader = balanced(language_weights="inverse", train_batch_size=10_000)
    shares = _totals(balanced, loader, weigh=lambda weight: weight.sum(dim=1))
    assert list(shares.values()) == pytest.approx([1 / 3] * 3, rel=1e-4)
    assert sum(plain.values()) == sum(_totals(balanced, loader).values())


def test_effective_weights_follow_their_formula(balanced):
    n = _totals(balanced, balanced())
    loader = balanced(language_weights="effective", language_weight_beta=0.99, train_batch_size=10_000)
    shares = _totals(balanced, loader, weigh=lambda weight: weight.sum(dim=1))
    weight = {language: (1 - 0.99) / (1 - 0.99**count) for language, count in n.items()}
    total = sum(weight[language] * n[language] for language in n)
    for language in n:
        assert shares[language] == pytest.approx(weight[language] * n[language] / total, rel=1e-4)


def test_languages_can_be_those_of_targets(balanced):
    loader = balanced(languages=["fr"], language_of="target")
    shown = {str(item): loader.dataset.catalog.languages[number]
             for number, item in enumerate(loader.dataset.field2id_token["item_id"])}  # fmt: skip
    trained = [item for batch in loader for item in batch[TARGET_LIST][batch[TARGET_WEIGHT] > 0].tolist()]
    assert {shown[loader.dataset.id2token("item_id", item)] for item in trained} == {"fr"}
    first = [(batch["item_id_list"][:, 0].tolist(), batch[FIRST_WEIGHT] > 0) for batch in loader]
    is_french = [shown[loader.dataset.id2token("item_id", item)] == "fr" for items, _ in first for item in items]
    assert torch.cat([weighed for _, weighed in first]).tolist() == is_french and True in is_french
    everything = balanced()
    french = [item for batch in everything for item in batch[TARGET_LIST][batch[TARGET_WEIGHT] > 0].tolist()
              if shown[everything.dataset.id2token("item_id", item)] == "fr"]  # fmt: skip
    assert sorted(trained) == sorted(french)
    total = balanced(languages=["fr"], language_of="target", train_batch_size=40)
    assert [float(batch[TARGET_WEIGHT].sum()) for batch in total] == pytest.approx([1.0] * len(total))


def test_languages_are_balanced_among_first_items_by_themselves(balanced):
    many = {"MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 10_000}  # one window of each history, one batch
    loader = balanced(language_of="target", language_weights="inverse", **many)
    (batch,) = loader
    language = RowLanguages(loader.dataset, "target").of(batch["user_id"].numpy(), batch["item_id_list"][:, 0].numpy())
    totals = np.bincount(language, batch[FIRST_WEIGHT].numpy())
    totals = totals[totals > 0]
    assert len(totals) > 1 and totals == pytest.approx(totals.mean(), rel=1e-4)


def test_a_language_that_is_no_target_has_no_weight_of_its_own(balanced, monkeypatch):
    """Else the first items of histories in it would outweigh all targets."""
    loader = balanced(language_of="target", language_weights="inverse")
    balance = loader._balance
    assert balance._weights_by(np.where(balance._counts == balance._counts.min(), 0, balance._counts)).max() < 10


def test_two_processes_share_the_drawn_batches(balanced):
    one = balanced(language_temperature=3.0, language_weights="none", train_batch_size=60)
    parts = [balanced(language_temperature=3.0, train_batch_size=60) for _ in range(2)]
    for rank, part in enumerate(parts):
        part._rank, part._world_size = rank, 2
    for whole, *shares in zip(one, *parts, strict=True):
        assert float(whole[TARGET_WEIGHT].sum()) == pytest.approx(
            sum(float(s[TARGET_WEIGHT].sum()) for s in shares) / 2
        )
        users = sorted(user for share in shares for user in share["user_id"].tolist())
        assert users == sorted(whole["user_id"].tolist())


def test_training_alone_sees_nothing_of_other_languages(balanced, settings):
    run = build(XLingConfig("LLMSASRec", "small", config_dict={**settings, "languages": ["it"]}))
    train, everything = run.train_data._dataset, balanced()._dataset
    for part, n in ((run.valid_data, 5), (run.test_data, 5)):
        users = {str(user) for user in train.id2token("user_id", part._dataset.inter_feat["user_id"].numpy())}
        assert len(users) == n and {balanced.languages[user] for user in users} == {"it"}
    mine = np.isin(everything.sequence["user_id"].numpy(), np.unique(train.inter_feat["user_id"].numpy()))
    items = everything.sequence["item_id"].numpy()[mine & everything.train_mask]
    assert train.train_item_counts.tolist() == np.bincount(items, minlength=train.item_num).tolist()
    assert run.splits["train"]["users"] == 5


def test_a_language_without_readers_and_two_ways_of_balancing_are_refused(balanced, settings):
    with pytest.raises(DataError, match=r"languages \['sv'\].*de, fr, it"):
        build(XLingConfig("LLMSASRec", "small", config_dict={**settings, "languages": ["sv"]}))
    both = {"language_temperature": 2.0, "language_weights": "inverse"}
    with pytest.raises(ConfigError, match="set one"):
        XLingConfig("LLMSASRec", "small", config_dict={**settings, **both})


# ---- how often an epoch shows and trains positions ----


def _mean_of_epochs(loader, of, epochs=80):
    """Count something of each batch's rows by item, on average over epochs."""
    total = np.zeros(loader.dataset.item_num)
    for _ in range(epochs):
        for batch in loader:
            total += np.bincount(of(batch).numpy().ravel(), minlength=len(total))
    total[0] = 0
    return total / epochs


def _by_item(loader, often):
    return np.bincount(loader.dataset.sequence["item_id"].numpy(), often, loader.dataset.item_num)


@pytest.mark.parametrize(
    "changed",
    [
        {"train_history": "set"},
        {"history_reorder": 0.2, "MAX_ITEM_LIST_LENGTH": 4},
        {"train_history": "set", "languages": ["de", "fr"], "language_temperature": 5},
    ],
)
def test_items_are_targets_as_often_as_the_correction_of_negatives_believes(balanced, changed):
    loader = balanced(**{"MAX_ITEM_LIST_LENGTH": 20, **changed})
    found = _mean_of_epochs(loader, lambda batch: batch[TARGET_LIST])
    expected = _by_item(loader, LanguageBalance(loader.config, loader.dataset).trained)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.4)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.01)


@pytest.mark.parametrize(
    "changed",
    [
        {"MAX_ITEM_LIST_LENGTH": 4, "train_stride": 1},
        {"MAX_ITEM_LIST_LENGTH": 5, "train_stride": 5, "languages": ["de"]},
        {"MAX_ITEM_LIST_LENGTH": 4, "train_history": "set"},
        {"MAX_ITEM_LIST_LENGTH": 6, "train_stride": 3, "history_reorder": 0.3},
        {"MAX_ITEM_LIST_LENGTH": 6, "train_stride": 3, "history_reorder": 0.7},
    ],
)
def test_items_are_shown_as_often_as_overlapping_windows_show_them(balanced, changed):
    loader = balanced(**changed)

    def items(batch):  # of a window: its inputs, and the target behind the last one
        last = batch["item_length"][:, None] - 1
        return torch.cat([batch["item_id_list"], batch[TARGET_LIST].gather(1, last)], dim=1)

    found = _mean_of_epochs(loader, items)
    expected = _by_item(loader, LanguageBalance(loader.config, loader.dataset).shown)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.4)
