"""Compressing as the suffix of a file's name says."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zipfile
from importlib import import_module
from io import BytesIO

ZSTD = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
PACKED = (".gz", ".xz", ".bz2", ".zst", ".zip")


def pack(content: bytes, suffix: str, *, names: tuple[str, ...] = ("a",)) -> bytes:
    """Compress as a suffix says, not at all for another one; ``names`` are those in a zip archive."""
    if suffix == ".gz":
        return gzip.compress(content, mtime=0)
    if suffix == ".xz":
        return lzma.compress(content)
    if suffix == ".bz2":
        return bz2.compress(content)
    if suffix == ".zst":
        return ZSTD.compress(content)
    if suffix == ".zip":
        file = BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return file.getvalue()
    return content
