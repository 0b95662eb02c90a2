"""Which interactions a run trains on, validates on and tests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.card.histories import Histories, IntArray

LEAVE_ONE_OUT = {"LS": "valid_and_test"}

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """A split of :attr:`histories`; its parts are positions there.

    Attributes:
        setting: ``eval_args.split``.
        histories: all interactions.
        train: what is trained on, each user's first interaction included.
        valid, test: the targets.
        seen: mask of what rows of the test may hold, as history or target, ``(n,)``.
    """

    setting: Mapping[str, Any]
    histories: Histories
    train: IntArray
    valid: IntArray
    test: IntArray
    seen: BoolArray

    @property
    def kind(self) -> str:
        """The kind of split: ``LS``, ``RS``, ``TS``, ``GT``, ``CI`` or ``LT``."""
        return next(iter(self.setting))

    @cached_property
    def known(self) -> BoolArray:
        """Mask of all interactions but test targets, ``(n,)``: what users' main languages come from."""
        mask = np.ones(len(self.histories), dtype=bool)
        mask[self.test] = False
        return mask

    @cached_property
    def train_counts(self) -> IntArray:
        """Training interactions of each item of the catalogue, ``(n_items,)``."""
        return np.bincount(self.histories.items[self.train], minlength=len(self.histories.item_ids))

    @cached_property
    def test_users(self) -> NDArray[np.uint32]:
        """User of each test target, ``(n_test,)``."""
        return self.histories.users[self.test]

    @cached_property
    def test_items(self) -> NDArray[np.uint32]:
        """Item of each test target, ``(n_test,)``."""
        return self.histories.items[self.test]

    # ---- what is odd about the test targets -------------------------------------------------------------------

    def repeated_targets(self) -> int:
        """Count test targets that their user has met before, in what the test may see."""
        return self._count_targets("item", ~pl.struct("user", "item").is_first_distinct())

    def tied_targets(self) -> int:
        """Count test targets at the time of another interaction of their user that the test may see."""
        if self.histories.times is None:
            return 0
        return self._count_targets("time", pl.struct("user", "time").is_duplicated())

    def early_targets(self) -> int:
        """Count test targets with a later interaction of their user in their history."""
        if self.histories.times is None:
            return 0
        so_far = self._seen("time").select(pl.col("time").cum_max().over("user")).to_series().to_numpy()
        place = np.cumsum(self.seen)[self.test] - 1
        return int((so_far[place] > self.histories.times[self.test]).sum())

    def _count_targets(self, column: str, condition: pl.Expr) -> int:
        """Count test targets that meet a condition among what equals one of them in user and ``column``."""
        seen = self._seen(column)
        is_target = pl.Series(~self.known).filter(pl.Series(self.seen))
        targets = seen.filter(is_target).unique()
        alike = seen.with_columns(is_target=is_target).join(
            targets, on=["user", column], how="semi", maintain_order="left"
        )
        return alike.filter(condition & pl.col("is_target")).height

    def _seen(self, column: str) -> pl.DataFrame:
        values = {"item": self.histories.items, "time": self.histories.times}
        return pl.DataFrame({"user": self.histories.users, column: values[column]}).filter(pl.Series(self.seen))


def leave_one_out(histories: Histories) -> Split:
    """Return the leave-one-out split as sequential models meet it.

    They predict from a user's second interaction on, and train on one prediction at least: users with three
    interactions have no validation target, those with fewer no test target, and a single one is not even trained on.
    """
    end, length = histories.start + histories.length, histories.length
    test, valid = end[length >= 3] - 1, end[length >= 4] - 2
    is_train = np.ones(len(histories), dtype=bool)
    for held_out in (test, valid, histories.start[length == 1]):
        is_train[held_out] = False
    seen = np.ones(len(histories), dtype=bool)
    return Split(LEAVE_ONE_OUT, histories, np.flatnonzero(is_train), valid, test, seen)
