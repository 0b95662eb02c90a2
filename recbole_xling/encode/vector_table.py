"""The text vectors of a large catalog in one file, in the order of its items, which runs map and never copy whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.encode.base import Encoder
from recbole_xling.encode.cache import EmbeddingCache, text_digests
from recbole_xling.errors import EncoderError
from recbole_xling.utils.kept_folder import kept_folder
from recbole_xling.utils.memory import give_back

_VECTORS = "vectors.npy"
_BLOCK = 65_536  # rows read at a time

Table = np.memmap[Any, np.dtype[Any]]


def vector_table(
    cache: EmbeddingCache,
    encoder: Encoder,
    texts: Sequence[str],
    row: NDArray[np.int64],
    *,
    dtype: str = "float32",
    show_progress: bool = True,
) -> Table:
    """Return the vector of each item at unit scale, ``(n_items, dimension)``, mapped from a file in the cache's folder.

    At unit scale, the mean squared norm is 1 over the items that have a text.

    The file is made of the cached vectors once, texts that the cache lacks are encoded first, and all runs with the
    same encoder and texts share it (:func:`~recbole_xling.utils.kept_folder.kept_folder`).

    Args:
        cache: the vectors of single texts.
        encoder: what to encode with.
        texts: distinct texts.
        row: ``(n_items,)`` number of each item's text from 1; 0 for none, whose vector is zero.
        dtype: ``float32``, or ``float16`` for half the size.
        show_progress: as for :meth:`EmbeddingCache.vectors`.

    Raises:
        EncoderError: the encoder failed, or its vectors are too long for float16.
        XlingError: the file cannot be written.
    """
    key = blake2b(text_digests(texts).tobytes() + row.tobytes() + dtype.encode(), digest_size=16).hexdigest()

    def make(folder: Path) -> None:
        _write(folder / _VECTORS, cache.blocks(encoder, texts, show_progress=show_progress), row, dtype)

    folder = cache.folder(encoder) / "tables" / key
    if not folder.exists():  # one process writes the file, and all may encode before
        cache.fill(encoder, texts, show_progress=show_progress)
    kept_folder(folder, make, "vector table")
    return np.lib.format.open_memmap(folder / _VECTORS, mode="c")


def read_blocks(table: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield some rows of vectors at a time; the pages of a mapped file are given back after each.

    Args:
        table: ``(n, dimension)``.
    """
    for start in range(0, len(table), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(table)))
        yield part, np.asarray(table[part])
        give_back(table.base)


def _write(
    path: Path, blocks: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]], row: NDArray[np.int64], dtype: str
) -> None:
    """Write the file of a table.

    Args:
        path: of the new file.
        blocks: numbers of texts from 0, and their vectors.
        row: as for :func:`vector_table`.
        dtype: of the file.
    """
    items, text = np.argsort(row, kind="stable"), np.sort(row)
    table: Table | None = None
    square = np.zeros(len(row), dtype=np.float32)
    for numbers, block in blocks:
        if table is None:
            table = _new_table(path, (len(row), block.shape[1]), dtype)
        begin, end = (np.searchsorted(text, numbers + 1, side) for side in ("left", "right"))
        repeats = end - begin
        place = np.repeat(begin - np.cumsum(repeats) + repeats, repeats) + np.arange(repeats.sum())
        own = items[place]
        table[own] = np.repeat(block, repeats, axis=0)
        square[own] = np.repeat(np.sum(np.square(block), axis=1), repeats)
        give_back(table.base)
    assert table is not None  # some item has a text
    filled = square[square > 0]
    length = np.float32(np.sqrt(np.mean(filled)) if len(filled) else 1.0)
    table.flush()
    for part, block in read_blocks(table):
        if not np.isfinite(block).all():
            raise EncoderError(f"vectors are too long for {dtype}: set vector_dtype: float32")
        table[part] = block / length
    table.flush()


def _new_table(path: Path, shape: tuple[int, int], dtype: str) -> Table:
    """Return a new mapped file of zeros, for all of which the disk has room."""
    table: Table = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk ends the process
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return table
