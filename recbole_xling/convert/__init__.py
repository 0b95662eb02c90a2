"""Converters: from raw dumps to RecBole's atomic files and item text."""

from recbole_xling.convert.atomic import ConvertReport, write_dataset
from recbole_xling.convert.base import CONVERTERS, Converter, get_converter

__all__ = ["CONVERTERS", "ConvertReport", "Converter", "get_converter", "write_dataset"]
