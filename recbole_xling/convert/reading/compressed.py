"""Raw files in blocks of whole lines, compressed or not."""

from __future__ import annotations

import gzip
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

from tqdm import tqdm

from recbole_xling.errors import DataError

BLOCK_BYTES = 1 << 24
"""Bytes read at a time; a block is all whole lines of them."""

SUFFIXES = (".gz", ".zst", ".zip")
"""Ends of the names of compressed files."""

_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"


def expected_file(folder: Path, name: str) -> Path:
    """Return what :func:`find_file` finds, else the path of the plain name, which the error of opening it tells."""
    return find_file(folder, name) or folder / name


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder, or else a compressed one (``.gz``, ``.zst``, ``.zip``), or None."""
    paths = [folder / f"{name}{suffix}" for suffix in ("", *SUFFIXES)]
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
        raise DataError(f"file {path} does not exist")
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
    except Exception as error:  # every format has errors of its own
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise DataError(f"{path} cannot be read ({error}); is it complete? Fetch it again") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the content of each line of a file, read like :func:`blocks`."""
    number = 0
    for block in blocks(path):
        for line in block.removesuffix(b"\n").split(b"\n"):
            number += 1
            yield number, line


@contextmanager
def _decompressed(raw: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    start = raw.read(4)
    raw.seek(0)
    if start.startswith(_GZIP):
        with gzip.open(raw) as file:
            yield cast("BinaryIO", file)
    elif start == _ZSTD:
        # the standard library has Zstandard from Python 3.14 on; the backport is its copy for older ones
        module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        with import_module(module).open(raw) as file:
            yield file
    elif start == _ZIP:
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise DataError(f"{path} has {len(names)} files in it, not one: unpack it and give the folder")
            with archive.open(names[0]) as file:
                yield cast("BinaryIO", file)
    else:
        yield raw
