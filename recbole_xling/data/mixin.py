"""XLingDatasetMixin: how any of RecBole's datasets reads, filters and orders interactions in a run of recbole-xling."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, ModelType

from recbole_xling.data.checks import learns_from_labels
from recbole_xling.data.pinned_ids import PinnedIds
from recbole_xling.data.sequences import WholeHistories, next_item_rows, time_boundary_parts, user_starts
from recbole_xling.data.splits.files import StatedHistories, has_histories
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.text.atomic_files import PADDING, AtomicFile, file_format, read_atomic_file, read_header
from recbole_xling.utils.staging import reading

logger = logging.getLogger(__name__)

ROW = "_sequence_position"
"""Column of interactions that are rows with a history: the target's place in all interactions."""

WITHOUT, UNKNOWN = "without {}", "of unknown {}"
"""Reasons for which rows are left out, with the name of a column, and with ``users`` or ``items``."""


@dataclass
class FileRows:
    """How many rows of a file a dataset uses.

    Attributes:
        columns: names of all columns of the file.
        read: rows in the file.
        dropped: rows that were left out, by reason.
    """

    columns: list[str]
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def used(self) -> int:
        """Rows that the dataset uses."""
        return self.read - self.dropped.total()

    def __str__(self) -> str:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.dropped.items() if n)
        return f"{self.read:,} rows read, {self.used:,} used" + (f" ({reasons})" if reasons else "")


class XLingDatasetMixin(StatedHistories, PinnedIds):
    """Put before a RecBole ``Dataset`` class: raw reading, a count of what is left out, exact order in time.

    RecBole's own reader takes words such as ``NA`` for missing values and quotes for the marks of quoted cells, and
    its tensors have single precision, in which Unix seconds less than a minute apart are equal. Here the column of
    times has double precision in the tables that are sorted and split, and single precision in batches.

    Attributes:
        file_rows: rows of each file by its suffix (``inter``, ``user``, ``item``), and what was left out.
        missing_times: interactions without a time among others that have one; in order of time they are left out.
    """

    inter_feat: Any
    file_rows: dict[str, FileRows]
    missing_times: int = 0
    _sequence: Interaction | None = None
    _times_are_named: bool = True

    def _get_preset(self) -> None:
        super()._get_preset()
        self.file_rows = {}

    # ---- reading ----------------------------------------------------------------------------------------------

    def _load_data(self, token: str, dataset_path: str) -> None:
        with reading(Path(dataset_path), token):
            super()._load_data(token, dataset_path)

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """Read a file raw, with what RecBole's own reader notes about its columns.

        The columns are those of ``load_col``, ids and times in any case.

        Raises:
            DataError: the file is wrong; the message names its line.
        """
        load_col, unload_col = self._get_load_and_unload_col(source)
        is_inter = source == FeatureSource.INTERACTION
        if load_col == set() and not is_inter:
            return None
        path, types = Path(filepath), read_header(Path(filepath), **file_format(self.config))
        settings = self._id_settings(source)
        for name, setting in settings.items():
            if name not in types:
                raise DataError(f"{path}: no column '{name}' ({setting}); its columns are {', '.join(types)}")
        wanted = set(types) if load_col is None else {*load_col, self.time_field if is_inter else None}
        if is_inter:
            self._times_are_named = load_col is None or self.time_field in load_col
        file = read_atomic_file(path, wanted - (unload_col or set()) | settings.keys(), **file_format(self.config))
        if not file.types:
            logger.warning("no column of %s is loaded", path)
            return None
        if absent := sorted((load_col or set()) - set(types) - {self.time_field}):
            logger.warning("%s has no column '%s' that load_col names; it has %s", path, absent[0], ", ".join(types))
        table = pd.DataFrame({name: self._column(file, name, source) for name in file.types})
        rows = self.file_rows.setdefault(getattr(source, "value", source), FileRows(list(types)))
        rows.read += len(table)
        for name in settings:
            file.refuse(name, file.cells[name] == PADDING, "is the name that RecBole has for no id at all; rename it")
            if file.cells[name].null_count():  # looking for them in the table takes long
                rows.dropped[WITHOUT.format(name)] += int(table[name].isna().sum())
                table = table[table[name].notna()]
        return table.reset_index(drop=True)

    def _id_settings(self, source: FeatureSource | str) -> dict[str, str]:
        """Return the columns of ids that a file must have, and the setting that names each."""
        ids = {self.uid_field: "USER_ID_FIELD", self.iid_field: "ITEM_ID_FIELD"}
        needed = {
            FeatureSource.INTERACTION: (self.uid_field, self.iid_field),
            FeatureSource.USER: (self.uid_field,),
            FeatureSource.ITEM: (self.iid_field,),
        }.get(source, ())
        return {name: ids[name] for name in needed if name is not None}

    def _column(self, file: AtomicFile, name: str, source: FeatureSource | str) -> Any:
        """Return a column's values as RecBole keeps them, and note the column's properties."""
        kind = FeatureType(file.types[name])
        is_time = source == FeatureSource.INTERACTION and name == self.time_field
        if is_time:
            if kind not in (FeatureType.TOKEN, FeatureType.FLOAT):
                raise DataError(f"{file.path}: {name} (TIME_FIELD) is a {kind.value}; make it {name}:float")
            kind = FeatureType.FLOAT
        if source != "link":  # its columns have their properties from other files
            self.field2source[name], self.field2type[name] = source, kind
            if kind in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                self.field2bucketnum[name] = 2
        if kind in (FeatureType.TOKEN, FeatureType.FLOAT):
            if source != "link":
                self.field2seqlen[name] = 1
            if kind == FeatureType.TOKEN:
                return pd.Series(file.tokens(name), dtype=object)
            return file.times(name) if is_time else file.numbers(name)
        read: Callable[[str, str], list[NDArray[Any]]] = file.number_lists
        if kind == FeatureType.TOKEN_SEQ:
            read = file.token_lists
        longest = (self.config["seq_len"] or {}).get(name)
        lists = [values[:longest] for values in read(name, self.config["seq_separator"])]
        self.field2seqlen[name] = max(map(len, lists), default=0)
        return pd.Series(lists, dtype=object)

    def _load_user_or_item_feat(
        self, token: str, dataset_path: str, source: FeatureSource, field_name: str
    ) -> pd.DataFrame | None:
        table: pd.DataFrame | None = super()._load_user_or_item_feat(token, dataset_path, source, field_name)
        named = (self.config.external_config_dict.get("load_col") or {}).get(source.value)
        file = Path(dataset_path) / f"{token}.{source.value}"
        if named and not file.is_file():
            logger.warning("load_col names columns of %s, but there is no such file: it goes on without", file)
        if table is not None:
            rows = self.file_rows[source.value]
            rows.dropped["of an id that came before"] = rows.used - len(table)
        return table

    # ---- filtering --------------------------------------------------------------------------------------------

    def _data_processing(self) -> None:
        if self.benchmark_filename_list:  # such files are used whole, and RecBole would fill in the mean
            whole_or_none = [self.time_field] if self.time_field in self.inter_feat and not has_histories(self) else []
            for name in (*whole_or_none, *self._label_columns):
                missing, number = int(self.inter_feat[name].isna().sum()), len(self.inter_feat)
                if missing and not (name in whole_or_none and missing == number):
                    raise DataError(
                        f"{missing:,} of {number:,} interactions of {self.benchmark_filename_list} of "
                        f"'{self.dataset_name}' have no {name}: leave them out, or the whole column"
                    )
        super()._data_processing()
        for suffix, rows in self.file_rows.items():
            logger.info("%s.%s: %s", self.dataset_name, suffix, rows)

    @property
    def _label_columns(self) -> list[str]:
        """The columns of interactions that labels are, or are made of, where ``threshold`` or anybody reads them."""
        modes = self.config["eval_args"]["mode"].values()
        if not self.config["threshold"] and "labeled" not in modes and not learns_from_labels(self.config):
            return []
        return [name for name in self.config["threshold"] or [self.label_field] if name in self.inter_feat]

    @contextmanager
    def _counting(self, reason: str) -> Iterator[None]:
        """Count the rows that disappear from the tables within the context."""
        before = {suffix: len(table) for suffix, table in self._tables()}
        yield
        for suffix, table in self._tables():
            self.file_rows[suffix].dropped[reason] += before[suffix] - len(table)

    def _tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        for suffix in ("inter", "user", "item"):
            table = getattr(self, f"{suffix}_feat")
            if table is not None:
                yield suffix, table

    def _filter_nan_user_or_item(self) -> None:
        """Leave out interactions without a label, and without a time where time is the order.

        RecBole would give them the mean of the others: of ratings, and so a label that nobody gave, or of times, and so
        a place in the order that nobody stated. Rows without ids are not read at all.
        """
        for name in self._label_columns:
            with self._counting(WITHOUT.format(name)):
                self.inter_feat = self.inter_feat[self.inter_feat[name].notna()]
        if self.time_field not in self.inter_feat:
            return
        is_missing = self.inter_feat[self.time_field].isna()
        self.missing_times = int(is_missing.sum())
        how = self.config["eval_args"]
        if (how["order"] == "TO" or "TS" in how["split"]) and 0 < self.missing_times < len(self.inter_feat):
            with self._counting(WITHOUT.format(self.time_field)):
                self.inter_feat = self.inter_feat[~is_missing]

    def _remove_duplication(self) -> None:
        """Keep one interaction of each user with each item; of those at the same time the file's order decides."""
        keep = self.config["rm_dup_inter"]
        if keep is None:
            return
        if self.time_field in self.inter_feat:
            self.inter_feat = self.inter_feat.sort_values(self.time_field, kind="stable")
        else:
            logger.warning("'%s' has no times: the order of the file decides what is a repetition", self.dataset_name)
        with self._counting(f"that repeat another (rm_dup_inter: {keep})"):
            self.inter_feat = self.inter_feat.drop_duplicates([self.uid_field, self.iid_field], keep=keep)

    def _filter_by_field_value(self) -> None:
        self._check_loaded("val_interval")
        for name, wanted in (self.config["val_interval"] or {}).items():
            is_number = self.field2type[name] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
            lists = isinstance(wanted, list | tuple | set)
            if is_number and lists:  # RecBole would read it as an interval, or filter nothing
                listed = ";".join(f"[{value},{value}]" for value in wanted)
                raise ConfigError(f"val_interval: '{name}' has numbers: write intervals and no list, as in '{listed}'")
            if not is_number and not lists:
                raise ConfigError(f"val_interval: '{name}' has no numbers: list the values to keep, not {wanted!r}")
        with self._counting("outside val_interval"):
            super()._filter_by_field_value()

    def _set_label_by_threshold(self) -> None:
        self._check_loaded("threshold")
        super()._set_label_by_threshold()

    def _check_loaded(self, setting: str) -> None:
        """Raise a ConfigError if a setting names a column that is not loaded."""
        for name in self.config[setting] or ():
            if name not in self.field2type:
                found = {column: suffix for suffix, rows in self.file_rows.items() for column in rows.columns}
                if name not in found:
                    raise ConfigError(f"{setting}: {unknown_name('column', name, list(found))}")
                raise ConfigError(f"{setting}: name column '{name}' in load_col: {found[name]}, so that it is loaded")

    def _filter_inter_by_user_or_item(self) -> None:
        """Leave out interactions of users or items that the files of users and items lack."""
        if self.config["filter_inter_by_user_or_item"] is not True:
            return
        for suffix, field_name in (("user", self.uid_field), ("item", self.iid_field)):
            known = getattr(self, f"{suffix}_feat")
            if known is not None:
                with self._counting(UNKNOWN.format(f"{suffix}s")):
                    self.inter_feat = self.inter_feat[self.inter_feat[field_name].isin(known[field_name])]

    def _filter_by_inter_num(self) -> None:
        """Leave out users and items with too few or too many interactions, again and again until none is left."""
        sides = [  # without those whose interval holds every number, as it does by default
            (suffix, field_name, interval)
            for suffix, field_name in (("user", self.uid_field), ("item", self.iid_field))
            if (interval := self._parse_intervals_str(self.config[f"{suffix}_inter_num_interval"]))
            and not any(self._within_intervals(np.array([0, sys.maxsize]), [part]).all() for part in interval)
        ]
        with self._counting("outside user_inter_num_interval or item_inter_num_interval"):
            before = 0
            while sides and before != (before := sum(len(table) for _, table in self._tables())):
                is_kept = np.ones(len(self.inter_feat), dtype=bool)
                for suffix, field_name, interval in sides:
                    number, ids = pd.factorize(self.inter_feat[field_name])
                    fits = self._within_intervals(np.bincount(number), interval)
                    is_kept &= fits[number]
                    known = getattr(self, f"{suffix}_feat")
                    if known is not None:
                        place = pd.Index(ids).get_indexer(known[field_name])  # -1: no interactions
                        setattr(self, f"{suffix}_feat", known[np.append(fits, interval[0][1] <= 0)[place]])
                self.inter_feat = self.inter_feat[is_kept]

    def _reset_index(self) -> None:
        for suffix, table in self._tables():
            if table.empty:
                raise DataError(f"nothing of {self.dataset_name}.{suffix} is left: {self.file_rows[suffix]}")
        super()._reset_index()

    # ---- order ------------------------------------------------------------------------------------------------

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        """Convert as RecBole does, but keep double precision in the column of times."""
        table = super()._dataframe_to_interaction(data)
        time = self.time_field
        if time in table and table[time].dtype == torch.float32 and table[time].dim() == 1:
            table[time] = torch.from_numpy(data[time].to_numpy(np.float64, copy=True))
        return table

    def data_augmentation(self) -> None:
        """Make rows as RecBole's sequential datasets do, and keep what they leave out if that is not to be ranked."""
        if self.config["exclude_history"]:
            self.sort(by=[self.uid_field, self.time_field], ascending=True)  # as is done once more
            self._sequence = self.inter_feat
        super().data_augmentation()
        if self._sequence is not None:
            users = self._sequence[self.uid_field].numpy()
            target, _ = next_item_rows(users, self.config["MAX_ITEM_LIST_LENGTH"])
            self.inter_feat.update(Interaction({ROW: torch.from_numpy(target)}))

    def whole_histories(self) -> WholeHistories | None:
        """Return what users chose before rows; None where rows have no histories, or these are whole."""
        return None if self._sequence is None else self._whole_histories(self._sequence)

    def _whole_histories(self, sequence: Interaction) -> WholeHistories:
        target, length = (self.inter_feat[field].numpy() for field in (ROW, self.item_list_length_field))
        return WholeHistories(sequence[self.iid_field], user_starts(sequence[self.uid_field].numpy()), target, length)

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        rows = in_single_precision(super().__getitem__(index, join))
        if ROW in rows:
            rows.drop(ROW)
        return rows

    def sort(self, by: str | list[str], ascending: bool | list[bool] = True) -> None:
        """Sort interactions; equal ones keep the order of the file.

        Raises:
            DataError: they are to be sorted by times that the dataset does not have.
        """
        if self.time_field in ([by] if isinstance(by, str) else by):
            check_times(self)
        super().sort(by, ascending)

    def time_based_split(self, ratios: list[float], group_by: str) -> list[Any]:
        """Split as RecBole's ``TS``: test on what is later than a point in time, validate on what comes right before.

        RecBole's own split takes wrong rows if they are not in order of time already.
        """
        check_times(self)
        times, groups = (self.inter_feat[field_name].numpy() for field_name in (self.time_field, group_by))
        return self._parts(time_boundary_parts(groups, times, ratios))

    def _drop_unused_col(self) -> None:
        """Drop what is loaded for the split alone: ``unused_col``, and times that would be a feature nobody asked for.

        Context-aware models take every column of interactions for one.
        """
        super()._drop_unused_col()
        is_feature = self.config["MODEL_TYPE"] == ModelType.CONTEXT and self.time_field in self.inter_feat
        if is_feature and not self._times_are_named:
            self._del_col(self.inter_feat, self.time_field)

    def _parts(self, parts: list[NDArray[np.int64]]) -> list[Any]:
        """Return one dataset per array of row numbers."""
        self._drop_unused_col()
        return [self.copy(take_rows(self.inter_feat, index)) for index in parts]


def check_times(dataset: Any) -> None:
    """Raise a DataError if the interactions of a dataset, of this kind or plainly RecBole's, have no times."""
    time, table = dataset.time_field, dataset.inter_feat
    if time not in table:
        columns, also = list(table), ", and name it in load_col"
        if isinstance(dataset, XLingDatasetMixin):
            columns, also = dataset.file_rows["inter"].columns, ""
        raise DataError(
            f"'{dataset.dataset_name}' has no column '{time}' to order interactions by, only {', '.join(columns)}; "
            f"set TIME_FIELD to the column of times{also}"
        )
    if len(table) and np.isnan(np.asarray(table[time], dtype=np.float64)).all():
        raise DataError(f"'{dataset.dataset_name}' has a column '{time}', but no interaction has a time in it")


def check_raw_times(dataset: Any, purpose: str) -> None:
    """Raise a DataError if the settings have normalized the times of a dataset's interactions.

    Args:
        dataset: of this kind, or plainly RecBole's.
        purpose: what needs the times of the files.
    """
    config, time = dataset.config, dataset.time_field
    if time in (config["normalize_field"] or ()) or config["normalize_all"]:
        raise DataError(
            f"{purpose} needs the times of interactions as they are in the files of '{dataset.dataset_name}', but "
            f"normalize_all or normalize_field scales {time}: name other columns in normalize_field, or none"
        )


def take_rows(table: Interaction, index: Any) -> Interaction:
    """Return rows of a table by their numbers."""
    rows = torch.from_numpy(index) if isinstance(index, np.ndarray) else index
    return Interaction({field: values[rows] for field, values in table.interaction.items()})


def in_single_precision(table: Interaction) -> Interaction:
    """Return a batch with all numbers in single precision, as models read them."""
    for name, values in table.interaction.items():
        if values.dtype == torch.float64:
            table[name] = values.float()
    return table
