"""Converters: from raw dumps to RecBole's atomic files and item text."""

from recbole_xling.convert.atomic import write_dataset
from recbole_xling.convert.base import CONVERTERS, Converter, get_converter
from recbole_xling.convert.filters import Filters
from recbole_xling.convert.profiles import ProfileSetting
from recbole_xling.convert.report import ConvertReport

__all__ = ["CONVERTERS", "ConvertReport", "Converter", "Filters", "ProfileSetting", "get_converter", "write_dataset"]
