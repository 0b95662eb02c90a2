"""Negatives are drawn evenly from what training has, and alike however a batch is cut."""

from __future__ import annotations

import numpy as np
import torch

from recbole_xling.model.sampling.uniform_negatives import UniformNegatives


def test_draws_are_even_and_know_what_is_the_users_own(small_dataset, build_small):
    small_dataset(n_users=60, n_items=40)
    train = build_small().train_data._dataset
    negatives = UniformNegatives(train, 7)
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


def test_a_target_has_the_same_negatives_in_any_part_of_a_batch(small_dataset, build_small):
    small_dataset()
    negatives = UniformNegatives(build_small().train_data._dataset, 5)
    users, target = torch.arange(1, 31), torch.arange(30, 0, -1)
    whole, _ = negatives.draw(users, target, 1, 2, 3)
    part, _ = negatives.draw(users[1::2], target[1::2], 1, 2, 3)
    assert torch.equal(whole[1::2], part)
    assert not torch.equal(negatives.draw(users, target, 1, 2, 4)[0], whole)
    assert len(torch.unique(whole)) > 20
