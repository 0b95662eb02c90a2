"""A dataset as a run loads it, and what in its files a run drops or fills in."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from recbole.utils import FeatureSource, FeatureType

from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.splits.build import check_times
from recbole_xling.errors import DataError
from recbole_xling.text.raw_tables import table_columns, table_rows

LEAVE_ONE_OUT = {"LS": "valid_and_test"}
_FILTERS = ("rm_dup_inter", "val_interval", "user_inter_num_interval", "item_inter_num_interval")
_NO_FILTER = (None, "[0,inf)")


class CardDataset(XLingDataset):
    """The dataset of a run, which counts what its files have before RecBole filters them and fills gaps.

    Attributes:
        missing_ids: rows without a user or item; RecBole drops them.
        unknown_items: rows with items that the ``.item`` file lacks; RecBole drops them if that file is loaded.
        missing_times: rows without a time stamp among the others.
        duplicate_rows: rows that equal an earlier one in every column.
        unknown_users: users that the ``.user`` file lacks.
        idle_users: users of the ``.user`` file without an interaction.
        times: time stamps of the interactions as loaded, ``(n,)``, which RecBole rounds to single precision when it
            splits; None if the dataset has none.
    """

    missing_ids: int
    unknown_items: int
    missing_times: int
    duplicate_rows: int
    unknown_users: int = 0
    idle_users: int = 0
    times: NDArray[np.float64] | None = None

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """Read a file as RecBole does, but say where it is wrong; RecBole would cut off rows that are too long."""
        separator, is_inter = self.config["field_separator"].encode(), source == FeatureSource.INTERACTION
        with open(filepath, "rb") as file:
            width = next(file, b"").count(separator)
            for number, line in enumerate(file, start=2):
                if line.count(separator) > width and b'"' not in line:  # a quoted cell may contain separators
                    reason = f"line {number} has more cells than the header"
                    raise DataError(f"{filepath} cannot be read as a table: {reason}; correct it")
        try:
            table = super()._load_feat(filepath, source)
        except ValueError as error:
            if is_inter:
                self._check_numbers(filepath)
            raise DataError(f"{filepath} cannot be read as a table: {error}; correct it") from None
        if is_inter and self.time_field in table:
            times = table[self.time_field]
            if times.dtype.kind == "f" and np.isinf(times).any():
                self._check_numbers(filepath)
        return table

    def _check_numbers(self, path: str) -> None:
        """Raise a DataError that names the first time that is not a finite number, if any."""
        separator = self.config["field_separator"]
        names = table_columns(Path(path), separator=separator)
        if self.time_field not in names:
            return
        column = names.index(self.time_field)
        texts = pd.read_csv(path, sep=separator, usecols=[column], dtype=str, engine="python").iloc[:, 0]
        is_wrong = texts.notna() & ~np.isfinite(pd.to_numeric(texts, errors="coerce"))
        if is_wrong.any():
            row = int(is_wrong.to_numpy().argmax())
            raise DataError(
                f"{path}: row {row + 1} below the header: {self.time_field} {texts[row]!r} is not a finite number; "
                "correct it"
            ) from None

    def _load_user_or_item_feat(self, token: str, dataset_path: str, source: FeatureSource, field_name: str) -> Any:
        """Read a table of mere ids as it is: RecBole takes a quote in a text for the start of a quoted cell."""
        field = getattr(self, field_name)
        if (self.config["load_col"] or {}).get(source.value) != [field]:
            return super()._load_user_or_item_feat(token, dataset_path, source, field_name)
        self.field2source[field] = FeatureSource(f"{source.value}_id")
        ids = self._listed_ids(source, field)
        return None if ids is None else pd.DataFrame({field: ids}, dtype=str)

    def _listed_ids(self, source: FeatureSource, field: str) -> list[str] | None:
        """Return the ids of the ``.user`` or ``.item`` file, each once; None if the dataset has no such file."""
        path = Path(self.dataset_path) / f"{self.dataset_name}.{source.value}"
        if not path.is_file():
            return None
        rows = table_rows(path, [field], separator=self.config["field_separator"])
        return list(dict.fromkeys(cells[0] for _, cells in rows if cells[0]))

    def _data_filtering(self) -> None:
        table, ids = self.inter_feat, [self.uid_field, self.iid_field]
        complete = table[ids].notna().all(axis=1)
        is_kept = complete
        if self.item_feat is not None:
            is_kept = complete & table[self.iid_field].isin(self.item_feat[self.iid_field])
        if not is_kept.any():
            raise DataError(f"'{self.dataset_name}' has no interaction with a known item; is it the right .inter file?")
        self.missing_ids = int((~complete).sum())
        self.unknown_items = int((complete & ~is_kept).sum())
        self.missing_times = int(is_kept.sum())
        if self.time_field in table:
            self.missing_times = int(table[self.time_field][is_kept].isna().sum())
        alike = table[table.duplicated(ids, keep=False)]
        sequences = [field for field in table if self.field2type[field].value.endswith("seq")]  # arrays, not hashable
        alike = alike.assign(**{field: alike[field].map(tuple) for field in sequences})
        self.duplicate_rows = int(alike.duplicated().sum())
        listed = self._listed_ids(FeatureSource.USER, self.uid_field)
        if listed is not None:
            found = set(table[self.uid_field][is_kept].unique())
            self.unknown_users, self.idle_users = len(found.difference(listed)), len(set(listed) - found)
        if self.missing_ids:  # RecBole drops other rows than these if both users and items are missing
            self.inter_feat = table[complete].reset_index(drop=True)
        super()._data_filtering()


def load_dataset(config: XLingConfig) -> CardDataset:
    """Load a dataset as a run with these settings does, whatever its model.

    Leave-one-out of all interactions needs no times (the order of the file takes their place) and no ``.user`` file, so
    users that it lacks are kept. For other splits, and with filters, the columns are those of ``load_col``; if it is
    not given, times and users' columns as well, which RecBole leaves out.

    Args:
        config: the settings.

    Raises:
        DataError: a file is missing or wrong.
    """
    ids, time = [config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]], config["TIME_FIELD"]
    inter_file = Path(config["data_path"]) / f"{config['dataset']}.inter"
    if not inter_file.is_file():
        raise DataError(f"there is no file {inter_file}; convert the dataset first (recbole-xling convert)")
    names = table_columns(inter_file, separator=config["field_separator"])
    for field in ids:
        if field not in names:
            raise DataError(f"{inter_file}: no column '{field}'; its columns are {', '.join(names)}")
    is_plain = config["eval_args"]["split"] == LEAVE_ONE_OUT and all(config[key] in _NO_FILTER for key in _FILTERS)
    columns = config["load_col"]
    if is_plain:
        columns = {"inter": "*", "item": ids[1:]}
    elif "load_col" not in config.external_config_dict and time not in (columns or {}).get("inter", ()):
        columns = {"inter": "*", "user": "*", "item": ids[1:]}
    changed = {"load_col": columns, "eval_args": {**config["eval_args"], "order": "TO"}, "benchmark_filename": None}
    changed |= dict.fromkeys(("discretization", "preload_weight", "additional_feat_suffix"))  # what only models need
    changed["numerical_features"] = []
    changed |= {key: None for key in _FILTERS if config[key] in _NO_FILTER}  # RecBole counts even for "[0,inf)"
    config = copy(config)
    config.final_config_dict = {**config.final_config_dict, **changed}
    dataset = CardDataset(config)
    if time in dataset.inter_feat:
        dataset.times = np.nan_to_num(dataset.inter_feat[time].to_numpy(dtype=np.float64))  # NaN if all are missing
    elif is_plain:
        dataset.inter_feat[time] = 0.0
        dataset.set_field_property(time, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
    check_times(dataset)
    return dataset
