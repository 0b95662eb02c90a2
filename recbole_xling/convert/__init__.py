"""Converters: from raw dumps to RecBole's atomic files and item text."""

from recbole_xling.convert.base import CONVERTERS, Converter, get_converter
from recbole_xling.convert.writing.dataset import write_dataset
from recbole_xling.convert.writing.filters import Filters
from recbole_xling.convert.writing.report import ConvertReport
from recbole_xling.convert.writing.user_profiles import ProfileSetting

__all__ = ["CONVERTERS", "ConvertReport", "Converter", "Filters", "ProfileSetting", "get_converter", "write_dataset"]
