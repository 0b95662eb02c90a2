"""The text vectors of a large catalog in one file, in the order of its items, which runs map and never copy whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from recbole_xling.encode.base import Encoder, Vectors
from recbole_xling.encode.cache import Block, EmbeddingCache, text_digests
from recbole_xling.utils.kept_folder import kept_folder
from recbole_xling.utils.memory import give_back

_VECTORS = "vectors.npy"
_BLOCK = 65_536  # rows read, or written, at a time

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
        EncoderError: the encoder failed.
        XlingError: the file cannot be written.
    """
    digests = text_digests(texts)
    key = blake2b(digests.tobytes() + row.tobytes() + dtype.encode(), digest_size=16).hexdigest()

    folder = cache.folder(encoder) / "tables" / key
    options: dict[str, Any] = {"show_progress": show_progress}
    # one process writes the file, and all may encode before
    blocks = [] if folder.exists() else cache.blocks(encoder, texts, digests, **options)

    def make(folder: Path) -> None:
        _write(folder / _VECTORS, blocks or cache.blocks(encoder, texts, digests, **options), row, dtype)

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


def _write(path: Path, blocks: Sequence[Block], row: NDArray[np.int64], dtype: str) -> None:
    """Write the file of a table from its first row to its last.

    Args:
        path: of the new file.
        blocks: the vectors of all texts.
        row: as for :func:`vector_table`.
        dtype: of the file.
    """
    n_texts = 1 + max(int(block.texts.max()) for block in blocks)
    block_of = np.full(1 + n_texts, -1)  # of each text from 1; -1 for no text
    place = np.zeros(1 + n_texts, dtype=np.int64)  # of the text in its block
    square = np.zeros(1 + n_texts, dtype=np.float32)  # squared norm
    for number, block in enumerate(blocks):
        block_of[block.texts + 1], place[block.texts + 1] = number, np.arange(len(block.texts))
        square[block.texts + 1] = np.sum(np.square(block.vectors()), axis=1)
    filled = square[row][square[row] > 0]
    length = np.sqrt(np.mean(filled)) if len(filled) else np.float32(1)
    with path.open("wb") as file:
        header = {"descr": dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        write_array_header_1_0(file, {**header, "shape": (len(row), blocks[0].dimension)})
        for start in range(0, len(row), _BLOCK):
            found = _rows(blocks, block_of, place, row[start : start + _BLOCK], length)
            file.write(found.astype(dtype, copy=False).data)


def _rows(
    blocks: Sequence[Block],
    block_of: NDArray[np.int64],
    place: NDArray[np.int64],
    row: NDArray[np.int64],
    length: np.float32,
) -> Vectors:
    """Return the vectors of some items, divided by ``length``: ``(len(row), dimension)``."""
    found = np.zeros((len(row), blocks[0].dimension), dtype=np.float32)
    order = np.argsort(block_of[row], kind="stable")
    ends = np.searchsorted(block_of[row[order]], np.arange(-1, len(blocks)), side="right")
    for block, begin, end in zip(blocks, ends[:-1], ends[1:], strict=True):
        items = order[begin:end]
        if len(items):
            found[items] = block.vectors(place[row[items]])
    found /= length
    return found
