"""Splitting RecBole's datasets, and ours, by global time, by cold items and by language."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction, cat_interactions
from recbole.utils import FeatureType

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.sequences import IntArray, next_item_rows
from recbole_xling.data.splits.rules import (
    BoolArray,
    FloatArray,
    Part,
    Parts,
    choose_few,
    cold_item_parts,
    global_time_parts,
    item_parts,
    last_of_user,
    no_few_shot,
    seeded_uniform,
    time_points,
    transfer_parts,
)
from recbole_xling.data.splits.settings import ColdItems, GlobalTime, LanguageTransfer, SplitSetting, read_split
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import user_languages

logger = logging.getLogger(__name__)


def build_parts(dataset: Any) -> list[Any]:
    """Split a dataset of one of RecBole's own models as the configuration asks, by our kinds of splits or RecBole's.

    Args:
        dataset: loaded; :class:`~recbole_xling.data.dataset.XLingDataset` knows all kinds of splits itself.

    Returns:
        The datasets of training, validation and test.

    Raises:
        ConfigError: the split is not understood or does not suit the dataset, or the model makes its rows in a way of
            its own, which cannot be applied to a part of the data.
        DataError: there are no time stamps, or the split leaves nothing to train on or nothing to test on.
    """
    setting = read_split(dataset.config["eval_args"]["split"])
    if setting is None:
        built: list[Any] = dataset.build()
        return built
    if not isinstance(dataset, SequentialDataset):
        return split_dataset(dataset, setting)
    own = type(dataset).data_augmentation
    if own is not SequentialDataset.data_augmentation:
        model = dataset.config["model"]
        raise ConfigError(f"{model} makes rows in a way of its own ({own.__qualname__}): split by LS, RS or TS")
    parts = split_dataset(dataset, setting)
    # RecBole's build leaves all rows in the dataset, and counts FLOPs with them
    dataset.inter_feat = cat_interactions([part.inter_feat for part in parts])
    return parts


def split_dataset(dataset: Any, setting: SplitSetting) -> list[Any]:
    """Split a loaded dataset; what RecBole's ``build`` does for its own kinds of splits.

    Sequential datasets get one row per target, others one interaction per target. Rows are sorted by user, then
    time.

    Returns:
        The datasets of training, validation and test.

    Raises:
        ConfigError: the setting asks for languages, users or columns that are not there.
        DataError: there are no time stamps, or the split leaves nothing to train on or nothing to test on.
    """
    if dataset.config["benchmark_filename"]:
        raise ConfigError("benchmark_filename names files that are split already: leave it or eval_args: split out")
    check_times(dataset)
    times = _sort(dataset)
    Dataset._change_feat_format(dataset)
    parts = _parts(dataset, times, setting)
    built = [_build_part(dataset, part) for part in parts]
    for name, part in (("train on", built[0]), ("test on", built[2])):
        if not len(part.inter_feat):
            raise DataError(
                f"split {dataset.config['eval_args']['split']} of '{dataset.dataset_name}' leaves nothing to {name}: "
                f"it has {len(times)} interactions at times from {times.min():.0f} to {times.max():.0f}"
            )
    _drop_unused_columns(built)
    return built


def check_times(dataset: Any) -> None:
    """Raise a DataError if the column of time stamps is not loaded."""
    if dataset.time_field not in dataset.inter_feat:
        raise DataError(
            f"'{dataset.dataset_name}' has no column '{dataset.time_field}' to order interactions by: add it to "
            f"load_col['inter'], now {(dataset.config['load_col'] or {}).get('inter')}, or set TIME_FIELD"
        )


def _sort(dataset: Any) -> FloatArray:
    """Sort the table by user, then time, and return the times; RecBole keeps them in single precision later."""
    table = dataset.inter_feat
    order = np.lexsort((table[dataset.time_field].to_numpy(), table[dataset.uid_field].to_numpy()))
    dataset.inter_feat = table.iloc[order].reset_index(drop=True)
    times: FloatArray = dataset.inter_feat[dataset.time_field].to_numpy(dtype=np.float64)
    return times


def _take(table: Interaction, index: NDArray[np.int64]) -> Interaction:
    rows = torch.from_numpy(index)
    return Interaction({field: values[rows] for field, values in table.interaction.items()})


def _build_part(dataset: Any, part: Part) -> Any:
    if not isinstance(dataset, SequentialDataset):
        return dataset.copy(_take(dataset.inter_feat, np.flatnonzero(part.targets)))
    visible = np.flatnonzero(part.visible)
    built = dataset.copy(_take(dataset.inter_feat, visible))
    target, _ = next_item_rows(built.inter_feat[built.uid_field].numpy(), built.max_item_list_len)
    built.data_augmentation()  # one row per visible interaction that has a history
    built.inter_feat = _take(built.inter_feat, np.flatnonzero(part.targets[visible][target]))
    return built


def _drop_unused_columns(built: Sequence[Any]) -> None:
    built[0]._drop_unused_col()
    unused = (built[0].config["unused_col"] or {}).get("inter", ())
    for part in built[1:]:
        for field in unused:
            if field in part.inter_feat:
                part._del_col(part.inter_feat, field)


# ---- kinds ----------------------------------------------------------------------------------------------------


def _parts(dataset: Any, times: FloatArray, setting: SplitSetting) -> Parts:
    users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    if isinstance(setting, GlobalTime):
        points = setting.points or time_points(times, setting.shares or ())
        logger.info("Split by time: training before %.0f, test from %.0f on", *points)
        return global_time_parts(users, times, points)
    if isinstance(setting, ColdItems):
        part_of_item = item_parts(_uniform(dataset, dataset.iid_field), setting.shares)
        counts = np.bincount(part_of_item[1:], minlength=3).tolist()  # without the padding item
        logger.info("Split by items: %d to train on, %d held out for validation, %d for the test", *counts)
        return cold_item_parts(users, part_of_item[items])
    source, target = _language_masks(dataset, setting, users, items)
    if setting.users is None and setting.interactions is None:
        return transfer_parts(users, source, target, no_few_shot)
    rank = np.argsort(np.argsort(_uniform(dataset, dataset.uid_field)))
    return transfer_parts(users, source, target, lambda pool: _few_shot(setting, users, pool, rank))


def _uniform(dataset: Any, field: str) -> FloatArray:
    return seeded_uniform([str(token) for token in dataset.field2id_token[field]], dataset.config["seed"])


def _few_shot(setting: LanguageTransfer, users: IntArray, pool: BoolArray, rank: IntArray) -> BoolArray:
    there = {"users": len(np.unique(users[pool])), "interactions": int(pool.sum())}
    for kind, wanted in (("users", setting.users), ("interactions", setting.interactions)):
        if wanted is not None and wanted > there[kind]:
            raise ConfigError(
                f"split LT asks for {wanted} {kind} of {', '.join(setting.target)}, but training may have {there[kind]}"
            )
    return choose_few(users, pool, rank, n_users=setting.users, n_interactions=setting.interactions)


def _language_masks(
    dataset: Any, setting: LanguageTransfer, users: IntArray, items: IntArray
) -> tuple[BoolArray, BoolArray]:
    """Return which interactions are of the source and of the target languages."""
    if setting.by == "item":
        languages, ids = catalog_of(dataset).languages, items
    else:
        languages, ids = _user_languages(dataset, setting.by, users, items), users
    known = set(languages) - {UNDETERMINED}
    for name in (*setting.source, *setting.target):
        if name not in known:
            kind = "item" if setting.by == "item" else "user"
            raise ConfigError(
                f"split LT: no {kind} of '{dataset.dataset_name}' is of language '{name}'; "
                f"languages there: {', '.join(sorted(known)) or 'none'}"
            )
    source, target = (np.isin(np.array(languages), names)[ids] for names in (setting.source, setting.target))
    return source, target


def _user_languages(dataset: Any, by: str, users: IntArray, items: IntArray) -> list[str]:
    """Return the users' languages: from all but their last interactions, or from a column of the ``.user`` file."""
    if by == "user":
        known = ~last_of_user(users, np.ones(len(users), dtype=bool))
        return user_languages(catalog_of(dataset).languages, users[known], items[known], dataset.user_num)
    table = dataset.user_feat
    columns = [] if table is None else [f for f in table.columns if dataset.field2type[f] == FeatureType.TOKEN]
    if by not in columns:
        known_names = ["user", "item", *(column for column in columns if column != dataset.uid_field)]
        raise ConfigError(f"{unknown_name('value of by in split LT', by, known_names)}; more with load_col: user")
    names = [str(token) for token in dataset.field2id_token[by]]
    return [names[index] if index else UNDETERMINED for index in table[by].tolist()]
