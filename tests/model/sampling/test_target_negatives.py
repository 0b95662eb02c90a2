"""Negatives are drawn evenly from what training has or from users' lists, and alike however a batch is cut."""

from __future__ import annotations

import numpy as np
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.model.sampling import target_negatives
from recbole_xling.model.sampling.target_negatives import TargetNegatives
from recbole_xling.quick_start.build import build


def test_draws_are_even_and_know_what_is_the_users_own(small_dataset, build_small):
    small_dataset(n_users=60, n_items=40)
    train = build_small().train_data._dataset
    negatives = TargetNegatives(train, 7, 0)
    users, target = torch.arange(1, 61), torch.randint(1, 41, (60,), generator=torch.Generator().manual_seed(0))
    trained = torch.from_numpy(train.train_mask)
    pairs = torch.stack([train.sequence[field][trained] for field in ("user_id", "item_id")], dim=1)
    own = {tuple(pair) for pair in pairs.tolist()}
    counts = np.zeros(41)
    for step in range(100):
        item, wrong = negatives.draw(users, target, 1, step)
        counts += np.bincount(item.flatten().numpy(), minlength=41)
        if step < 3:
            for user, chosen, items, mask in zip(users.tolist(), target.tolist(), item, wrong, strict=True):
                for one, is_wrong in zip(items.tolist(), mask.tolist(), strict=True):
                    assert is_wrong == ((user, one) not in own and one != chosen)
    known = train.train_item_counts > 0
    assert not counts[~known].any()
    expected = 100 * 60 * 7 / known.sum()
    assert np.square(counts[known] - expected).sum() / expected < known.sum() + 4 * np.sqrt(2 * known.sum())


def test_items_of_histories_that_files_state_are_the_users_own(small_dataset, settings):
    folder = small_dataset(n_items=12)
    head = "user_id:token\titem_id_list:token_seq\titem_id:token"
    rows = [f"u{user}\ti{user % 12} i{(user + 1) % 12}\ti{(user + 2) % 12}" for user in range(40)]
    for part in ("train", "valid", "test"):
        (folder / f"small.{part}.inter").write_text("\n".join([head, *rows]) + "\n")
    columns = {"inter": ["user_id", "item_id_list", "item_id"], "item": ["item_id", "item_language"]}
    known = {**settings, "benchmark_filename": ["train", "valid", "test"], "load_col": columns}
    train = build(XLingConfig("LLMSASRec", "small", config_dict=known)).train_data._dataset
    users, items = train.met_pairs()
    own = set(zip(users.tolist(), items.tolist(), strict=True))
    assert len(own) == 3 * 40
    negatives, asked = TargetNegatives(train, 30, 0), torch.arange(1, 41)
    drawn, wrong = negatives.draw(asked, torch.zeros_like(asked), 0, 0)
    for user, found, mask in zip(asked.tolist(), drawn.tolist(), wrong.tolist(), strict=True):
        assert all(is_wrong == ((user, item) not in own) for item, is_wrong in zip(found, mask, strict=True))


def test_a_target_has_the_same_negatives_in_any_part_of_a_batch(small_dataset, build_small):
    small_dataset()
    negatives = TargetNegatives(build_small().train_data._dataset, 3, 2)
    users, target = torch.arange(1, 31), torch.arange(30, 0, -1)
    whole, _ = negatives.draw(users, target, 1, 2, 3)
    part, _ = negatives.draw(users[1::2], target[1::2], 1, 2, 3)
    assert torch.equal(whole[1::2], part)
    assert not torch.equal(negatives.draw(users, target, 1, 2, 4)[0], whole)
    assert len(torch.unique(whole)) > 20


def test_hard_negatives_are_what_is_nearest_to_the_history_by_frozen_vectors(small_dataset, build_small, monkeypatch):
    monkeypatch.setattr(target_negatives, "DEPTH", 6)
    small_dataset(n_items=60)
    train = build_small().train_data._dataset
    negatives = TargetNegatives(train, 1, 40)
    rows = train.last_histories(train.user_num)
    users = rows["user_id"]
    before, wrong = negatives.draw(users, torch.ones_like(users), 0, 0)
    assert not before[:, 1:].any() and not wrong[:, 1:].any()
    negatives.prepare()
    drawn, wrong = negatives.draw(users, torch.zeros_like(users), 0, 0)
    vectors = train.catalog.vectors - train.catalog.vectors[1:].mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(len(users)):
        history = rows["item_id_list"][row, : rows["item_length"][row]].numpy()
        score = vectors @ vectors[history].sum(axis=0)
        score[train.train_item_counts == 0] = -np.inf
        score[history] = -np.inf
        nearest = set(np.argsort(-score)[:6].tolist())
        assert set(drawn[row, 1:].tolist()) <= nearest and len(set(drawn[row, 1:].tolist())) >= 4
    assert wrong[:, 1:].float().mean() > 0.9  # others are the user's own, beyond the longest history
