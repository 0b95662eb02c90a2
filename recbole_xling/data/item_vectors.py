"""Which vectors items with one or several texts have, given the vectors of the texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distinct_texts(texts_of_views: list[list[str]]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts of items, and which of them each item has in each view.

    Args:
        texts_of_views: the text of each item in each view; the first item is the padding item.

    Returns:
        The texts that are not empty; their numbers from 1, ``(n_views, n_items)``, 0 for the padding item and items
        without text.
    """
    place: dict[str, int] = {"": 0}
    row = [
        [0, *(place.setdefault(text if text.strip() else "", len(place)) for text in texts[1:])]
        for texts in texts_of_views
    ]
    return list(place)[1:], np.array(row)


def averaged(vectors: NDArray[np.float32], row: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return vectors with the mean of each item's different texts appended, and the rows of these as the only view.

    Where there is one view already, it stays as it is.

    Args:
        vectors: of the texts, ``(n, dimension)``; row 0 means no text.
        row: of each item in each view, ``(n_views, n_items)``.
    """
    if len(row) == 1:
        return vectors, row
    return np.concatenate([vectors, _means(vectors, row)]), len(vectors) + np.arange(row.shape[1])[None]


def _means(vectors: NDArray[np.float32], row: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean vector of each item's different texts, as long as those are on average.

    Args:
        vectors: of the texts, ``(n, dimension)``; row 0 means no text.
        row: of each item in each view, ``(n_views, n_items)``.
    """
    texts = np.sort(row, axis=0)
    counts = texts > 0
    counts[1:] &= texts[1:] != texts[:-1]
    total = np.zeros((row.shape[1], vectors.shape[1]), dtype=np.float32)
    length = np.zeros(row.shape[1], dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    for text, is_new in zip(texts, counts, strict=True):
        total[is_new] += vectors[text[is_new]]
        length[is_new] += norms[text[is_new]]
    several = counts.sum(axis=0) > 1  # a single text keeps its vector to the last bit
    wanted = length[several] / counts.sum(axis=0)[several]
    total[several] *= (wanted / (np.linalg.norm(total[several], axis=1) + 1e-12))[:, None]
    return total


def unit_norm(vectors: NDArray[np.float32]) -> float:
    """Return the number by which text vectors have mean squared norm 1 over the rows with a text.

    Learning does not depend on the encoder then.
    """
    filled = np.any(vectors != 0, axis=1)
    return float(np.sqrt(np.mean(np.sum(np.square(vectors[filled]), axis=1)))) if filled.any() else 1.0
