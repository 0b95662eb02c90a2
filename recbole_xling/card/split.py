"""The split of a dataset as a run makes it: all interactions in order, and which of them are trained and tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from recbole.utils import FeatureSource, FeatureType

from recbole_xling.card.dataset import CardDataset
from recbole_xling.data.language_balance import parts_of_languages
from recbole_xling.data.splits.rules import SplitPart, used_by

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_ROW = "_row_of_table"  # column of inter_feat: the row's number before it was split


@dataclass(frozen=True)
class Split:
    """All interactions of a dataset, sorted by user, then time, and the positions of the parts of its split.

    Attributes:
        setting: ``eval_args.split``.
        users: number of each interaction's user, ``(n,)``, from 0 without a gap.
        user_ids: the dataset's id of each user, ``(n_users,)``.
        items: number of each interaction's item, ``(n,)``, from 0; RecBole's id less one.
        times: time stamps, ``(n,)``; None if the dataset has none.
        n_items: items of the catalog; some may never interact.
        train: what is trained on, each user's first interaction included.
        valid, test: the targets.
        seen: mask of what rows of the test may contain, as history or target, ``(n,)``.
        used: mask of what is in any part, or in a history there, ``(n,)``.
    """

    setting: Mapping[str, Any]
    users: IntArray
    user_ids: IntArray
    items: IntArray
    times: NDArray[np.float64] | None
    n_items: int
    train: IntArray
    valid: IntArray
    test: IntArray
    seen: BoolArray
    used: BoolArray

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def length(self) -> IntArray:
        """Interactions of each user, ``(n_users,)``."""
        return np.bincount(self.users)

    @cached_property
    def n_pairs(self) -> int:
        """How many different user-item pairs occur."""
        return pl.Series(self.users * self.n_items + self.items).n_unique()

    @cached_property
    def item_counts(self) -> IntArray:
        """Interactions of each item of the catalog, ``(n_items,)``."""
        return np.bincount(self.items, minlength=self.n_items)

    @cached_property
    def train_counts(self) -> IntArray:
        """Training interactions of each item of the catalog, ``(n_items,)``."""
        return np.bincount(self.items[self.train], minlength=self.n_items)

    @cached_property
    def known(self) -> BoolArray:
        """Mask of all that is used but test targets, ``(n,)``: what languages that users do not state come from."""
        mask = self.used.copy()
        mask[self.test] = False
        return mask

    # ---- what is odd about the test targets -------------------------------------------------------------------

    def repeated_targets(self) -> int:
        """Count test targets that their user has met before, in what the test may see."""
        return self._count_targets("item", ~pl.struct("user", "item").is_first_distinct())

    def tied_targets(self) -> int:
        """Count test targets at the time of another interaction of their user that the test may see."""
        return 0 if self.times is None else self._count_targets("time", pl.struct("user", "time").is_duplicated())

    def _count_targets(self, column: str, condition: pl.Expr) -> int:
        """Count test targets that meet a condition among what equals one of them in user and ``column``."""
        seen = self._seen(column)
        is_target = pl.Series(np.isin(np.arange(len(self)), self.test)).filter(pl.Series(self.seen))
        targets = seen.filter(is_target).unique()
        alike = seen.with_columns(is_target=is_target).join(
            targets, on=["user", column], how="semi", maintain_order="left"
        )
        return alike.filter(condition & pl.col("is_target")).height

    def _seen(self, column: str) -> pl.DataFrame:
        values = {"item": self.items, "time": self.times}
        return pl.DataFrame({"user": self.users, column: values[column]}).filter(pl.Series(self.seen))


def build_split(dataset: CardDataset) -> Split:
    """Split a loaded dataset as a run does, as sequential models meet it; the dataset is changed by that.

    Raises:
        ConfigError: the split asks for languages, users or columns that the dataset does not have.
        DataError: the split leaves nothing to train or test on, or a part has no row of ``languages``.
    """
    dataset.inter_feat[_ROW] = np.arange(len(dataset.inter_feat))
    dataset.set_field_property(_ROW, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
    train, valid, test = parts = dataset.build()
    if dataset.config["languages"]:
        train, valid, test = parts_of_languages(parts, train, dataset.config)
    ordered = getattr(dataset, "sequence", dataset.inter_feat)  # RecBole's splits share a sequence, ours do not
    row = ordered[_ROW].numpy()
    position = np.empty_like(row)
    position[row] = np.arange(len(row))

    def mask(rows: Any) -> BoolArray:
        found = np.zeros(len(row), dtype=bool)
        found[position[rows[_ROW].numpy()]] = True
        return found

    users = ordered[dataset.uid_field].numpy()
    used = np.ones(len(row), dtype=bool)
    if hasattr(train, "used"):  # of our splits
        used = used_by(users, [SplitPart(mask(part.sequence), mask(part.inter_feat)) for part in parts])
    return Split(
        setting=dataset.config["eval_args"]["split"],
        users=np.cumsum(np.append(False, users[1:] != users[:-1])),
        user_ids=np.unique(users),
        items=ordered[dataset.iid_field].numpy() - 1,
        times=ordered[dataset.time_field].numpy() if dataset.has_times else None,
        n_items=dataset.item_num - 1,
        train=position[train.sequence[_ROW].numpy()[train.train_mask]],
        valid=position[valid.inter_feat[_ROW].numpy()],
        test=position[test.inter_feat[_ROW].numpy()],
        seen=mask(test.sequence),
        used=used,
    )
