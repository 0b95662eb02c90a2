"""Preparing raw text vectors: whitening and principal components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_FLOOR = 0.1  # share of the root mean square deviation below which a direction counts as noise


def _principal(rows: FloatArray, n_components: int) -> tuple[FloatArray, FloatArray]:
    """Return the centred rows in the basis of their principal axes, and the standard deviation along each."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    variance, axes = np.linalg.eigh(centred.T @ centred / max(1, len(rows)))
    keep = np.argsort(variance)[::-1][:n_components]
    deviation = np.sqrt(np.maximum(variance[keep], 0.0))
    return (centred @ axes[:, keep]).astype(np.float32), deviation.astype(np.float32)


def _spread(rotated: FloatArray, deviation: FloatArray, floor: float) -> FloatArray:
    """Bring all axes to like variance; those that are next to nothing are raised no further than the floor allows."""
    smallest = floor * float(np.sqrt(np.mean(np.square(deviation)))) + 1e-12
    return rotated / np.maximum(deviation, np.float32(smallest))


def whiten(vectors: FloatArray, *, floor: float = _FLOOR) -> FloatArray:
    """Decorrelate text vectors and bring their directions to like variance, mean squared norm 1 per row.

    Raw language-model vectors crowd in a narrow cone; whitening spreads them (WhitenRec, Zhang et al. 2024).
    Rows that are all zero (no text) stay zero. Directions whose standard deviation is below ``floor`` times the
    root mean square are noise and are raised no further than the floor allows.

    Args:
        vectors: ``(n_items, dimension)``.
        floor: smallest divisor, as a share of the root mean square deviation.
    """
    filled = np.any(vectors != 0, axis=1)
    result = np.zeros_like(vectors)
    rotated, deviation = _principal(vectors[filled], vectors.shape[1])
    rotated = _spread(rotated, deviation, floor)
    result[filled] = rotated / np.sqrt(np.mean(np.sum(np.square(rotated), axis=1)))
    return result


def principal_components(vectors: FloatArray, n_components: int, std: float, *, white: bool = False) -> FloatArray:
    """Project text vectors on their first principal axes, scaled to standard deviation ``std`` over all entries.

    With ``white`` all axes get like variance first.

    Where the vectors span fewer than ``n_components`` directions the rest is zero. Rows without text stay zero.

    Returns:
        ``(n_items, n_components)``.
    """
    filled = np.any(vectors != 0, axis=1)
    result = np.zeros((len(vectors), n_components), dtype=np.float32)
    rotated, deviation = _principal(vectors[filled], n_components)
    if white:
        rotated = _spread(rotated, deviation, _FLOOR)
    scale = std / (float(rotated.std()) + 1e-12)
    result[filled, : rotated.shape[1]] = rotated * scale
    return result
