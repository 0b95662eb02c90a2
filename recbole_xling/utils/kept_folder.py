"""Folders of files that take long to make: kept for later runs, checked when they are used, and deleted when unused."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from recbole_xling.utils.files import FolderLock, clear_write_errors, replacing
from recbole_xling.utils.json_text import parse_json

logger = logging.getLogger(__name__)

_SIDECAR = "checksums.json"
_UNUSED = 30 * 86_400.0  # seconds after which a folder that no run has used is deleted


def kept_folder(folder: Path, make: Callable[[Path], None], what: str) -> Path:
    """Return a folder whose files are as they were written, making them where they are not there or are damaged.

    One process makes them, others wait for it. Before, folders beside it are deleted that no run has used for 30 days:
    those are touched by runs that may, and read by others.

    Args:
        folder: its name says all that its files depend on.
        make: writes files into an empty folder.
        what: the files are, for messages.

    Raises:
        XlingError: the folder cannot be written.
    """
    if not _is_whole(folder):
        with clear_write_errors(folder, what, "nothing else is lost"):
            folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder.parent, wait=True)
        try:
            if not _is_whole(folder):
                _delete_unused(folder.parent)
                _make(folder, make, what)
        finally:
            lock.release()
    with suppress(OSError):  # the folder may belong to somebody else: then it has been read
        os.utime(folder / _SIDECAR)
    return folder


def _make(folder: Path, make: Callable[[Path], None], what: str) -> None:
    if folder.is_dir():
        logger.warning("%s (%s) is damaged and is made again", folder, what)
        shutil.rmtree(folder, ignore_errors=True)
    with clear_write_errors(folder, what, "nothing else is lost"), replacing(folder) as new:
        new.mkdir()
        make(new)
        content = {path.name: [path.stat().st_size, _crc32(path)] for path in new.iterdir()}
        (new / _SIDECAR).write_text(json.dumps(content), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    """Whether the files of a folder are those that were written."""
    try:
        stated = parse_json((folder / _SIDECAR).read_bytes())
        return all(
            (folder / name).stat().st_size == size and _crc32(folder / name) == crc32
            for name, (size, crc32) in stated.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _delete_unused(parent: Path) -> None:
    for sidecar in parent.glob(f"*/{_SIDECAR}"):
        with suppress(OSError):
            found = sidecar.stat()  # who may not touch it only reads it, which most systems note once a day
            if max(found.st_mtime, found.st_atime) < time.time() - _UNUSED:
                shutil.rmtree(sidecar.parent, ignore_errors=True)
