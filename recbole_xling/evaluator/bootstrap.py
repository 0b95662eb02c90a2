"""Bootstrap intervals over users: of one result, and of the difference between two.

Rows (or impressions) of the same user are alike, so users are resampled, not rows (Efron and Tibshirani: An
Introduction to the Bootstrap. 1993, percentile intervals; Field and Welsh: Bootstrapping clustered data. JRSS B 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]
Groups = Sequence[Any] | NDArray[Any]

LEVEL = 0.95
N_RESAMPLES = 1000
_CELLS = 200_000  # of a block of resamples, which then fits a processor's cache


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two results and its interval."""

    difference: float
    low: float
    high: float


class Resamples:
    """Groups drawn with replacement, as many as there are; the same draws for everything measured on the same rows.

    Args:
        groups: what each row belongs to, such as its user, ``(n,)``.
        seed: of the resampling; equal seeds draw equal groups.
        n_resamples: number of resamples.
    """

    def __init__(self, groups: Groups, seed: int = 0, *, n_resamples: int = N_RESAMPLES) -> None:
        distinct, self.group = np.unique(np.asarray(groups), return_inverse=True)
        rng, n_groups = np.random.default_rng(seed), len(distinct)
        self._times = np.empty((n_resamples, n_groups), dtype=np.uint8)  # of a group: one on average, never near 255
        for draw in range(n_resamples):
            self._times[draw] = np.bincount(rng.integers(0, n_groups, size=n_groups), minlength=n_groups)

    def means(self, values: FloatArray, rows: IntArray | None = None) -> FloatArray:
        """Return the means of some rows in each resample, NaN where none of their groups was drawn.

        Args:
            values: of all rows, ``(n, m)``.
            rows: numbers of the rows to count; all if not given.

        Returns:
            ``(n_resamples, m)``.

        Raises:
            ValueError: there are no rows, or ``values`` is of another length than the groups.
        """
        if not len(values) or len(values) != len(self.group):
            raise ValueError(f"{len(values)} values and {len(self.group)} groups: every value, at least one, needs one")
        group = self.group if rows is None else self.group[rows]
        values = values if rows is None else values[rows]
        chosen, of_row = np.unique(group, return_inverse=True)
        columns = (*values.T, np.ones(len(values)))
        sums = np.stack([np.bincount(of_row, weights=column) for column in columns], axis=1)  # (n_chosen, m + 1)
        found = np.concatenate([times @ sums for times in self._blocks(chosen)])
        with np.errstate(invalid="ignore"):
            return found[:, :-1] / found[:, -1:]  # type: ignore[no-any-return]

    def weights(self, rows: IntArray) -> Iterator[FloatArray]:
        """Yield how often each of some rows is in each resample, some resamples at a time, ``(B, n_rows)``."""
        return self._blocks(self.group[rows])

    def _blocks(self, groups: IntArray) -> Iterator[FloatArray]:
        size = max(1, _CELLS // len(self.group))
        for begin in range(0, len(self._times), size):
            yield self._times[begin : begin + size].take(groups, axis=1).astype(np.float64)


def intervals_of(resampled: FloatArray, level: float = LEVEL) -> FloatArray:
    """Return the percentile intervals of resampled values.

    Args:
        resampled: ``(n_resamples, m)``; NaN, where something could not be resampled, does not count.
        level: share of the values that an interval contains.

    Returns:
        ``(m, 2)``; NaN for a column of NaN.
    """
    ends = [(1 - level) / 2, (1 + level) / 2]
    known = ~np.isnan(resampled)
    if known.all():
        return np.quantile(resampled, ends, axis=0).T  # type: ignore[no-any-return]
    columns = [column[there] for column, there in zip(resampled.T, known.T, strict=True)]
    return np.stack([np.quantile(column, ends) if len(column) else np.full(2, np.nan) for column in columns])


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
    return intervals_of(Resamples(groups, seed, n_resamples=n_resamples).means(values), level)


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
