"""The configuration of a run: typed settings, where they come from, and their checks before data are loaded."""

from __future__ import annotations

from recbole_xling.config.defaults import dataset_defaults, load_defaults, recbole_properties
from recbole_xling.config.names import current_names, use_current_names
from recbole_xling.config.shared import EncodingConfig, OverallConfig, settings_of
from recbole_xling.config.xling_config import DatasetConfig, XLingConfig, plain_settings

__all__ = [
    "DatasetConfig",
    "EncodingConfig",
    "OverallConfig",
    "XLingConfig",
    "current_names",
    "dataset_defaults",
    "load_defaults",
    "plain_settings",
    "recbole_properties",
    "settings_of",
    "use_current_names",
]
