"""All interactions in the order of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.raw_tables import table_columns

_MISSING = (
    "",
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""What RecBole's reader (pandas) takes for a missing value."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns, as a configuration gives them (``USER_ID_FIELD`` and so on)."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    language: str = "item_language"
    text_fields: tuple[str, ...] = ("title",)
    separator: str = "\t"


def scan_table(path: Path, separator: str) -> pl.LazyFrame:
    """Return an atomic file as a lazy table of texts, raw; types are cut off the column names.

    Raises:
        ConfigError: the separator is longer than one character.
        DataError: the file is missing or empty, or a column is named twice.
    """
    if len(separator.encode()) != 1:
        raise ConfigError(f"a data card needs a field_separator of one character, not {separator!r}; write tabs")
    names = table_columns(path, separator=separator)
    return pl.scan_csv(
        path,
        separator=separator,
        quote_char=None,
        infer_schema_length=0,
        new_columns=names,
        null_values=list(_MISSING),
    )


def collect(table: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Run a query on a table without holding all of it.

    Raises:
        DataError: the file is not a table.
    """
    with _readable(path):
        return table.collect(engine="streaming")


def distinct_ids(path: Path, column: str, separator: str) -> pl.Series:
    """Return the ids of a ``.user`` or ``.item`` file, each once, in the order of the file."""
    table = scan_table(path, separator)
    _require(path, column, separator)
    return collect(table.select(pl.col(column)), path).to_series().drop_nulls().unique(maintain_order=True)


def read_histories(path: Path, columns: Columns, known_items: pl.Series | None) -> Histories:
    """Read an ``.inter`` file as a run does.

    Rows without a user or an item are dropped, and so are those with an item that ``known_items`` lacks. A missing
    time is replaced by the mean. Interactions are ordered by user, then time, then place in the file; times are
    compared in single precision, in which RecBole keeps them.

    Args:
        path: the file.
        columns: names of its columns.
        known_items: ids of the ``.item`` file, None where there is none.

    Raises:
        DataError: a column or all interactions are missing, or a time is no number.
    """
    table = scan_table(path, columns.separator)
    for column in (columns.user, columns.item):
        _require(path, column, columns.separator)
    ids = [pl.col(columns.user).cast(pl.Categorical), pl.col(columns.item).cast(pl.Categorical)]
    has_time = columns.time in table_columns(path, separator=columns.separator)
    frame = collect(table.select(*ids, *([_number(columns.time)] if has_time else [])), path)
    if has_time:
        _check_times(table, frame[columns.time], columns.time, path)
    lacking = sum(pl.col(column).is_null().cast(pl.UInt8) for column in (columns.user, columns.item))
    missing_ids = frame.filter(lacking == 1).height  # 2: a blank line
    complete = frame.filter(lacking == 0)
    found, code = _codes(complete[columns.item])
    item_ids = found if known_items is None else known_items
    row = places_of(found, item_ids)[code]
    kept = complete.filter(pl.Series(row >= 0))
    if kept.is_empty():
        raise DataError(f"{path}: no interaction with a known item; is it the right file?")
    user_ids, users = _codes(kept[columns.user])
    times = kept[columns.time].to_numpy() if has_time else None
    return _ordered(
        users,
        row[row >= 0],
        times,
        user_ids=user_ids,
        item_ids=item_ids,
        missing_ids=missing_ids,
        unknown_items=complete.height - kept.height,
    )


def count_duplicate_rows(path: Path, separator: str) -> int:
    """Return how many rows of a table equal an earlier one in every column."""
    rows = collect(scan_table(path, separator).select(pl.struct(pl.all()).hash()), path).to_series()
    return len(rows) - rows.n_unique()


def places_of(values: pl.Series, ids: pl.Series) -> NDArray[np.int64]:
    """Return the place of each value among ``ids``, -1 where it is not there, ``(len(values),)``."""
    table = pl.DataFrame({"id": ids}).with_row_index("row")
    found = pl.DataFrame({"id": values}).with_row_index("n").join(table, on="id", how="left").sort("n")
    return found["row"].cast(pl.Int64).fill_null(-1).to_numpy()


def _ordered(users: NDArray[Any], items: NDArray[Any], times: NDArray[Any] | None, **rest: Any) -> Histories:
    frame = pl.DataFrame({"user": users, "item": items.astype(np.uint32)})
    missing = len(users)
    if times is not None:
        missing = int(np.isnan(times).sum())
        if missing:
            times = np.where(np.isnan(times), np.nanmean(times) if missing < len(times) else 0.0, times)
        frame = frame.with_columns(time=times)
    order = [pl.col("user")] if times is None else [pl.col("user"), pl.col("time").cast(pl.Float32)]
    frame = frame.sort(order, maintain_order=True)
    return Histories(
        users=frame["user"].to_numpy(),
        items=frame["item"].to_numpy(),
        times=None if times is None else frame["time"].to_numpy(),
        missing_times=missing,
        **rest,
    )


def _codes(column: pl.Series) -> tuple[pl.Series, NDArray[np.uint32]]:
    """Return the distinct values of a categorical column, and the place of each row's value among them."""
    distinct = column.unique()
    physical = distinct.to_physical().to_numpy()
    place = np.zeros(int(physical.max(initial=0)) + 1, dtype=np.uint32)
    place[physical] = np.arange(len(physical), dtype=np.uint32)
    return distinct.cast(pl.String), place[column.to_physical().to_numpy()]


def _number(column: str) -> pl.Expr:
    """Read numbers; a missing one becomes null, what is no number becomes infinite."""
    number = pl.col(column).str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(pl.col(column).is_null()).then(None).otherwise(number.fill_null(float("inf"))).alias(column)


def _check_times(table: pl.LazyFrame, times: pl.Series, column: str, path: Path) -> None:
    if times.is_infinite().any():
        where = int(times.is_infinite().arg_max() or 0)
        value = collect(table.select(column).slice(where, 1), path).item()
        raise DataError(f"{path}: row {where + 1} below the header: {column} {value!r} is no finite number; mend it")


def _require(path: Path, column: str, separator: str) -> None:
    columns = table_columns(path, separator=separator)
    if column not in columns:
        raise DataError(f"{path}: no column '{column}'; its columns are {', '.join(columns)}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} cannot be read as a table: {reason}; convert it again, or mend it") from None


IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """Interactions sorted by user, then time.

    Attributes:
        users: number of each interaction's user, ``(n,)``, from 0 without a gap.
        items: place of each interaction's item in ``item_ids``, ``(n,)``.
        times: time stamps, ``(n,)``; None where the dataset has none.
        user_ids: external ids of the users, ``(n_users,)``.
        item_ids: external ids of the catalog's items, ``(n_items,)``; some may never interact.
        missing_ids: rows that were dropped for want of a user or item.
        unknown_items: rows that were dropped because the catalog lacks their item.
        missing_times: interactions without a time stamp.
    """

    users: NDArray[np.uint32]
    items: NDArray[np.uint32]
    times: NDArray[np.float64] | None
    user_ids: pl.Series
    item_ids: pl.Series
    missing_ids: int
    unknown_items: int
    missing_times: int

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def length(self) -> IntArray:
        """Interactions of each user, ``(n_users,)``."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    @cached_property
    def start(self) -> IntArray:
        """Position of each user's first interaction, ``(n_users,)``."""
        return np.cumsum(self.length) - self.length

    @cached_property
    def item_counts(self) -> IntArray:
        """Interactions of each item of the catalog, ``(n_items,)``."""
        return np.bincount(self.items, minlength=len(self.item_ids))
