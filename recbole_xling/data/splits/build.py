"""Splitting datasets, RecBole's and ours, by global time, by cold items and by language."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import cat_interactions
from recbole.utils import FeatureSource, FeatureType

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.mixin import XLingDatasetMixin, check_times, take_rows
from recbole_xling.data.sequences import IntArray, next_item_rows
from recbole_xling.data.splits.files import has_histories
from recbole_xling.data.splits.rules import (
    BoolArray,
    FloatArray,
    SplitPart,
    SplitParts,
    choose_few,
    cold_item_parts,
    count_before,
    global_time_parts,
    item_parts,
    last_of_user,
    masks_with_validation,
    no_few_shot,
    seeded_uniform,
    time_points,
    transfer_parts,
    used_by,
)
from recbole_xling.data.splits.settings import ColdItems, GlobalTime, LanguageTransfer, SplitSetting, read_split
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import UNDETERMINED

logger = logging.getLogger(__name__)


def build_parts(dataset: Any) -> list[Any]:
    """Split the dataset of one of RecBole's own models as the config asks, by our kinds of splits or RecBole's.

    Args:
        dataset: loaded; :class:`~recbole_xling.data.dataset.XLingDataset` splits itself.

    Returns:
        The datasets of training, validation and test.

    Raises:
        ConfigError: the split is not understood or does not suit the dataset, or the model makes its rows in its own
            way, which cannot be applied to a part of the data.
        DataError: time stamps are not loaded, or the split leaves nothing to train on or nothing to test on.
    """
    if dataset.config["benchmark_filename"]:
        split = file_parts
    else:
        setting = read_split(dataset.config["eval_args"]["split"])
        if setting is None:
            return with_validation(dataset.build())
        split = functools.partial(split_dataset, setting=setting)
    if not isinstance(dataset, SequentialDataset) or has_histories(dataset):
        return split(dataset)
    # the mixin keeps what RecBole's rows leave out, and makes none itself
    kinds = [kind for kind in type(dataset).__mro__ if kind is not XLingDatasetMixin]
    own = next(vars(kind)["data_augmentation"] for kind in kinds if "data_augmentation" in vars(kind))
    if own is not SequentialDataset.data_augmentation:
        model = dataset.config["model"]
        raise ConfigError(f"{model} makes rows in its own way ({own.__qualname__}): split by LS, RS or TS")
    parts = split(dataset)
    dataset.unsplit_feat = dataset.inter_feat  # some interactions are in no part
    # RecBole's build leaves all rows in the dataset, and counts FLOPs with them
    dataset.inter_feat = cat_interactions([part.inter_feat for part in parts])
    return parts


def all_rows(dataset: Any) -> Any:
    """Return a sequential dataset with a row for every interaction that has a history, however it was split."""
    rows = dataset.copy(getattr(dataset, "unsplit_feat", dataset.inter_feat))
    if rows.item_list_length_field not in rows.inter_feat:  # our splits make rows of their parts only
        rows.data_augmentation()
    return rows


def with_validation(parts: list[Any]) -> list[Any]:
    """Move the validation rows of one of RecBole's splits to training if ``train_on_validation`` asks for it."""
    if not parts[0].config["train_on_validation"]:
        return parts
    train, valid = (part.inter_feat for part in parts[:2])
    both = cat_interactions([train, valid]) if len(valid) else train
    return [parts[0].copy(both), parts[1].copy(take_rows(valid, np.empty(0, dtype=np.int64))), *parts[2:]]


def split_dataset(dataset: Any, setting: SplitSetting) -> list[Any]:
    """Split a loaded dataset, as RecBole's ``build`` does for its own kinds of splits.

    Sequential datasets get one row per target, others one interaction per target. Rows are sorted by user, then
    time.

    Returns:
        The datasets of training, validation and test, which know what all of them use together: ``used``, users and
        items. Some interactions are in no part, such as a user's later ones than his last target.

    Raises:
        ConfigError: the setting asks for languages, users or columns that the dataset lacks.
        DataError: time stamps are not loaded, or the split leaves nothing to train on or nothing to test on.
    """
    check_times(dataset)
    order = np.lexsort(tuple(dataset.inter_feat[field].to_numpy() for field in (dataset.time_field, dataset.uid_field)))
    dataset.inter_feat = dataset.inter_feat.iloc[order].reset_index(drop=True)
    times = dataset.inter_feat[dataset.time_field].to_numpy(dtype=np.float64)
    Dataset._change_feat_format(dataset)
    masks = _split_parts(dataset, times, setting)
    if dataset.config["train_on_validation"]:
        masks = masks_with_validation(dataset.inter_feat[dataset.uid_field].numpy(), masks)
    built = [_build_part(dataset, part) for part in masks]
    users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    used = used_by(users, masks)
    for part in built:
        part.used = users[used], items[used]
    for name, part in (("train on", built[0]), ("test on", built[2])):
        if not len(part.inter_feat):
            raise DataError(
                f"split {dataset.config['eval_args']['split']} of '{dataset.dataset_name}' leaves nothing to {name}: "
                f"it has {len(times)} interactions at times from {times.min():.0f} to {times.max():.0f}"
            )
    _drop_unused(built)
    return built


def file_parts(dataset: Any) -> list[Any]:
    """Split a loaded dataset as its files do (``benchmark_filename``).

    A sequential dataset whose files have one interaction per row gets the rows that other splits get: the history of a
    target is what its user did before it, in its own file or an earlier one. Without times, files and rows are in
    order. All other datasets are split as RecBole splits them.

    Returns:
        The datasets of training, validation and test.
    """
    if not isinstance(dataset, SequentialDataset) or has_histories(dataset):
        return with_validation(Dataset.build(dataset))
    table, time = dataset.inter_feat, dataset.time_field
    if time not in table:
        table[time] = np.arange(len(table), dtype=np.float64)
        dataset.set_field_property(time, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
    file = np.repeat(np.arange(3), dataset.file_size_list)
    if dataset.config["train_on_validation"]:
        file[file == 1] = 0
    order = np.lexsort((file, table[time].to_numpy(), table[dataset.uid_field].to_numpy()))
    dataset.inter_feat, file = table.iloc[order].reset_index(drop=True), file[order]
    Dataset._change_feat_format(dataset)
    users = dataset.inter_feat[dataset.uid_field].numpy()
    built = []
    for number, name in enumerate(dataset.config["benchmark_filename"]):
        visible, targets = file <= number, file == number
        rows = targets & (count_before(users, visible) > 0)
        if left_out := int(targets.sum() - rows.sum()) if number else 0:
            total = int(targets.sum())
            logger.warning("%d of %d interactions of '%s' are their user's first: no prediction", left_out, total, name)
        built.append(_build_part(dataset, SplitPart(visible, rows if number else targets)))
    _drop_unused(built)
    return built


def _drop_unused(parts: list[Any]) -> None:
    """Drop the columns that models are not to see from the parts of a split, which share tables of users and items."""
    whole = [*parts[0].inter_feat.columns]
    parts[0]._drop_unused_col()
    dropped = [field for field in whole if field not in parts[0].inter_feat]
    for part in parts[1:]:
        for field in dropped:
            if field in part.inter_feat:
                part._del_col(part.inter_feat, field)


def _build_part(dataset: Any, part: SplitPart) -> Any:
    """Return the dataset of one part of a split; it contains nothing that the part may not see.

    One without histories gets ``met``: users and items of what comes before a user's last target.
    """
    if not isinstance(dataset, SequentialDataset):
        built = dataset.copy(take_rows(dataset.inter_feat, np.flatnonzero(part.targets)))
        users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
        before = part.visible & ~part.targets & (count_before(users[::-1], part.targets[::-1])[::-1] > 0)
        built.met = users[before], items[before]  # which may be in no part
        return built
    visible = np.flatnonzero(part.visible)
    built = dataset.copy(take_rows(dataset.inter_feat, visible))
    target, _ = next_item_rows(built.inter_feat[built.uid_field].numpy(), built.max_item_list_len)
    built.data_augmentation()  # one row per visible interaction that has a history
    built.inter_feat = take_rows(built.inter_feat, np.flatnonzero(part.targets[visible][target]))
    return built


# ---- kinds ----------------------------------------------------------------------------------------------------


def _split_parts(dataset: Any, times: FloatArray, setting: SplitSetting) -> SplitParts:
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
    tested = source | target if setting.test == "both" else target
    if setting.users is None and setting.interactions is None:
        return transfer_parts(users, source, target, tested, no_few_shot)
    rank = np.argsort(np.argsort(_uniform(dataset, dataset.uid_field)))

    def few_shot(pool: BoolArray) -> BoolArray:
        available = {"users": len(np.unique(users[pool])), "interactions": int(pool.sum())}
        for kind, wanted in (("users", setting.users), ("interactions", setting.interactions)):
            if wanted is not None and wanted > available[kind]:
                raise ConfigError(
                    f"split LT asks for {wanted} {kind} of {', '.join(setting.target)}, but training may have "
                    f"{available[kind]}"
                )
        return choose_few(users, pool, rank, n_users=setting.users, n_interactions=setting.interactions)

    return transfer_parts(users, source, target, tested, few_shot)


def _uniform(dataset: Any, field: str) -> FloatArray:
    return seeded_uniform([str(token) for token in dataset.field2id_token[field]], dataset.config["seed"])


def _language_masks(
    dataset: Any, setting: LanguageTransfer, users: IntArray, items: IntArray
) -> tuple[BoolArray, BoolArray]:
    """Return which interactions are of the source and of the target languages."""
    kind = "user"
    if setting.by in ("item", "user"):
        readers = catalog_of(dataset).readers([str(token) for token in dataset.field2id_token[dataset.uid_field]])
    if setting.by == "item":  # in the language in which its user sees it
        kind, languages, ids = "item", list(readers.names), readers.seen(users, items)
    elif setting.by == "user":  # derived ones from all but the users' last interactions, which may be targets
        known = ~last_of_user(users, np.ones(len(users), dtype=bool))
        languages, ids = readers.languages(users[known], items[known]), users
    else:  # from a column of the .user file
        table = dataset.user_feat
        columns = [] if table is None else [f for f in table.columns if dataset.field2type[f] == FeatureType.TOKEN]
        if setting.by not in columns:
            options = ["user", "item", *(column for column in columns if column != dataset.uid_field)]
            message = unknown_name("value of by in split LT", setting.by, options)
            raise ConfigError(f"{message}; load_col: user loads more columns")
        names, ids = [str(token) for token in dataset.field2id_token[setting.by]], users
        languages = [names[index] if index else UNDETERMINED for index in table[setting.by].tolist()]
    found = set(languages) - {UNDETERMINED}
    for name in (*setting.source, *setting.target):
        if name not in found:
            raise ConfigError(
                f"split LT: no {kind} of '{dataset.dataset_name}' is of language '{name}'; "
                f"languages there: {', '.join(sorted(found)) or 'none'}"
            )
    source, target = (np.isin(np.array(languages), names)[ids] for names in (setting.source, setting.target))
    return source, target
