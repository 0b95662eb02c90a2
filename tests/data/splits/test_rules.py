"""The parts of a split against their definitions in plain Python, on random sequences with ties and repeats."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbole_xling.data.splits.rules import (
    choose_few,
    cold_item_parts,
    global_time_parts,
    item_parts,
    masks_with_validation,
    seeded_uniform,
    time_points,
    transfer_parts,
)

N_ITEMS = 7


@st.composite
def interactions(draw):
    """Draw users of length 1 and more, times with ties in order, and items that repeat."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    users = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    times = np.concatenate([sorted(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))) for n in lengths])
    items = np.array(draw(st.lists(st.integers(1, N_ITEMS - 1), min_size=len(users), max_size=len(users))))
    return users, times.astype(np.float64), items


def where(mask):
    return set(np.flatnonzero(mask).tolist())


def sequences(users):
    return [np.flatnonzero(users == user).tolist() for user in np.unique(users)]


def assert_sound(users, parts):
    """Every split: disjoint targets, no held-out target seen before its part, per-user order, a history for each."""
    train, valid, test = parts
    assert not (where(train.targets) & where(valid.targets) or where(valid.targets) & where(test.targets))
    assert not where(train.targets) & where(test.targets)
    assert where(train.visible) == where(train.targets)
    assert not where(valid.visible) & where(test.targets)
    for sequence in sequences(users):
        trained, validated = (where(part.targets) & set(sequence) for part in (train, valid))
        for part in (valid, test):
            for target in where(part.targets) & set(sequence):
                assert part.visible[target]
                assert any(part.visible[position] for position in sequence if position < target)
                assert all(position < target for position in trained)
                assert part is valid or all(position < target for position in validated)


@given(interactions(), st.integers(0, 7), st.integers(0, 7))
def test_global_time_parts_equal_their_definition(data, one, two):
    users, times, _ = data
    points = (min(one, two), max(one, two))
    train, valid, test = parts = global_time_parts(users, times, points)
    assert_sound(users, parts)
    firsts = {sequence[0] for sequence in sequences(users)}
    assert where(train.targets) == where(times < points[0])
    assert where(valid.targets) == where((times >= points[0]) & (times < points[1])) - firsts
    assert where(test.targets) == where(times >= points[1]) - firsts
    assert where(valid.visible) == where(times < points[1])
    assert test.visible.all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(1, 8), st.integers(0, 5), st.integers(1, 5))
def test_time_points_are_the_last_before_which_no_more_than_the_shares_lie(times, train, valid, test):
    shares = np.array([train, valid, test]) / (train + valid + test)
    times = np.array(times, dtype=np.float64)
    for point, share in zip(time_points(times, shares), np.cumsum(shares)[:2], strict=True):
        assert (times < point).sum() <= share * len(times) + 1e-6
        assert (times <= point).sum() > share * len(times) - 1e-6


@given(interactions(), st.integers(0, 7), st.integers(0, 7))
def test_validation_that_is_trained_on_keeps_its_histories(data, one, two):
    users, times, _ = data
    train, valid, test = global_time_parts(users, times, (min(one, two), max(one, two)))
    everything, nothing, same = masks_with_validation(users, (train, valid, test))
    assert where(everything.targets) == where(train.targets) | where(valid.targets)
    assert not nothing.targets.any() and same is test
    for sequence in sequences(users):
        before_last = [place for place in sequence if any(where(valid.targets) & set(range(place, sequence[-1] + 1)))]
        expected = (where(train.visible) & set(sequence)) | (where(valid.visible) & set(before_last))
        assert where(everything.visible) & set(sequence) == expected


def test_time_points_of_distinct_times_are_exact():
    assert time_points(np.arange(100.0), (0.8, 0.1, 0.1)) == (80.0, 90.0)


@given(interactions(), st.lists(st.integers(0, 2), min_size=N_ITEMS, max_size=N_ITEMS))
def test_cold_item_parts_equal_their_definition(data, part_of_item):
    users, _, items = data
    part = np.array(part_of_item)[items]
    train, valid, test = parts = cold_item_parts(users, part)
    assert_sound(users, parts)
    trained, targets = set(), {1: set(), 2: set()}
    for sequence in sequences(users):
        warm = [position for position in sequence if part[position] == 0]
        held_out = [position for position in sequence if part[position] > 0]
        if held_out and warm and warm[0] < held_out[-1]:
            targets[part[held_out[-1]]].add(held_out[-1])
            warm = [position for position in warm if position < held_out[-1]]
        trained |= set(warm)
    assert where(train.targets) == trained
    assert (where(valid.targets), where(test.targets)) == (targets[1], targets[2])
    assert all(part[position] == 0 for position in where(valid.visible) - where(valid.targets))
    assert all(part[position] == 0 for position in where(test.visible) - where(test.targets))


def test_items_are_held_out_by_id_and_seed_alone():
    tokens = [f"i{index}" for index in range(4000)]
    parts = item_parts(seeded_uniform(tokens, 3), (0.7, 0.1, 0.2))
    np.testing.assert_allclose(np.bincount(parts) / 4000, [0.7, 0.1, 0.2], atol=0.03)
    assert (item_parts(seeded_uniform(tokens[::-1], 3), (0.7, 0.1, 0.2)) == parts[::-1]).all()
    assert (item_parts(seeded_uniform(tokens, 4), (0.7, 0.1, 0.2)) != parts).any()
    assert np.bincount(item_parts(seeded_uniform(tokens, 3), (0.8, 0.0, 0.2)), minlength=3)[1] == 0


KINDS = st.sampled_from(["source", "target", "other"])


@given(interactions(), st.lists(KINDS, min_size=20, max_size=20), st.booleans(), st.booleans())
def test_language_transfer_parts_equal_their_definition(data, kinds, by_user, both):
    users, _, items = data
    kind = np.array(kinds)[users if by_user else items]
    tested_kinds = ["source", "target"] if both else ["target"]
    parts = transfer_parts(users, kind == "source", kind == "target", np.isin(kind, tested_kinds))
    assert_sound(users, parts)
    trained, validated, tested = set(), set(), set()
    for sequence in sequences(users):
        targets = [position for position in sequence[1:] if kind[position] in tested_kinds]
        end = targets[-1] if targets else sequence[-1] + 1
        tested |= set(targets[-1:])
        source = [position for position in sequence if kind[position] == "source" and position < end]
        validated |= set(source[1:][-1:])
        trained |= set(source) if len(source) == 1 else set(source[:-1])
    _, valid, test = parts
    assert [where(part.targets) for part in parts] == [trained, validated, tested]
    assert where(valid.visible) == trained | validated
    assert test.visible.all()


@given(interactions(), st.lists(KINDS, min_size=20, max_size=20), st.booleans(), st.booleans(), st.randoms())
def test_few_shot_choices_are_nested_and_leave_the_evaluation_alone(data, kinds, by_user, both, random):
    users, _, items = data
    kind = np.array(kinds)[users if by_user else items]
    source, target = kind == "source", kind == "target"
    masks = source, target, source | target if both else target
    rank = list(range(users.max() + 1))
    random.shuffle(rank)
    rank = np.array(rank)
    zero_shot = transfer_parts(users, *masks)
    for unit in ("n_users", "n_interactions"):
        before = where(zero_shot[0].targets)
        for size in range(4):
            counts = {"n_users": None, "n_interactions": None, unit: size}
            parts = transfer_parts(users, *masks, lambda pool, c=counts: choose_few(users, pool, rank, **c))
            assert_sound(users, parts)
            added = where(parts[0].targets) - where(zero_shot[0].targets)
            assert before <= where(parts[0].targets) and added <= where(masks[1])
            assert len(added) <= size if unit == "n_interactions" else len({users[p] for p in added}) <= size
            for mine, zero in zip(parts[1:], zero_shot[1:], strict=True):
                assert where(mine.targets) == where(zero.targets)
            before = where(parts[0].targets)


def test_few_users_bring_all_they_have_and_few_interactions_come_user_by_user():
    users, rank = np.array([1, 1, 1, 2, 2, 3]), np.array([9, 2, 0, 1])
    pool = np.array([True, True, False, True, True, True])
    assert where(choose_few(users, pool, rank, n_users=2, n_interactions=None)) == {3, 4, 5}
    assert where(choose_few(users, pool, rank, n_users=None, n_interactions=4)) == {3, 4, 5, 0}
