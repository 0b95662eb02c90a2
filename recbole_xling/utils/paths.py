"""The folders of the data files that ship with the package, and of the user's caches."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from recbole_xling.errors import ConfigError, DataError, unknown_name

FOLDERS = ("datasets", "properties")


def package_folder(name: str) -> Path:
    """Return the folder ``datasets`` or ``properties`` of the installed package or of the checkout.

    The top-level folder is installed as the sub-package ``recbole_xling.<name>``; in a checkout that is not installed
    it is next to the package.

    Raises:
        ConfigError: the project does not ship a folder of this name.
        DataError: the folder is missing: the installation is damaged.
    """
    if name not in FOLDERS:
        raise ConfigError(unknown_name("package folder", name, FOLDERS))
    try:
        folder = Path(str(files(f"recbole_xling.{name}")))
    except ModuleNotFoundError:
        folder = Path(__file__).resolve().parents[2] / name
    if not folder.is_dir():
        raise DataError(f"the folder {folder} is missing: install recbole-xling again")
    return folder


def user_cache_folder(name: str) -> Path:
    """Return the folder ``recbole-xling/<name>`` of the user's cache folder; it need not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "recbole-xling" / name
