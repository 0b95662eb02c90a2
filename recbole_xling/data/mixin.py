"""XLingDatasetMixin: how any of RecBole's datasets reads atomic files in a run of recbole-xling."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from recbole.data.dataset import Dataset

from recbole_xling.compat.fast_reading import count, read_csv, with_names
from recbole_xling.compat.hooks import ChangedModule
from recbole_xling.data.pinned_ids import PinnedIds
from recbole_xling.data.splits.files import StatedHistories
from recbole_xling.utils.staging import reading


class XLingDatasetMixin(StatedHistories, PinnedIds):
    """Put before a RecBole ``Dataset`` class."""

    def _load_data(self, token: str, dataset_path: str) -> None:
        with reading(Path(dataset_path), token):
            super()._load_data(token, dataset_path)

    # RecBole reads atomic files with pandas' Python parser, about ten times as slow as the C parser, and counts
    # interactions one Python object at a time. These are RecBole's own two methods with only these two calls replaced.
    # The copies belong to this class, so RecBole's datasets keep the originals.
    _load_feat = with_names(Dataset._load_feat, pd=ChangedModule(pd, read_csv=read_csv))
    _filter_by_inter_num = with_names(Dataset._filter_by_inter_num, Counter=count)
