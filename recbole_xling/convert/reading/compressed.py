"""Raw files in blocks of whole lines, compressed or not."""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

from tqdm import tqdm

from recbole_xling.errors import DataError

BLOCK_BYTES = 1 << 24
"""Bytes read at a time; a block holds all whole lines of them."""

_COMPRESSED = ("", ".gz", ".zst", ".zip")
_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"


def expected_file(folder: Path, name: str) -> Path:
    """Return what :func:`find_file` finds, else the plain name, for the error of who opens it."""
    return find_file(folder, name) or folder / name


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder, or else a compressed one (``.gz``, ``.zst``, ``.zip``), or None."""
    paths = [folder / f"{name}{suffix}" for suffix in _COMPRESSED]
    return next((path for path in paths if path.is_file()), None)


def blocks(path: Path, *, show_progress: bool = False) -> Iterator[bytes]:
    r"""Yield the file in blocks that end with ``\n``, the last one perhaps without.

    gzip, Zstandard and zip archives with a single file are read in place, whatever their name.

    Args:
        path: the file.
        show_progress: show a bar over its bytes.

    Raises:
        DataError: the file is missing, cannot be read, is cut off, or is an archive of several files.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    size = path.stat().st_size
    try:
        with (
            open(path, "rb") as raw,
            _decompressed(raw, path) as file,
            tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=not show_progress) as bar,
        ):
            rest = b""
            while read := file.read(BLOCK_BYTES):
                bar.update(raw.tell() - bar.n)
                whole, newline, tail = (rest + read).rpartition(b"\n")
                rest = tail
                if newline:
                    yield whole + newline
            if rest:
                yield rest
    except DataError:
        raise
    except Exception as error:  # every format has errors of its own
        raise DataError(f"{path} cannot be read ({error}); is it complete? Fetch it again") from error


@contextmanager
def _decompressed(raw: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    start = raw.read(4)
    raw.seek(0)
    if start.startswith(_GZIP):
        with gzip.open(raw) as file:
            yield cast("BinaryIO", file)
    elif start == _ZSTD:
        with _zstd().open(raw) as file:
            yield file
    elif start == _ZIP:
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise DataError(f"{path} holds {len(names)} files, not one: unpack it and name the folder")
            with archive.open(names[0]) as file:
                yield cast("BinaryIO", file)
    else:
        yield raw


def _zstd() -> Any:
    """Return the standard library's module of Python 3.14, or its copy for older ones."""
    if sys.version_info >= (3, 14):
        return import_module("compression.zstd")
    return import_module("backports.zstd")
