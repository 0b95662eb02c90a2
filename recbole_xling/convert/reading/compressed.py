"""Raw files in blocks of whole lines, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

from tqdm.auto import tqdm

from recbole_xling.errors import DataError, MissingExtraError, shown
from recbole_xling.text.raw_tables import LONGEST_LINE

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 24
"""Bytes read at a time; a block is all whole lines of them."""

_MOST_EXPANSION = 200  # times; text rarely reaches 20
_ALWAYS_UNPACKED = 1 << 23  # bytes, however small the file is

SUFFIXES = (".gz", ".xz", ".bz2", ".lz4", ".zst", ".zip")
"""Ends of the names of compressed files."""

PERHAPS_PACKED = f"(?:{'|'.join(map(re.escape, SUFFIXES))})?"
"""Pattern of the end of a name, whether the file is compressed or not."""

_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_XZ, _BZIP2, _LZ4 = b"\xfd7zX", b"BZh", b"\x04\x22\x4d\x18"


def expected_file(folder: Path, name: str) -> Path:
    """Return what :func:`find_file` finds, else the path of the plain name, which the error of opening it tells."""
    return find_file(folder, name) or folder / name


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder, or else a compressed one (:data:`SUFFIXES`), or None."""
    paths = [folder / f"{name}{suffix}" for suffix in ("", *SUFFIXES)]
    return next((path for path in paths if path.is_file()), None)


def without_copies(paths: Iterable[Path]) -> list[Path]:
    """Return one path of each file: the unpacked one where it lies beside compressed ones (:data:`SUFFIXES`).

    Of several compressed ones the first counts. A warning names what is left out, because only a part of a file may
    have been unpacked.
    """
    every = list(paths)
    unpacked = {path for path in every if path.suffix.lower() not in SUFFIXES}
    taken: dict[Path, Path] = {path: path for path in unpacked}
    for path in every:
        copy = path if path in unpacked else path.with_suffix("")
        if taken.setdefault(copy, path) != path:
            logger.warning("'%s' is left out: '%s' beside it is taken for a copy of it", path, taken[copy].name)
    return [path for path in every if path in unpacked or taken[path.with_suffix("")] == path]


def blocks(path: Path, *, show_progress: bool = False) -> Iterator[bytes]:
    r"""Yield the file in blocks that end with ``\n``, the last one perhaps without.

    If the lines of the file end with a mere ``\r``, as on old Macintoshes, the blocks have ``\n`` in its place.
    gzip, xz, bzip2, LZ4, Zstandard and zip archives with a single file are read in place, whatever their name.

    Args:
        path: the file.
        show_progress: show a bar over its bytes.

    Raises:
        DataError: the file is missing, damaged or cut off, is an archive of several files, has a line of more than 16
            MiB, or becomes so much larger by unpacking that it must be meant to harm.
        MissingExtraError: it is compressed with LZ4, and the package lz4 is not installed.
        OSError: the system refuses to read it.
    """
    if not path.is_file():
        raise DataError(f"file {path} does not exist")
    size, number, rest = path.stat().st_size, 1, b""
    has_only_returns: bool | None = None
    with (
        open(path, "rb") as raw,
        tqdm(total=size, desc=shown(path.name), unit="B", unit_scale=True, disable=not show_progress) as bar,
    ):
        for read in _pieces(raw, path):
            bar.update(raw.tell() - bar.n)
            if has_only_returns is None:
                has_only_returns = b"\n" not in read and b"\r" in read[:-1]
            if has_only_returns:
                read = read.replace(b"\r", b"\n")
            whole, newline, tail = (rest + read).rpartition(b"\n")
            rest = tail
            if newline:
                yield whole + newline
                number += whole.count(b"\n") + 1
            if len(rest) > LONGEST_LINE:
                raise DataError(
                    f"{path}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; the file must be a text with one "
                    "record on each line"
                )
        if rest:
            yield rest


def _pieces(raw: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield what is in an open file, unpacked, some :data:`BLOCK_BYTES` at a time."""
    try:
        with _decompressed(raw, path) as file:
            unpacked = 0
            while read := file.read(BLOCK_BYTES):
                unpacked += len(read)
                if file is not raw:
                    check_expansion(path, raw.tell(), unpacked)
                yield read
    except (DataError, MissingExtraError):
        raise
    except Exception as error:  # every format has errors of its own
        raise DataError(f"{path} cannot be read ({error}); is it complete? Fetch it again") from error


def check_expansion(path: Path, packed: int, unpacked: int) -> None:
    """Refuse a file that becomes much larger than any text does.

    Args:
        path: of the file, for the message.
        packed: bytes of it that were read.
        unpacked: bytes that these became.

    Raises:
        DataError: they became more than 200 times as many, and more than 8 MiB.
    """
    if unpacked > max(_ALWAYS_UNPACKED, _MOST_EXPANSION * packed):
        raise DataError(
            f"{path}: unpacking makes it more than {_MOST_EXPANSION} times as large, as in files that are "
            "meant to fill a disk; if it is not one, unpack it yourself and give the unpacked file"
        )


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
    elif start == _XZ:
        with lzma.open(raw) as file:
            yield cast("BinaryIO", file)
    elif start.startswith(_BZIP2):
        with bz2.open(raw) as file:
            yield cast("BinaryIO", file)
    elif start == _LZ4:
        try:
            frames = import_module("lz4.frame")
        except ImportError:
            raise MissingExtraError("lz4", "lz4") from None
        with frames.open(raw) as file:
            yield file
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
            if archive.getinfo(names[0]).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{path} is compressed in an unusual way: unpack it and give the unpacked file")
            with archive.open(names[0]) as file:
                yield cast("BinaryIO", file)
    else:
        yield raw
