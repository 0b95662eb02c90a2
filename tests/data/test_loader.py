"""What the training loader yields."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT
from recbole_xling.errors import ConfigError


def _windows(loader, epoch):
    """Return each user's windows in an epoch: inputs, targets and which of them are trained."""
    loader.set_epoch(epoch)
    found = defaultdict(list)
    for batch in loader:
        for user, items, targets, weight in zip(
            batch["user_id"].tolist(), batch["item_id_list"], batch[TARGET_LIST], batch[TARGET_WEIGHT], strict=True
        ):
            n = int((items > 0).sum())
            found[user].append((items[:n].tolist(), targets[:n].tolist(), (weight[:n] > 0).tolist()))
    return dict(found)


def test_sets_are_the_same_items_in_another_order_each_epoch(small_dataset, build_small):
    small_dataset()
    ordered = _windows(build_small(MAX_ITEM_LIST_LENGTH=50).train_data, 0)
    loader = build_small(train_history="set", MAX_ITEM_LIST_LENGTH=50).train_data
    epochs = [_windows(loader, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2]
    first = set()
    for user, [(items, targets, trained)] in ordered.items():
        for epoch in epochs[:2]:
            [(inputs, predicted, counted)] = epoch[user]
            assert predicted[:-1] == inputs[1:]  # the target of a position is the input of the next one
            assert sorted([*inputs, predicted[-1]]) == sorted([*items, targets[-1]])
            assert sum(counted) == sum(trained)
            first.add((user, inputs[0]))
    assert len(first) > 1.5 * len(ordered)


def test_without_sets_histories_keep_their_order(small_dataset, build_small):
    small_dataset()
    loader = build_small(train_history="sequence", MAX_ITEM_LIST_LENGTH=50).train_data
    assert _windows(loader, 0) == _windows(loader, 1)


@pytest.mark.parametrize("length", [2, 3])
def test_sets_longer_than_a_window_have_each_target_once(small_dataset, build_small, length):
    small_dataset()
    parts = build_small(train_history="set", MAX_ITEM_LIST_LENGTH=length)
    loader = parts.train_data
    n_targets = int(parts.train_data._dataset.segments.n_targets.sum())
    trained = torch.cat([batch[TARGET_LIST][batch[TARGET_WEIGHT] > 0] for batch in loader])
    assert len(trained) == n_targets


def test_targets_that_move_have_no_language_of_their_own(small_dataset, build_small):
    small_dataset()
    with pytest.raises(ConfigError, match="language_of=reader"):
        build_small(train_history="set", language_of="target", language_weights="inverse")
    build_small(train_history="set", language_weights="inverse")
