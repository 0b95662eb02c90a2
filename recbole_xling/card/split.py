"""Which interactions a run trains on, validates on and tests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from recbole.utils import FeatureSource, FeatureType

from recbole_xling.card.histories import Histories, IntArray
from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.splits.build import check_times
from recbole_xling.data.splits.settings import read_split

_ROW = "_row_of_table"  # column of inter_feat: the row's number before it was split
_FILTERS = ("rm_dup_inter", "val_interval", "user_inter_num_interval", "item_inter_num_interval")
_NO_FILTER = (None, "[0,inf)")


def configured_split(config: XLingConfig, histories: Histories) -> Split:
    """Return the split that a run with these settings has, of the interactions that its filters keep.

    Leave-one-out of all interactions needs nothing but ``histories``. Any other split, and one after filters, is
    made as a run makes it, from files read anew, which takes a run's memory.

    Args:
        config: the settings.
        histories: all interactions of the dataset.

    Raises:
        ConfigError: the split asks for languages, users or columns that are not there.
        DataError: there are no time stamps, or the split leaves nothing to train or test on.
    """
    unfiltered = all(config[key] in _NO_FILTER for key in _FILTERS)
    if unfiltered and config["eval_args"]["split"] == LEAVE_ONE_OUT:
        return leave_one_out(histories)
    dataset = _load(config)
    kept, position = _histories(dataset, histories)
    dataset.inter_feat[_ROW] = np.arange(len(position))
    dataset.set_field_property(_ROW, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
    train, valid, test = dataset.build()
    seen = np.zeros(len(position), dtype=bool)
    seen[position[test.sequence[_ROW].numpy()]] = True
    return Split(
        setting=config["eval_args"]["split"],
        histories=kept,
        train=position[train.sequence[_ROW].numpy()[train.train_mask]],
        valid=position[valid.inter_feat[_ROW].numpy()],
        test=position[test.inter_feat[_ROW].numpy()],
        seen=seen,
    )


def _load(config: XLingConfig) -> XLingDataset:
    """Load a dataset; where nobody says which columns, times and users' columns as well, which RecBole leaves out."""
    chosen = config["load_col"]
    if "load_col" not in config.external_config_dict and config["TIME_FIELD"] not in (chosen or {}).get("inter", ()):
        config["load_col"] = {"inter": "*", "user": "*", "item": [config["ITEM_ID_FIELD"]]}
    try:
        dataset = XLingDataset(config)
    finally:
        config["load_col"] = chosen
    check_times(dataset)
    return dataset


def _histories(dataset: Any, whole: Histories) -> tuple[Histories, IntArray]:
    """Return a loaded dataset's interactions in the order of its splits, and each row's position in that order."""
    table = dataset.inter_feat
    user, item = (table[field].to_numpy() for field in (dataset.uid_field, dataset.iid_field))
    time = table[dataset.time_field].to_numpy(dtype=np.float64)
    # RecBole's own splits compare times in single precision
    precision = np.float32 if read_split(dataset.config["eval_args"]["split"]) is None else np.float64
    order = np.lexsort((time.astype(precision), user))
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    distinct, users = np.unique(user[order], return_inverse=True)
    kept = replace(
        whole,
        users=users.astype(np.uint32),
        items=(item[order] - 1).astype(np.uint32),
        times=time[order],
        user_ids=_tokens(dataset, dataset.uid_field).gather(distinct - 1),
        item_ids=_tokens(dataset, dataset.iid_field),
    )
    return kept, position


def _tokens(dataset: Any, field: str) -> pl.Series:
    """Return the external ids of users or items without the padding one."""
    tokens: NDArray[Any] = dataset.field2id_token[field]
    return pl.Series([str(token) for token in tokens[1:]], dtype=pl.String)


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
        """Training interactions of each item of the catalog, ``(n_items,)``."""
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
