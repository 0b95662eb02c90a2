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


@pytest.mark.parametrize("changed", [{}, {"history_crop": 0.5}, {"train_history": "set"}])
@pytest.mark.parametrize("batch_size", [1, 5, 7, 64])
def test_an_epoch_has_as_many_steps_as_its_targets_fill_batches(small_dataset, build_small, batch_size, changed):
    small_dataset(n_users=16, lengths=[30] * 6 + [3] * 10)
    parts = build_small(MAX_ITEM_LIST_LENGTH=25, train_batch_size=batch_size, **changed)
    loader, n_targets = parts.train_data, len(parts.train_data._dataset)
    for epoch in range(3):
        loader.set_epoch(epoch)
        sizes = [int((batch[TARGET_WEIGHT] > 0).sum()) for batch in loader]
        assert len(sizes) == -(-n_targets // batch_size) and sum(sizes) == n_targets
        assert min(sizes) > 0 and max(sizes) < 2 * batch_size


# ---- augmented histories --------------------------------------------------------------------------------------


def test_cropped_histories_are_contiguous_and_train_each_target_once(small_dataset, build_small):
    small_dataset()
    whole = _windows(build_small(MAX_ITEM_LIST_LENGTH=50).train_data, 0)
    loader = build_small(history_crop=0.5, MAX_ITEM_LIST_LENGTH=50).train_data
    epochs = [_windows(loader, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    n_cut = 0
    for user, [(items, targets, _)] in whole.items():
        pieces = sorted(epochs[0][user], key=lambda piece: _place(piece[0], items))
        n_cut += len(pieces) == 2
        assert [item for piece in pieces for item in piece[0]] == items
        assert [target for piece in pieces for target in piece[1]] == targets
    assert 0.3 < n_cut / len(whole) < 0.7


def _place(part, items):
    return next(i for i in range(len(items)) if items[i : i + len(part)] == part)


@pytest.mark.parametrize("changed", [{"history_crop": 1.0}, {"history_reorder": 0.5}, {"history_mask": 0.9}])
def test_augmented_windows_longer_than_the_limit_have_each_target_once(small_dataset, build_small, changed):
    small_dataset()
    plain, made = (build_small(MAX_ITEM_LIST_LENGTH=3, **given).train_data for given in ({}, changed))
    assert len(made) == len(plain)  # batches: learning rates and epochs mean the same
    targets = []
    for loader in (plain, made):
        trained = [batch[TARGET_LIST][batch[TARGET_WEIGHT] > 0] for batch in loader]
        targets.append(torch.cat(trained).sort().values)
    if "history_reorder" in changed:  # which item is first, and no target, may change
        assert len(targets[0]) == len(targets[1])
    else:
        torch.testing.assert_close(*targets)


def test_hidden_items_are_as_many_as_asked_and_never_the_first(small_dataset, build_small):
    small_dataset(n_users=300)
    plain, made = (build_small(history_mask=share).train_data for share in (0.0, 0.3))
    n_hidden = n_shown = 0
    for want, got in zip(plain, made, strict=True):
        for name in (TARGET_LIST, TARGET_WEIGHT, "item_length", "user_id"):
            assert torch.equal(want[name], got[name])
        items, shown = want["item_id_list"], got["item_id_list"]
        assert torch.equal(shown[shown > 0], items[shown > 0]) and torch.equal(shown[:, 0], items[:, 0])
        n_hidden += int(((items > 0) & (shown == 0)).sum())
        n_shown += int((items[:, 1:] > 0).sum())
    assert n_hidden / n_shown == pytest.approx(0.3, abs=0.05)
    made.set_epoch(0)
    first = next(iter(made))["item_id_list"]
    made.set_epoch(0)
    assert torch.equal(next(iter(made))["item_id_list"], first)


def test_processes_share_what_is_hidden(small_dataset, build_small):
    small_dataset()
    loader = build_small(history_mask=0.4).train_data
    whole = next(iter(loader))["item_id_list"]
    loader._world_size = 2
    for rank in range(2):
        loader._rank = rank
        loader.set_epoch(0)
        part = next(iter(loader))["item_id_list"]
        assert torch.equal(part, whole[rank::2, : part.shape[1]])


def test_a_stretch_of_a_history_is_reordered(small_dataset, build_small):
    small_dataset(lengths=[12] * 40)
    whole = _windows(build_small(MAX_ITEM_LIST_LENGTH=50).train_data, 0)
    loader = build_small(history_reorder=0.5, MAX_ITEM_LIST_LENGTH=50).train_data
    epochs = [_windows(loader, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    begins = set()
    for user, [(items, targets, _)] in whole.items():
        [(inputs, predicted, _)] = epochs[0][user]
        assert predicted[:-1] == inputs[1:]
        now, then = [*inputs, predicted[-1]], [*items, targets[-1]]
        assert sorted(now) == sorted(then)
        moved = [place for place, (a, b) in enumerate(zip(now, then, strict=True)) if a != b]
        assert not moved or moved[-1] - moved[0] < 5  # half of the 10 that are trained
        begins |= set(moved[:1])
    assert len(begins) > 2
    with pytest.raises(ConfigError, match="history_reorder to 0"):
        build_small(history_reorder=0.5, train_history="set")
    with pytest.raises(ConfigError, match="history_reorder moves targets"):
        build_small(history_reorder=0.5, language_of="target", language_weights="inverse")
    for given in ({"history_reorder": 0.5}, {"train_history": "set"}):
        with pytest.raises(ConfigError, match="another order, in which positions=relative_time has no times"):
            build_small(**given, block="hstu", positions="relative_time")


@pytest.mark.parametrize("changed", [{"train_history": "set"}, {"history_reorder": 0.9}])
def test_a_target_to_which_a_file_states_the_history_stays_the_target(small_dataset, build_small, changed):
    folder = small_dataset(n_items=12)
    rows = [f"u{user}\ti0 i{user % 5 + 1} i7 i8\ti{user % 3 + 9}" for user in range(30)]
    for part in ("train", "valid", "test"):
        text = "\n".join(["user_id:token\titem_id_list:token_seq\titem_id:token", *rows])
        (folder / f"small.{part}.inter").write_text(text + "\n")
    columns = {"inter": ["user_id", "item_id_list", "item_id"], "item": ["item_id", "item_language"]}
    stated = {"benchmark_filename": ["train", "valid", "test"], "load_col": columns, **changed}
    loader = build_small(**stated).train_data
    items = loader.dataset.field2id_token["item_id"]
    orders = set()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            targets = batch[TARGET_LIST][batch[TARGET_WEIGHT] > 0]
            assert {str(items[item]) for item in targets.tolist()} <= {"i9", "i10", "i11"}
            for history in batch["item_id_list"].tolist():
                assert sorted({"i0", "i7", "i8"} & {str(items[item]) for item in history}) == ["i0", "i7", "i8"]
                orders.add(tuple(history))
    assert len(orders) > 30
