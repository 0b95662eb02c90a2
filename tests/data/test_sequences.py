"""Windows and batches: every target once, with the right history before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT, WindowLoader
from recbole_xling.data.sequences import Segments, cut_windows, next_item_rows, split_windows


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    max_length=st.integers(1, 12),
    stride=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_windows_train_every_target_once(lengths, max_length, stride, seed):
    users = np.repeat(np.arange(len(lengths)), lengths)
    is_target = np.append(False, users[1:] == users[:-1])
    segments = Segments.of_targets(users, is_target)
    windows = cut_windows(segments, max_length, min(stride, max_length), np.random.default_rng(seed))
    trained = []
    for start, length, loss_from in zip(windows.start, windows.length, windows.loss_from, strict=True):
        assert 1 <= length <= max_length and 0 <= loss_from < length
        assert len(set(users[start : start + length + 1])) == 1
        trained += list(range(start + loss_from + 1, start + length + 1))
    assert sorted(trained) == list(np.flatnonzero(is_target))


def test_divided_windows_train_each_target_with_the_history_that_it_had():
    windows = cut_windows(Segments(np.array([0, 40]), np.array([30, 3])), 12, 5, np.random.default_rng(0))

    def targets(of):
        rows = zip(of.start, of.length, of.loss_from, strict=True)
        return [(start, start + step + 1) for start, length, loss_from in rows for step in range(loss_from, length)]

    pieces = split_windows(windows, 4)
    assert targets(pieces) == targets(windows)
    assert (pieces.length - pieces.loss_from).max() == 4 < (windows.length - windows.loss_from).max()
    whole = split_windows(windows, 12)
    assert all(np.array_equal(vars(whole)[name], column) for name, column in vars(windows).items())


def test_windows_cut_with_a_small_stride_have_long_histories():
    windows = cut_windows(Segments(np.array([0]), np.array([100])), 20, 5, np.random.default_rng(0))
    later = windows.loss_from > 0
    assert later.sum() >= 15
    assert (windows.length[later] == 20).all()
    assert (windows.loss_from[later] >= 15).all()


def test_next_item_rows_have_the_history_right_before_the_target():
    users = np.array([1, 1, 1, 1, 2, 3, 3])
    target, length = next_item_rows(users, max_length=2)
    assert target.tolist() == [1, 2, 3, 6]
    assert length.tolist() == [1, 2, 2, 1]


@pytest.fixture
def loader(small_dataset, settings):
    small_dataset(lengths=[1, 2, 3, *np.random.default_rng(3).integers(4, 40, size=60)])

    def make(**changed):
        config = XLingConfig("LLMSASRec", "small", config_dict={**settings, **changed})
        return WindowLoader(config, XLingDataset(config).build()[0])

    return make


def test_batches_hold_targets_after_their_history(loader):
    data = loader()
    pairs = []
    for batch in data:
        items, targets, weights = batch["item_id_list"], batch[TARGET_LIST], batch[TARGET_WEIGHT]
        assert torch.equal(items > 0, torch.arange(items.shape[1]) < batch["item_length"][:, None])
        assert torch.equal(weights > 0, targets > 0)
        assert weights.sum().item() == pytest.approx(1.0)
        inner = (weights[:, :-1] > 0) & (items[:, 1:] > 0)  # where the next input is there, it is the target
        assert torch.equal(targets[:, :-1][inner], items[:, 1:][inner])
        pairs += list(zip(items[weights > 0].tolist(), targets[weights > 0].tolist(), strict=True))
    train = data._dataset
    want = train[np.arange(len(train))]
    last = want["item_id_list"].gather(1, want["item_length"][:, None] - 1)[:, 0]
    assert sorted(pairs) == sorted(zip(last.tolist(), want["item_id"].tolist(), strict=True))


def test_an_epoch_has_as_many_steps_as_recbole_would_make(loader):
    data = loader(train_batch_size=100)
    assert len(data) == -(-len(data._dataset) // 100)
    sizes = [int((batch[TARGET_WEIGHT] > 0).sum()) for batch in data]
    assert len(sizes) == len(data) and max(sizes) <= 108  # a window of at most 8 targets may exceed the batch size


def test_batches_group_windows_of_like_length(loader):
    cells = used = 0
    for batch in loader(MAX_ITEM_LIST_LENGTH=40):
        cells += batch["item_id_list"].numel()
        used += int(batch["item_length"].sum())
    assert used / cells > 0.8


def test_batches_depend_on_seed_and_epoch_alone(loader):
    first, second = loader(), loader()
    epochs = [[batch[TARGET_LIST] for batch in first] for _ in range(3)]
    second.set_epoch(2)
    again = [batch[TARGET_LIST] for batch in second]
    assert all(torch.equal(a, b) for a, b in zip(epochs[2], again, strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=False))
