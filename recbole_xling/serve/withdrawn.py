"""Items that are shown to nobody any more, which a folder remembers."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Container
from pathlib import Path

from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.serve.catalog import Catalog
from recbole_xling.utils.files import FolderLock, write_text
from recbole_xling.utils.json_text import parse_json

WITHDRAWN_FILE = "withdrawn.json"


def read_withdrawn(folder: str | os.PathLike[str]) -> list[str]:
    """Return the ids of the items that were withdrawn in a run folder or an export.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(folder) / WITHDRAWN_FILE
    if not path.is_file():
        return []
    try:
        items = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"'{path}' is damaged: {error}; write a list of ids, or remove it") from error
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise CheckpointError(f"'{path}' must be a list of ids: mend it, or remove it")
    return items


def write_withdrawn(folder: str | os.PathLike[str], items: Collection[str]) -> None:
    """Write the ids, all or nothing.

    Raises:
        XlingError: the disk refuses them.
    """
    write_text(Path(folder) / WITHDRAWN_FILE, json.dumps(sorted(items), ensure_ascii=False, indent=0) + "\n")


def check_withdrawal(
    items: Container[str], withdrawn: Container[str], add: Collection[str], remove: Collection[str]
) -> None:
    """Raise a ConfigError if there is no such item to withdraw, or none is withdrawn that is to be shown again.

    Args:
        items: the ids that there are.
        withdrawn: those that are withdrawn.
        add: to be withdrawn.
        remove: to be shown again.
    """
    unknown = [*(item for item in add if item not in items), *(item for item in remove if item not in withdrawn)]
    if unknown:
        what = "no item" if unknown[0] not in items else "not withdrawn is"
        raise ConfigError(f"{what} '{unknown[0]}'")


def withdraw(
    catalog: Catalog, folder: str | os.PathLike[str], *, add: Collection[str] = (), remove: Collection[str] = ()
) -> list[str]:
    """Withdraw items or show them again, now and whenever the folder is loaded, and return what is withdrawn then.

    Raises:
        ConfigError: there is no such item, or no item is withdrawn that is to be shown again.
        XlingError: the folder cannot be written.
    """
    lock = FolderLock(Path(folder), wait=True)  # another process may withdraw something at the same time
    try:
        withdrawn = set(read_withdrawn(folder))
        check_withdrawal(catalog.number, withdrawn, add, remove)
        withdrawn = (withdrawn | set(add)) - set(remove)
        write_withdrawn(folder, withdrawn)
    finally:
        lock.release()
    catalog.withdraw(withdrawn)
    return sorted(withdrawn)
