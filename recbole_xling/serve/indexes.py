"""Indexes of item vectors: the best items of a user without looking at all of them.

Scores are inner products plus a bias. Indexes by distance get them exactly: each item has two more dimensions, its bias
and what its length lacks to the longest one, so that the nearest items are those with the largest scores (Bachrach et
al., "Speeding Up the Xbox Recommender System Using a Euclidean Transformation for Inner-Product Spaces", RecSys 2014).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, MissingExtraError, unknown_name

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Search = Callable[[FloatArray, int], IntArray]
"""From users, ``(B, D)``, to the places of about their best ``k`` items, ``(B, k)``; -1 where there are not as many."""

_NEIGHBORS = 32  # of an item in a graph
_BREADTH = 256  # of the search for an item's neighbors, and of a user's items at least


def with_bias(items: FloatArray, bias: FloatArray, *, alike: bool) -> FloatArray:
    """Return item vectors with their bias, ``(n, D + 1)``, or with ``alike`` all of one length, ``(n, D + 2)``."""
    joined = np.concatenate([items, bias[:, None]], axis=1, dtype=np.float32)
    if not alike:
        return joined
    squares = np.square(joined, dtype=np.float64).sum(axis=1)
    rest = np.sqrt(np.maximum(squares.max() - squares, 0))
    return np.concatenate([joined, rest[:, None]], axis=1, dtype=np.float32)


def _queries(users: FloatArray, size: int) -> FloatArray:
    """Return users as an index of vectors of some size wants them."""
    queries = np.zeros((len(users), size), dtype=np.float32)
    queries[:, : users.shape[1]] = users
    queries[:, users.shape[1]] = 1
    return queries


# ---- faiss ----------------------------------------------------------------------------------------------------


def _faiss() -> Any:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells how it is loaded
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "serve") from error
    return faiss


def _write_faiss(kind: str, items: FloatArray, bias: FloatArray, path: Path) -> None:
    faiss, vectors = _faiss(), with_bias(items, bias, alike=kind != "flat")
    size = vectors.shape[1]
    if kind == "flat":
        index = faiss.IndexFlatIP(size)
    else:
        index = faiss.IndexHNSWFlat(size, _NEIGHBORS)
        index.hnsw.efConstruction = _BREADTH
    index.add(vectors)
    faiss.write_index(index, str(path))


def _open_faiss(kind: str, path: Path) -> Search:
    faiss = _faiss()
    index = faiss.read_index(str(path))

    def search(users: FloatArray, k: int) -> IntArray:
        options = {"params": faiss.SearchParametersHNSW(efSearch=max(_BREADTH, 2 * k))} if kind == "hnsw" else {}
        places: IntArray = index.search(_queries(users, index.d), min(k, index.ntotal), **options)[1]
        return places

    return search


# ---- usearch --------------------------------------------------------------------------------------------------


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("usearch", "serve") from error
    return Index


def _write_usearch(kind: str, items: FloatArray, bias: FloatArray, path: Path) -> None:
    vectors = with_bias(items, bias, alike=True)
    options = {"connectivity": _NEIGHBORS, "expansion_add": _BREADTH, "dtype": "f32"}
    index = _usearch()(ndim=vectors.shape[1], metric="l2sq", **options)
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)
    index.save(str(path))


def _open_usearch(kind: str, path: Path) -> Search:
    index = _usearch().restore(str(path), view=True)

    def search(users: FloatArray, k: int) -> IntArray:
        index.expansion_search = max(_BREADTH, 2 * k)
        found = index.search(_queries(users, index.ndim), min(k, len(index)))
        keys = np.asarray(found.keys).astype(np.int64).reshape(len(users), -1)
        counts = np.atleast_1d(getattr(found, "counts", keys.shape[1]))
        return np.where(np.arange(keys.shape[1]) < counts[:, None], keys, -1)

    return search


# ---- kinds ----------------------------------------------------------------------------------------------------

_WRITERS: dict[str, Callable[[str, FloatArray, FloatArray, Path], None]] = {
    **dict.fromkeys(("flat", "hnsw"), _write_faiss),
    "usearch": _write_usearch,
}
KINDS = tuple(_WRITERS)


def check_kind(kind: str) -> None:
    """Raise a ConfigError if there is no such kind of index, and a MissingExtraError if its package is missing."""
    if kind not in KINDS:
        raise ConfigError(unknown_name("kind of index", kind, KINDS))
    if kind == "usearch":
        _usearch()
    else:
        _faiss()


def index_file(kind: str, view: int) -> str:
    """Return the name of the file of a view's index."""
    return f"index.{view}.{'usearch' if kind == 'usearch' else 'faiss'}"


def write_index(kind: str, items: FloatArray, bias: FloatArray, path: Path) -> None:
    """Write the index of items, ``(n, D)``, with their bias, ``(n,)``.

    Raises:
        MissingExtraError: its package is not installed.
    """
    _WRITERS[kind](kind, items, bias, path)


def open_index(kind: str, path: Path) -> Search:
    """Open what :func:`write_index` wrote.

    Raises:
        MissingExtraError: its package is not installed.
    """
    check_kind(kind)
    return _open_usearch(kind, path) if kind == "usearch" else _open_faiss(kind, path)
