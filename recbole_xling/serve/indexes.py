"""Indexes of item vectors: the best items of a user without looking at all of them.

Scores are inner products plus a bias, and indexes search for the largest inner product: an item's bias is one more
number of its vector, for which users have a constant. A graph of neighbors is of little use where that number has
another spread than the others, so it is scaled to theirs, and users' constant the other way round. A graph by inner
products (Morozov and Babenko, "Non-metric Similarity Graphs for Maximum Inner Product Search", NeurIPS 2018) found .96
of the ten best of 30,000 items with a popularity prior, without the scaling .66, and one by distances, between vectors
that a further number makes of one length, .74 (items as benchmarks/serve_latency.py makes them, breadth 128).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, MissingExtraError, unknown_name

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Search = Callable[[FloatArray, int], IntArray]
"""From users, ``(B, D)``, to the places of about their best ``k`` items or more, ``(B, n)``; -1 for no item."""

_NEIGHBORS = 48  # of an item in a graph
_BREADTH = 256  # of the search for an item's neighbors, and of a user's items at least
_TOGETHER = 4  # numbers of a vector that one byte stands for
_RANKED = 1000  # items that codes find, of which the scores of whole vectors choose the best
_FEWEST = 10_000  # items of an index of codes, which are learned from them
_LEARNED_FROM = 64  # items for each of the lists of an index of codes
_LISTS = 4  # one of so many lists is looked at (nprobe)


def with_bias(items: FloatArray, bias: FloatArray) -> tuple[FloatArray, float]:
    """Return item vectors with their bias, perhaps zeros behind it, and the number of users that belongs to it."""
    spread = float(bias.std())
    weight = spread / float(items.std() or 1) if spread else 1.0
    own = (bias - bias.mean()) / weight  # without the mean, lists are the same
    zeros = np.zeros((len(items), -(items.shape[1] + 1) % _TOGETHER))
    return np.concatenate([items, own[:, None], zeros], axis=1, dtype=np.float32), weight


def _queries(users: FloatArray, size: int, weight: float) -> FloatArray:
    """Return users as an index of vectors of some size wants them; exports of earlier releases have one number more."""
    queries = np.zeros((len(users), size), dtype=np.float32)
    queries[:, : users.shape[1]] = users
    queries[:, users.shape[1]] = weight
    return queries


def _breadth(n_items: int, k: int) -> int:
    """Return how many items a search of a graph keeps in view: more in a large one, where more are near."""
    return max(_BREADTH, int(n_items**0.5) // 2, 2 * k)


# ---- faiss ----------------------------------------------------------------------------------------------------


def _faiss() -> Any:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells how it is loaded
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "serve") from error
    return faiss


def _write_faiss(kind: str, vectors: FloatArray, path: Path) -> None:
    faiss, size = _faiss(), vectors.shape[1]
    if kind == "flat":
        index = faiss.IndexFlatIP(size)
    elif kind == "ivfpq":
        index = _codes(faiss, vectors)
    else:
        index = faiss.IndexHNSWFlat(size, _NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BREADTH
    index.add(vectors)
    faiss.write_index(index, str(path))


def _codes(faiss: Any, vectors: FloatArray) -> Any:
    """Return an index of lists of items near to each other, each item as a code of some bytes, which it learns.

    Jegou et al., "Product Quantization for Nearest Neighbor Search", TPAMI 2011. What it finds is to be ranked anew.
    """
    n_items, size = vectors.shape
    if n_items < _FEWEST:
        raise ConfigError(f"an index of kind ivfpq needs {_FEWEST:,} items, not {n_items:,}: take flat or hnsw")
    n_lists = min(int(4 * n_items**0.5), n_items // _LEARNED_FROM)
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(size), size, n_lists, size // _TOGETHER, 8, faiss.METRIC_INNER_PRODUCT)
    n_learned = min(n_items, _LEARNED_FROM * n_lists)
    index.train(vectors[np.random.default_rng(0).choice(n_items, n_learned, replace=False)])
    return index


def _open_faiss(kind: str, path: Path, weight: float) -> Search:
    faiss = _faiss()
    index = faiss.read_index(str(path))

    def search(users: FloatArray, k: int) -> IntArray:
        options = {}
        if kind == "hnsw":
            options = {"params": faiss.SearchParametersHNSW(efSearch=_breadth(index.ntotal, k))}
        elif kind == "ivfpq":
            k, options = max(k, _RANKED), {"params": faiss.SearchParametersIVF(nprobe=max(1, index.nlist // _LISTS))}
        places: IntArray = index.search(_queries(users, index.d, weight), min(k, index.ntotal), **options)[1]
        return places

    return search


# ---- usearch --------------------------------------------------------------------------------------------------


def _usearch() -> Any:
    with suppress(ImportError):  # the process crashes where it is imported after usearch
        import onnxruntime

        onnxruntime.disable_telemetry_events()
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("usearch", "serve") from error
    return Index


def _write_usearch(kind: str, vectors: FloatArray, path: Path) -> None:
    options = {"connectivity": _NEIGHBORS, "expansion_add": _BREADTH, "dtype": "f32"}
    index = _usearch()(ndim=vectors.shape[1], metric="ip", **options)
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)
    index.save(str(path))


def _open_usearch(kind: str, path: Path, weight: float) -> Search:
    index = _usearch().restore(str(path), view=True)

    def search(users: FloatArray, k: int) -> IntArray:
        index.expansion_search = _breadth(len(index), k)
        found = index.search(_queries(users, index.ndim, weight), min(k, len(index)))
        keys = np.asarray(found.keys).astype(np.int64).reshape(len(users), -1)
        counts = np.atleast_1d(getattr(found, "counts", keys.shape[1]))
        return np.where(np.arange(keys.shape[1]) < counts[:, None], keys, -1)

    return search


# ---- kinds ----------------------------------------------------------------------------------------------------

_WRITERS: dict[str, Callable[[str, FloatArray, Path], None]] = {
    **dict.fromkeys(("flat", "hnsw", "ivfpq"), _write_faiss),
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


def write_index(kind: str, items: FloatArray, bias: FloatArray, path: Path) -> float:
    """Write the index of items, ``(n, D)``, with their bias, ``(n,)``; return the weight that opening it takes.

    Raises:
        MissingExtraError: its package is not installed.
    """
    vectors, weight = with_bias(items, bias)
    _WRITERS[kind](kind, vectors, path)
    return weight


def open_index(kind: str, path: Path, weight: float = 1.0) -> Search:
    """Open what :func:`write_index` wrote, with the weight that it returned; indexes of earlier releases have 1.

    Raises:
        MissingExtraError: its package is not installed.
    """
    check_kind(kind)
    return _open_usearch(kind, path, weight) if kind == "usearch" else _open_faiss(kind, path, weight)
