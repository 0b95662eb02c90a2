"""Files that are split already (``benchmark_filename``) and state the history of each row as a list of items."""

from __future__ import annotations

from typing import Any

from recbole.data.dataset import Dataset

from recbole_xling.errors import DataError


def has_histories(dataset: Any) -> bool:
    """Whether a dataset's files are split already and state the history of each row."""
    field = f"{dataset.iid_field}{dataset.config['LIST_SUFFIX']}"
    return bool(dataset.config["benchmark_filename"]) and field in dataset.inter_feat


class StatedHistories(Dataset):  # type: ignore[misc]
    """Reads stated histories, for any of RecBole's datasets."""

    def _set_alias(self, alias_name: str, default_value: list[str | None]) -> None:
        """Let the items of histories that files state be items; RecBole has to be told (``alias_of_item_id``)."""
        if alias_name == "item_id" and has_histories(self):
            default_value = [*default_value, f"{self.iid_field}{self.config['LIST_SUFFIX']}"]
        super()._set_alias(alias_name, default_value)

    def _benchmark_presets(self) -> None:
        """Keep the last ``MAX_ITEM_LIST_LENGTH`` items of the histories that a file states, if it states any.

        Raises:
            DataError: a history is empty.
        """
        table, length = self.inter_feat, self.max_item_list_len
        stated = [field for field in table if field.endswith(self.config["LIST_SUFFIX"])]
        if not stated:
            return
        for field in stated:
            table[field] = table[field].map(lambda values: values[-length:])
            self.field2seqlen[field] = min(self.field2seqlen[field], length)
            if empty := int((table[field].map(len) == 0).sum()):
                files = self.benchmark_filename_list
                raise DataError(
                    f"{empty} rows of {files} of '{self.dataset_name}' have an empty {field}: leave them out"
                )
        super()._benchmark_presets()
