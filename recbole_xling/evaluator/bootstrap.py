"""How far a result may be trusted: bootstrap intervals over users.

Impressions, or rows, of the same user are alike, so users are drawn and not rows (Efron and Tibshirani: An
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
    """By how much one result exceeds another, and the interval of that difference."""

    difference: float
    low: float
    high: float


def bootstrap_interval(
    values: FloatArray, groups: Groups, seed: int = 0, *, level: float = LEVEL, n_resamples: int = N_RESAMPLES
) -> tuple[float, float]:
    """Return the interval of the mean of ``values``: groups are drawn with replacement, each with all its values.

    Args:
        values: ``(n,)``.
        groups: to what each value belongs, such as its user, ``(n,)``.
        seed: of the draws; equal seeds draw equal groups.
        level: share of the drawn means that lies in the interval.
        n_resamples: number of draws.

    Raises:
        ValueError: there are no values, or not as many groups as values.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or len(values) != len(groups):
        raise ValueError(f"{len(values)} values and {len(groups)} groups: as many are needed, and at least one")
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.bincount(group)
    sums = np.bincount(group, weights=values)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for draw in range(n_resamples):
        chosen = rng.integers(0, len(counts), size=len(counts))
        means[draw] = sums[chosen].sum() / counts[chosen].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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

    An interval that does not hold 0 tells the models apart, even where the intervals of their own means overlap: what
    makes a row hard is hard for both, and falls out of the difference.

    Args:
        a: values of the rows, ``(n,)``.
        b: the other model's values of the same rows in the same order, ``(n,)``.
        groups: to what each row belongs, such as its user, ``(n,)``.
        seed: of the draws.
        level: as for :func:`bootstrap_interval`.
        n_resamples: as for :func:`bootstrap_interval`.

    Raises:
        ValueError: the values are not as many, or there are none.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values: a paired comparison needs the same rows")
    low, high = bootstrap_interval(a - b, groups, seed, level=level, n_resamples=n_resamples)
    return PairedDifference(float((a - b).mean()), low, high)
