"""A dataset as a run loads it, and what is odd about its rows."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from recbole.utils import FeatureSource, FeatureType

from recbole_xling.config import XLingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.mixin import WITHOUT, check_times
from recbole_xling.errors import DataError
from recbole_xling.text.atomic_files import file_format, read_atomic_file
from recbole_xling.utils.json_text import parse_json

LEAVE_ONE_OUT = {"LS": "valid_and_test"}


class CardDataset(XLingDataset):
    """The dataset of a run, which also counts rows, users and items that a run does not care about.

    Attributes:
        has_times: whether there is a column of times.
        duplicate_rows: interactions that equal an earlier one in every column.
        unknown_items: interactions with items that the ``.item`` file lacks, whether the dataset has them or not.
        unknown_users: users that the ``.user`` file lacks, whether the dataset has them or not.
        idle_users: users of the ``.user`` file without an interaction.
    """

    has_times: bool
    duplicate_rows: int
    unknown_items: int = 0
    unknown_users: int = 0
    idle_users: int = 0

    @property
    def missing_ids(self) -> int:
        """Interactions without a user or item, which are left out."""
        dropped = self.file_rows["inter"].dropped
        return sum(dropped[WITHOUT.format(field)] for field in (self.uid_field, self.iid_field))

    def has_arbitrary_order(self) -> bool:
        """Tell whether the conversion that wrote the dataset put each user's interactions in an order by chance.

        Raises:
            DataError: its report cannot be read.
        """
        path = Path(self.dataset_path) / f"{self.dataset_name}.convert.json"
        if not path.is_file():
            return False
        try:
            report = parse_json(path.read_text(encoding="utf-8"))
            return bool(report.get("arbitrary_order"))
        except (ValueError, AttributeError) as error:
            raise DataError(f"{path} is no report of a conversion ({error}); convert again, or remove it") from None

    def _filter_inter_by_user_or_item(self) -> None:
        users, items = self.inter_feat[self.uid_field], self.inter_feat[self.iid_field]
        listed_users, listed_items = self._listed("user", self.uid_field), self._listed("item", self.iid_field)
        super()._filter_inter_by_user_or_item()
        if listed_items is not None:
            self.unknown_items = int((~items.isin(listed_items)).sum())
        if listed_users is not None:
            self.unknown_users = len(set(users) - listed_users)
            self.idle_users = len(listed_users.difference(self.inter_feat[self.uid_field]))

    def _listed(self, suffix: str, field: str) -> set[str] | None:
        """Return the ids in the ``.user`` or ``.item`` file, loaded or not; None if the dataset has no such file."""
        path = Path(self.dataset_path) / f"{self.dataset_name}.{suffix}"
        return (
            {token for token in read_atomic_file(path, [field], **file_format(self.config)).tokens(field) if token}
            if path.is_file()
            else None
        )

    def _reset_index(self) -> None:
        super()._reset_index()
        table = self.inter_feat
        self.has_times = self.time_field in table
        alike = table[table.duplicated([self.uid_field, self.iid_field], keep=False)]
        sequences = [field for field in table if self.field2type[field].value.endswith("seq")]  # arrays, not hashable
        alike = alike.assign(**{field: alike[field].map(tuple) for field in sequences})
        self.duplicate_rows = int(alike.duplicated().sum())


def load_dataset(config: XLingConfig) -> CardDataset:
    """Load a dataset as a run with these settings does, whatever its model.

    Leave-one-out needs no times here: the order of the file takes their place. Where ``load_col`` is not given, all
    columns are loaded and those items as well that never interact, but as in a run nothing is left out for that.

    Args:
        config: the settings.

    Raises:
        DataError: a file is missing or wrong.
    """
    inter_file = Path(config["data_path"]) / f"{config['dataset']}.inter"
    if not inter_file.is_file():
        raise DataError(f"there is no file {inter_file}; convert the dataset first (recbole-xling convert)")
    changed: dict[str, Any] = {"eval_args": {**config["eval_args"], "order": "TO"}, "benchmark_filename": None}
    changed |= dict.fromkeys(("discretization", "preload_weight", "additional_feat_suffix"))  # what only models need
    changed["numerical_features"] = []
    if "load_col" not in config.external_config_dict:
        changed["load_col"] = {"inter": "*", "user": "*", "item": [config["ITEM_ID_FIELD"]]}
        changed["filter_inter_by_user_or_item"] = False
    config = copy(config)
    config.final_config_dict = {**config.final_config_dict, **changed}
    dataset = CardDataset(config)
    time = dataset.time_field
    if not dataset.has_times and config["eval_args"]["split"] == LEAVE_ONE_OUT:
        dataset.missing_times = len(dataset.inter_feat)
        dataset.inter_feat[time] = 0.0
        dataset.set_field_property(time, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
    check_times(dataset)
    return dataset
