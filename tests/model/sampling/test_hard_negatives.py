"""Hard negatives: from the head of a user's list, never his own items, in the languages asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.model.sampling import hard_negatives as module
from recbole_xling.model.sampling.hard_negatives import HardNegatives
from recbole_xling.model.sampling.met_items import MetItems
from recbole_xling.quick_start.build import build


@pytest.fixture
def training(small_dataset, settings, monkeypatch):
    monkeypatch.setattr(module, "DEPTH", 12)
    small_dataset()
    config = XLingConfig("LLMSASRec", "small", config_dict={**settings, "allow_unknown_keys": True})
    return build(config).train_data._dataset


def make(training, **changed) -> HardNegatives:
    settings = {"hard_negatives": 4, "hard_negative_epochs": 2, "hard_negative_cross_language": 0.5, "seed": 1}
    views = torch.zeros(training.user_num, dtype=torch.long)
    return HardNegatives({**settings, **changed}, training, LANGUAGE[None], views, MetItems(training))


LANGUAGE = torch.arange(31) % 3
SCORES = torch.linspace(1, 0, 31)  # small ids first, for everybody


def match(rows):
    return SCORES.expand(len(rows), -1).clone()


def test_they_come_from_the_head_of_the_list_and_are_not_the_users_own(training):
    negatives = make(training)
    negatives.draw(match, -1)
    rows = training.last_histories(training.user_num)
    users, items = training.training_pairs()
    for user, own, length in zip(rows["user_id"], rows["item_id_list"], rows["item_length"], strict=True):
        chosen = negatives.items[user].tolist()
        head = [item for item in range(1, 31) if item not in items[users == user.item()]][:12]
        assert len(set(chosen)) == 4 and set(chosen) <= set(head)
        newest = own[length - 1]
        assert (LANGUAGE[negatives.items[user].long()] != LANGUAGE[newest]).sum() == 2


def test_what_a_user_chose_before_his_history_begins_is_none(small_dataset, settings):
    small_dataset()
    short = {**settings, "allow_unknown_keys": True, "MAX_ITEM_LIST_LENGTH": 2}
    training = build(XLingConfig("LLMSASRec", "small", config_dict=short)).train_data._dataset
    users, items = training.training_pairs()
    assert np.bincount(users).max() > 2
    liked = torch.zeros(training.user_num, 31)
    liked[users, items] = 1  # everybody would be shown what he chose
    negatives = make(training)
    negatives.draw(lambda rows: liked[rows["user_id"]] + SCORES / 100, -1)
    own = set(zip(users.tolist(), items.tolist(), strict=True))
    drawn = {(user, item) for user in set(users.tolist()) for item in negatives.items[user].tolist()}
    assert drawn and all(item for _, item in drawn) and not drawn & own


@pytest.mark.parametrize(("share", "want"), [(0.0, 0), (1.0, 4)])
def test_the_share_of_other_languages_is_as_asked(training, share, want, monkeypatch):
    monkeypatch.setattr(module, "DEPTH", 26)
    negatives = make(training, hard_negative_cross_language=share)
    negatives.draw(match, -1)
    rows = training.last_histories(training.user_num)
    newest = rows["item_id_list"].gather(1, rows["item_length"][:, None] - 1)
    other = LANGUAGE[negatives.items[rows["user_id"]].long()] != LANGUAGE[newest]
    assert (other.sum(dim=1) == want).all()


@pytest.mark.parametrize(("number", "share", "low"), [(1, 0.5, 0), (1, 0.3, 0), (3, 0.5, 1), (3, 0.9, 2)])
def test_a_share_that_is_no_whole_number_holds_on_average(training, number, share, low, monkeypatch):
    monkeypatch.setattr(module, "DEPTH", 26)
    negatives = make(training, hard_negatives=number, hard_negative_cross_language=share)
    rows = training.last_histories(training.user_num)
    newest = rows["item_id_list"].gather(1, rows["item_length"][:, None] - 1)
    counts = []
    for epoch in range(25):
        negatives.draw(match, epoch)
        other = LANGUAGE[negatives.items[rows["user_id"]].long()] != LANGUAGE[newest]
        counts.append(other.sum(dim=1))
    assert set(torch.cat(counts).tolist()) == {low, low + 1}
    assert torch.cat(counts).float().mean() == pytest.approx(number * share, abs=0.06)


def test_every_epoch_draws_others_and_the_same_epoch_the_same(training):
    drawn = []
    for epoch in (0, 0, 1):
        negatives = make(training)
        negatives.draw(match, epoch)
        drawn.append(negatives.items)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert [make(training).due(epoch) for epoch in range(4)] == [False, True, False, True]


def test_what_matches_about_as_well_as_the_newest_item_is_no_negative(training):
    negatives = make(training, hard_negative_margin=0.5)
    negatives.draw(match, -1)
    rows = training.last_histories(training.user_num)
    for user, own, length in zip(rows["user_id"], rows["item_id_list"], rows["item_length"], strict=True):
        chosen = negatives.items[user]
        assert chosen.any() or SCORES[own[length - 1]] < 0.2
        assert (SCORES[chosen[chosen > 0].long()] <= 0.5 * SCORES[own[length - 1]]).all()


def test_too_few_items_leave_places_empty(training):
    negatives = make(training, hard_negatives=20)
    negatives.draw(match, -1)
    users = training.last_histories(training.user_num)["user_id"]
    counts = (negatives.items[users] > 0).sum(dim=1).numpy()
    assert (counts == 12).all()
    assert all(len(set(row[row > 0].tolist())) == 12 for row in negatives.items[users].numpy())
    assert np.array_equal(negatives.items[0], np.zeros(20))


@pytest.mark.parametrize("changed", [{"hard_negative_epochs": 0}, {"hard_negative_cross_language": 1.5}])
def test_settings_out_of_their_range_are_refused(training, changed):
    with pytest.raises(ConfigError, match="hard_negative"):
        make(training, **changed)


def test_items_that_training_never_met_are_none(training):
    negatives = make(training)
    never = training.train_item_counts == 0
    assert never.any()
    liked = torch.from_numpy(never).float().expand(training.user_num, -1)  # everybody would be shown them
    negatives.draw(lambda rows: liked[rows["user_id"]] + SCORES / 100, -1)
    chosen = np.unique(negatives.items.numpy())
    assert not never[chosen[chosen > 0]].any() and len(chosen) > 4
