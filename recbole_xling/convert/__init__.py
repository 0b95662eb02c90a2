"""Converters: from raw dumps to RecBole's atomic files and item text.

What needs polars is imported when it is used, so that the command line can list the converters at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_xling.convert.base import CONVERTERS, Converter, get_converter
from recbole_xling.utils.lazy import lazy_names

if TYPE_CHECKING:
    from recbole_xling.convert.writing.dataset import write_dataset
    from recbole_xling.convert.writing.filters import Filters
    from recbole_xling.convert.writing.report import ConvertReport
    from recbole_xling.convert.writing.user_profiles import ProfileSetting

__all__ = ["CONVERTERS", "ConvertReport", "Converter", "Filters", "ProfileSetting", "get_converter", "write_dataset"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ConvertReport": "recbole_xling.convert.writing.report",
        "Filters": "recbole_xling.convert.writing.filters",
        "ProfileSetting": "recbole_xling.convert.writing.user_profiles",
        "write_dataset": "recbole_xling.convert.writing.dataset",
    },
)
