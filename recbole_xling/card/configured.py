"""The interactions and the split of a run with given settings, made by the run's own code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from recbole.utils import FeatureSource, FeatureType

from recbole_xling.card.histories import Histories, IntArray
from recbole_xling.card.split import LEAVE_ONE_OUT, Split, leave_one_out
from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.split_settings import read_split
from recbole_xling.data.splitting import check_times

_ROW = "_row_of_table"  # column of inter_feat: the row's number before it was split
_FILTERS = ("rm_dup_inter", "val_interval", "user_inter_num_interval", "item_inter_num_interval")
_NO_FILTER = (None, "[0,inf)")


def configured_split(config: XLingConfig, histories: Histories) -> Split:
    """Return the split that a run with these settings has, of the interactions that its filters keep.

    Leave-one-out of all interactions needs nothing but ``histories``. Any other split, and one after filters, is
    made as a run makes it, from files read anew, which takes a run's memory.

    Args:
        config: the settings.
        histories: all interactions of the data set.

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
        train=position[train.sequence[_ROW].numpy()[train.is_held]],
        valid=position[valid.inter_feat[_ROW].numpy()],
        test=position[test.inter_feat[_ROW].numpy()],
        seen=seen,
    )


def _load(config: XLingConfig) -> XLingDataset:
    """Load a data set; where nobody says which columns, times and users' columns as well, which RecBole leaves out."""
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
    """Return a loaded data set's interactions in the order of its splits, and each row's position in that order."""
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
