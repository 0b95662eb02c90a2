"""The rules of our splits: which interactions each part consists of, as masks over sorted interactions.

All functions are pure. Interactions are sorted by user, then time; two of a user at the same time keep their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.sequences import IntArray, user_starts

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SplitPart:
    """One part of a split, masks ``(n_interactions,)``.

    Attributes:
        visible: what its rows may contain, as history or target; this part never sees anything else.
        targets: what is to be predicted; in validation and test each has a visible interaction before it.
    """

    visible: BoolArray
    targets: BoolArray


SplitParts = tuple[SplitPart, SplitPart, SplitPart]
"""Training, validation, test."""


def masks_with_validation(users: IntArray, parts: SplitParts) -> SplitParts:
    """Return the parts of a split whose validation is trained on: nothing is validated.

    Args:
        users: ``(n,)``.
        parts: of the split.
    """
    train, valid, test = parts
    nothing = np.zeros_like(valid.targets)
    has_later = count_before(users[::-1], valid.targets[::-1])[::-1] > 0  # a validation target
    # what only validation sees is the first interaction of users who begin there: the history of their first target
    visible = train.visible | valid.targets | (valid.visible & has_later)
    everything = SplitPart(visible, train.targets | valid.targets)
    return everything, SplitPart(valid.visible, nothing), test


def used_by(users: IntArray, parts: Sequence[SplitPart]) -> BoolArray:
    """Return what is a target of some part, or in the history of one there, ``(n,)``."""
    used = np.zeros(len(users), dtype=bool)
    for part in parts:
        has_later = count_before(users[::-1], part.targets[::-1])[::-1] > 0  # a target
        used |= part.targets | (part.visible & has_later)
    return used


# ---- along a user's sequence ----------------------------------------------------------------------------------


def count_before(users: IntArray, mask: BoolArray) -> IntArray:
    """Return how many earlier interactions of the same user are in ``mask``, ``(n,)``."""
    before: IntArray = np.cumsum(mask) - mask
    return before - before[user_starts(users)]


def last_of_user(users: IntArray, mask: BoolArray) -> BoolArray:
    """Return the mask of each user's last interaction in ``mask``."""
    found = np.flatnonzero(mask)
    mine = users[found]
    last = np.zeros_like(mask)
    last[found[np.append(mine[1:] != mine[:-1], True)[: len(found)]]] = True
    return last


def all_before(users: IntArray, mask: BoolArray) -> BoolArray:
    """Return what comes before the user's first interaction in ``mask``; all interactions of users without one."""
    return count_before(users, mask) + mask == 0


def seeded_uniform(tokens: Sequence[str], seed: int) -> FloatArray:
    """Return a number in [0, 1) for each token that depends on the token and the seed alone, ``(n,)``."""
    digests = b"".join(hashlib.blake2b(f"{seed}\t{token}".encode(), digest_size=8).digest() for token in tokens)
    return np.frombuffer(digests, dtype=">u8").astype(np.float64) / 2.0**64


# ---- global time ----------------------------------------------------------------------------------------------


def time_points(times: FloatArray, shares: Sequence[float]) -> tuple[float, float]:
    """Return two points in time, before which at most the first share and the first two shares of interactions are."""
    ordered = np.append(np.sort(times), np.inf)
    places = [int(len(times) * share + 1e-9) for share in np.cumsum(shares)[:2]]
    return float(ordered[places[0]]), float(ordered[places[1]])


def global_time_parts(users: IntArray, times: FloatArray, points: tuple[float, float]) -> SplitParts:
    """Train before the first point, validate from there to the second, test from there on."""
    first, second = points
    everything = np.ones(len(users), dtype=bool)
    has_history = count_before(users, everything) > 0
    train, before_test = times < first, times < second
    valid = before_test & ~train & has_history
    return SplitPart(train, train), SplitPart(before_test, valid), SplitPart(everything, ~before_test & has_history)


# ---- cold items -----------------------------------------------------------------------------------------------


def item_parts(uniform: FloatArray, shares: Sequence[float]) -> IntArray:
    """Return 0, 1 or 2 for each item: trained on, validated on, tested on."""
    return np.searchsorted(np.cumsum(shares)[:2], uniform, side="right").astype(np.int64)


def cold_item_parts(users: IntArray, part_of_interaction: IntArray) -> SplitParts:
    """Predict each user's last interaction with a held-out item from earlier ones with other items.

    Training contains neither what comes after that target nor any interaction with a held-out item.

    Args:
        users: ``(n,)``.
        part_of_interaction: the :func:`item_parts` of the interactions' items, ``(n,)``.
    """
    warm = part_of_interaction == 0
    target = last_of_user(users, ~warm) & (count_before(users, warm) > 0)
    train = warm & all_before(users, target)
    valid, test = target & (part_of_interaction == 1), target & (part_of_interaction == 2)
    return SplitPart(train, train), SplitPart(warm | valid, valid), SplitPart(warm | test, test)


# ---- language transfer ----------------------------------------------------------------------------------------


def no_few_shot(pool: BoolArray) -> BoolArray:
    """Choose nothing: zero-shot."""
    return np.zeros_like(pool)


def transfer_parts(
    users: IntArray,
    source: BoolArray,
    target: BoolArray,
    tested: BoolArray,
    few_shot: Callable[[BoolArray], BoolArray] = no_few_shot,
) -> SplitParts:
    """Train and validate on source languages, test on each user's last interaction in a language that is tested.

    Per user, training ends before the validation target (the last of the source languages), and both come before the
    test target. Test rows see everything that the user did before, in any language.

    Args:
        users: ``(n,)``.
        source: which interactions are of a source language, ``(n,)``.
        target: which are of a target language, ``(n,)``.
        tested: which are of a language that is tested, ``(n,)``.
        few_shot: chooses from the interactions of the target languages that training may have.
    """
    everything = np.ones(len(users), dtype=bool)
    test = last_of_user(users, tested) & (count_before(users, everything) > 0)
    open_to_training = all_before(users, test)
    material = source & open_to_training
    valid = last_of_user(users, material) & (count_before(users, material) > 0)
    open_to_training &= all_before(users, valid)
    pool = target & open_to_training & np.isin(users, users[test])
    train = (source & open_to_training) | few_shot(pool)
    return SplitPart(train, train), SplitPart(train | valid, valid), SplitPart(everything, test)


def choose_few(
    users: IntArray, pool: BoolArray, user_rank: IntArray, *, n_users: int | None, n_interactions: int | None
) -> BoolArray:
    """Choose the first users by rank with all their interactions in the pool, or the first interactions in that order.

    Users come one after another, each user's interactions in order of time, so a smaller choice is part of every
    larger one.

    Args:
        users: ``(n,)``.
        pool: what may be chosen, ``(n,)``.
        user_rank: a permutation over all users, indexed by user.
        n_users: how many users; None to count interactions.
        n_interactions: how many interactions; used if ``n_users`` is None.
    """
    candidates = np.flatnonzero(pool)
    rank = user_rank[users[candidates]]
    if n_users is not None:
        candidates = candidates[np.isin(rank, np.unique(rank)[:n_users])]
    else:
        candidates = candidates[np.argsort(rank, kind="stable")][:n_interactions]
    chosen = np.zeros_like(pool)
    chosen[candidates] = True
    return chosen
