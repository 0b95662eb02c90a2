"""All interactions in the order of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """Interactions sorted by user, then time.

    Attributes:
        users: number of each interaction's user, ``(n,)``, from 0 without a gap.
        items: place of each interaction's item in ``item_ids``, ``(n,)``.
        times: time stamps, ``(n,)``; None where the data set has none.
        user_ids: external ids of the users, ``(n_users,)``.
        item_ids: external ids of the catalogue's items, ``(n_items,)``; some may never interact.
        missing_ids: rows that were dropped for want of a user or item.
        unknown_items: rows that were dropped because the catalogue lacks their item.
        missing_times: interactions without a time stamp.
    """

    users: NDArray[np.uint32]
    items: NDArray[np.uint32]
    times: NDArray[np.float64] | None
    user_ids: pl.Series
    item_ids: pl.Series
    missing_ids: int
    unknown_items: int
    missing_times: int

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def length(self) -> IntArray:
        """Interactions of each user, ``(n_users,)``."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    @cached_property
    def start(self) -> IntArray:
        """Position of each user's first interaction, ``(n_users,)``."""
        return np.cumsum(self.length) - self.length

    @cached_property
    def item_counts(self) -> IntArray:
        """Interactions of each item of the catalogue, ``(n_items,)``."""
        return np.bincount(self.items, minlength=len(self.item_ids))
