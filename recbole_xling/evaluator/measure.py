"""Measuring the rows of a slice: metrics, and what they would be for other users, of which intervals are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.evaluator.bootstrap import Resamples, intervals_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Measured(NamedTuple):
    """Metrics of some rows, NaN where they are not defined: their values, ``(m,)``, and those in resamples of users.

    ``resampled`` is ``(n_resamples, m)``. All of one :class:`Measure` are of the same resamples, so that they can be
    added and subtracted.
    """

    values: FloatArray
    resampled: FloatArray


def mean_over(parts: Sequence[Measured]) -> Measured:
    """Return the mean over measured parts, each counting once; those in which a metric is not defined do not count."""
    return Measured(*(_mean_of_known(np.stack(arrays)) for arrays in zip(*parts, strict=True)))


def difference(one: Measured, other: Measured) -> Measured:
    """Return one minus the other, with both in the same resamples."""
    return Measured(one.values - other.values, one.resampled - other.resampled)


class Measure(ABC):
    """Measures rows of a table by some metrics, always in the same resamples of its users.

    Args:
        table: rows with ``user_id``.
        metrics: names.
        seed: of the resampling.
    """

    def __init__(self, table: pl.DataFrame, metrics: Sequence[str], seed: int) -> None:
        self.metrics = list(metrics)
        self.n_rows = table.height
        self.resamples = Resamples(table["user_id"].to_numpy(), seed)

    @abstractmethod
    def __call__(self, rows: IntArray | None = None) -> Measured:
        """Measure the rows with these numbers, at least one; all if not given."""

    def entry(self, measured: Measured) -> dict[str, Any]:
        """Return the metrics by name, and their 95% ``intervals``; those that are not defined are left out."""
        values = dict(zip(self.metrics, measured.values.tolist(), strict=True))
        bounds = dict(zip(self.metrics, intervals_of(measured.resampled).tolist(), strict=True))
        known = [metric for metric in self.metrics if not np.isnan(values[metric])]
        return {
            **{metric: values[metric] for metric in known},
            "intervals": {metric: bounds[metric] for metric in known if not np.isnan(bounds[metric]).any()},
        }


class MeanValues(Measure):
    """The means of columns of the table."""

    def __init__(self, table: pl.DataFrame, metrics: Sequence[str], seed: int) -> None:
        super().__init__(table, metrics, seed)
        self._values = np.stack([table[metric].to_numpy() for metric in metrics], axis=1).astype(np.float64)  # (n, m)

    def __call__(self, rows: IntArray | None = None) -> Measured:
        """Return the means of the rows."""
        chosen = self._values if rows is None else self._values[rows]
        # column by column, as contiguous sums: these are RecBole's, to the last bit
        values = np.array([np.ascontiguousarray(column).mean() for column in chosen.T])
        return Measured(values, self.resamples.means(self._values, rows))


class LabelMetrics(Measure):
    """Metrics that compare the column ``score`` with ``label``: AUC, LogLoss, MAE and RMSE.

    Args:
        table: as for :class:`Measure`.
        metrics: as for :class:`Measure`; another one than these four has no intervals.
        seed: as for :class:`Measure`.
        value_of: returns a metric of scores and labels; None where it is not defined.
    """

    def __init__(
        self,
        table: pl.DataFrame,
        metrics: Sequence[str],
        seed: int,
        value_of: Callable[[str, FloatArray, FloatArray], float | None],
    ) -> None:
        super().__init__(table, metrics, seed)
        self._scores, self._labels = (table[name].to_numpy().astype(np.float64) for name in ("score", "label"))
        self._value_of = value_of
        error = self._scores - self._labels
        chance = np.clip(self._scores, 1e-15, 1 - 1e-15)  # as RecBole clips it
        log_loss = -self._labels * np.log(chance) - (1 - self._labels) * np.log(1 - chance)
        self._losses = np.stack([np.abs(error), error**2, log_loss], axis=1)  # (n, 3)

    def __call__(self, rows: IntArray | None = None) -> Measured:
        """Return the metrics of the rows."""
        rows = np.arange(self.n_rows) if rows is None else rows
        scores, labels = self._scores[rows], self._labels[rows]
        values = [self._value_of(metric, scores, labels) for metric in self.metrics]
        mae, mse, log_loss = self.resamples.means(self._losses, rows).T
        columns = {"mae": mae, "rmse": np.sqrt(mse), "logloss": log_loss}
        if "auc" in self.metrics:
            columns["auc"] = self._aucs(rows)
        resampled = [columns.get(metric, np.full(len(mae), np.nan)) for metric in self.metrics]
        return Measured(np.array(values, dtype=np.float64), np.stack(resampled, axis=1))

    def _aucs(self, rows: IntArray) -> FloatArray:
        """Return the AUC in each resample, ``(n_resamples,)``: equal scores count half; NaN without both labels."""
        positive, negative = (rows[chosen] for chosen in (self._labels[rows] > 0, self._labels[rows] <= 0))
        negative = negative[np.argsort(self._scores[negative], kind="stable")]
        ends = [np.searchsorted(self._scores[negative], self._scores[positive], side) for side in ("left", "right")]
        found = []
        for of_positive, of_negative in zip(*map(self.resamples.weights, (positive, negative)), strict=True):
            below = np.pad(np.cumsum(of_negative, axis=1), ((0, 0), (1, 0)))  # (B, n_negative + 1)
            wins = sum(below.take(end, axis=1) for end in ends) / 2
            with np.errstate(invalid="ignore"):
                found.append((of_positive * wins).sum(axis=1) / (of_positive.sum(axis=1) * below[:, -1]))
        return np.concatenate(found)


def _mean_of_known(values: FloatArray) -> FloatArray:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)  # type: ignore[no-any-return]
