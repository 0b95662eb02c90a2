"""What a report shows of a run: tables of values, and examples of what its model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.evaluator.bootstrap import bootstrap_interval
from recbole_xling.evaluator.slices import slice_values


class Value(NamedTuple):
    """The mean of a metric over the rows of a slice, with its 95% interval over users."""

    name: str
    n: int
    mean: float
    low: float
    high: float


class ShownItem(NamedTuple):
    """An item as a user sees it; ``language`` is ``und`` where it is not known."""

    item_id: str
    language: str
    text: str
    is_target: bool = False


class Example(NamedTuple):
    """A test row: what its user had met, the items to be found, and what the model recommends, the best first.

    ``history`` is a part of the ``n_history`` items that the model knows, the last ones if they are in an order.
    """

    user_id: str
    language: str
    history: Sequence[ShownItem]
    n_history: int
    is_ordered: bool
    targets: Sequence[ShownItem]
    recommended: Sequence[ShownItem]


class Neighbors(NamedTuple):
    """An item, and in each other language the item whose vector is nearest, with the cosine."""

    item: ShownItem
    nearest: Sequence[tuple[ShownItem, float]]


class ItemMap(NamedTuple):
    """Items in the plane.

    Attributes:
        points: ``(n, 2)``.
        items: the items of the points.
        method: how vectors became points, in words.
    """

    points: NDArray[np.float64]
    items: Sequence[ShownItem]
    method: str


@dataclass(frozen=True)
class RunContent:
    """What a report shows of one run.

    Attributes:
        name: by which its curves and bars are known.
        folder: the run folder.
        result: ``result.json``.
        settings: ``config.yaml``.
        rows: ``users.parquet``, a line per test row.
        curves: of ``loss`` and ``validation``, epochs (from 1) and values; without epochs nothing.
        examples, neighbors, items: what its model does; empty or None where the folder has no model.
        missing: why something of the model is not there, in words; empty if all is.
    """

    name: str
    folder: Path
    result: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: pl.DataFrame
    curves: Mapping[str, Sequence[tuple[int, float]]]
    examples: Sequence[Example] = ()
    neighbors: Sequence[Neighbors] = ()
    items: ItemMap | None = None
    missing: str = ""
    _known: dict[tuple[str, str], list[Value]] = field(default_factory=dict, repr=False, compare=False)

    def values(self, metric: str, column: str) -> list[Value]:
        """Return the values of a metric by a column of the rows, the largest slice first."""
        if column not in self.rows.columns or metric not in self.rows.columns:
            return []
        if (metric, column) not in self._known:
            slices = self.result.get("slices", {})
            found = [
                value_of(name, part, metric, slices.get(f"{column}={name}", {}))
                for name, part in slice_values(self.rows, column)
            ]
            self._known[metric, column] = sorted(found, key=lambda value: -value.n)
        return self._known[metric, column]


def value_of(name: str, rows: pl.DataFrame, metric: str, measured: Mapping[str, Any]) -> Value:
    """Return the mean of a metric over rows, with its interval.

    Args:
        name: of the value.
        rows: of ``users.parquet``.
        metric: one of their columns.
        measured: what ``result.json`` has of them; earlier releases measured no ``intervals``.
    """
    values = rows[metric].to_numpy().astype(np.float64)
    interval = measured.get("intervals", {}).get(metric) or bootstrap_interval(values, rows["user_id"].to_numpy())
    return Value(name, len(rows), float(values.mean()), *interval)
