"""Bootstrap intervals over users: of one result, and of the difference between two.

Rows (or impressions) of the same user are alike, so users are resampled, not rows (Efron and Tibshirani: An
Introduction to the Bootstrap. 1993, percentile intervals; Field and Welsh: Bootstrapping clustered data. JRSS B 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Groups = Sequence[Any] | NDArray[Any]

LEVEL = 0.95
N_RESAMPLES = 1000


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two results and its interval."""

    difference: float
    low: float
    high: float


def bootstrap_interval(
    values: FloatArray, groups: Groups, seed: int = 0, *, level: float = LEVEL, n_resamples: int = N_RESAMPLES
) -> tuple[float, float]:
    """Return the interval of the mean of ``values``: groups are resampled with replacement, each with all its values.

    Args:
        values: ``(n,)``.
        groups: what each value belongs to, such as its user, ``(n,)``.
        seed: of the resampling; equal seeds draw equal groups.
        level: share of the resampled means that the interval contains.
        n_resamples: number of resamples.

    Raises:
        ValueError: ``values`` is empty, or ``groups`` has another length.
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_intervals(values[:, None], groups, seed, level=level, n_resamples=n_resamples)[0]
    return float(low), float(high)


def bootstrap_intervals(
    values: FloatArray, groups: Groups, seed: int = 0, *, level: float = LEVEL, n_resamples: int = N_RESAMPLES
) -> FloatArray:
    """Return the intervals of the means of several columns, all over the same resampled groups, ``(m, 2)``.

    Args:
        values: ``(n, m)``.
        groups: what each line belongs to, ``(n,)``.
        seed: of the resampling.
        level: as for :func:`bootstrap_interval`.
        n_resamples: as for :func:`bootstrap_interval`.

    Raises:
        ValueError: ``values`` is empty, or ``groups`` has another length.
    """
    if not len(values) or len(values) != len(groups):
        raise ValueError(f"{len(values)} values and {len(groups)} groups: every value, at least one, needs a group")
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.bincount(group)
    sums = np.stack([np.bincount(group, weights=column) for column in values.T], axis=1)  # (n_groups, m)
    rng = np.random.default_rng(seed)
    means = np.empty((n_resamples, values.shape[1]))
    for draw in range(n_resamples):
        times = np.bincount(rng.integers(0, len(counts), size=len(counts)), minlength=len(counts))
        means[draw] = times @ sums / (times @ counts)
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def paired_difference(
    a: FloatArray,
    b: FloatArray,
    groups: Groups,
    seed: int = 0,
    *,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
) -> PairedDifference:
    """Compare two models on the same rows: the mean of ``a - b`` with its interval.

    An interval without 0 tells the models apart, even if the intervals of their own means overlap: what makes a row
    hard is hard for both models and cancels out in the difference.

    Args:
        a: values of the rows, ``(n,)``.
        b: the other model's values of the same rows in the same order, ``(n,)``.
        groups: what each row belongs to, such as its user, ``(n,)``.
        seed: of the resampling.
        level: as for :func:`bootstrap_interval`.
        n_resamples: as for :func:`bootstrap_interval`.

    Raises:
        ValueError: ``a`` and ``b`` differ in length, or are empty.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values: a paired comparison needs the same rows")
    low, high = bootstrap_interval(a - b, groups, seed, level=level, n_resamples=n_resamples)
    return PairedDifference(float((a - b).mean()), low, high)
