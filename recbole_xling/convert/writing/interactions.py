"""Interactions of a source: checked batch by batch; the good ones become parts, the bad ones rejects."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import polars as pl
from tqdm import tqdm

from recbole_xling.convert.base import FILE, Converter
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import LINE
from recbole_xling.convert.writing.cells import bad_ids
from recbole_xling.errors import DataError

NUMBERS = ("rating", "timestamp")
ROW = "row"
"""Column of the parts: number of the interaction in the order of the source, from 0."""

_ROWS_AT_A_TIME = 2_000_000


class InteractionTable:
    """A table too large for memory, in a folder of its own.

    What has to look at all rows (:meth:`scan`) is computed by polars' streaming engine; rows are taken out part by part
    (:meth:`keep`), which holds one part in memory and leaves the order alone.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self.columns: list[str] = []
        self._paths: list[Path] = []
        self._next_row = 0

    def append(self, frame: pl.DataFrame) -> None:
        """Add a batch; all have the same columns."""
        if frame.height:
            numbers = pl.int_range(self._next_row, self._next_row + frame.height, dtype=pl.Int64, eager=True)
            self.columns = frame.columns
            self._paths.append(self.folder / f"{len(self._paths):06}.parquet")
            frame.with_columns(numbers.alias(ROW)).write_parquet(self._paths[-1], compression="lz4")
            self._next_row += frame.height
            self.rows += frame.height

    def scan(self) -> pl.LazyFrame:
        """Return all rows as a lazy frame; there must be some."""
        return pl.scan_parquet(self._paths)

    def by_users(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield columns of all rows, in no order, some 2 million at a time; those of a user are in one frame."""
        shares = math.ceil(self.rows / _ROWS_AT_A_TIME)
        for share in range(shares):
            of_share = self.scan().filter(pl.col("user_id").hash() % shares == share)
            yield of_share.select(columns).collect(engine="streaming")

    def keep(self, chosen: Callable[[pl.DataFrame], pl.DataFrame]) -> int:
        """Replace each part by what ``chosen`` makes of it, in order; return the number of rows that are gone."""
        before, self.rows = self.rows, 0
        for path in list(self._paths):
            part = pl.read_parquet(path, memory_map=False)
            kept = chosen(part)
            self.rows += kept.height
            if not kept.height:
                self._paths.remove(path)
            elif kept.height < part.height:
                draft = path.with_suffix(".draft")
                kept.write_parquet(draft, compression="lz4")
                os.replace(draft, path)
        return before - self.rows

    def write(self, path: Path) -> None:
        """Write RecBole's ``.inter`` file; a column of whole numbers is written without decimals."""
        frame = self.scan()
        numbers = [name for name in NUMBERS if name in self.columns]
        integral = frame.select(_are_integral(name) for name in numbers).collect(engine="streaming").rows()
        kinds = [pl.Int64 if whole else pl.Float64 for row in integral for whole in row]
        ids = [pl.col(name).alias(f"{name}:token") for name in ("user_id", "item_id")]
        cells = [pl.col(name).cast(kind).alias(f"{name}:float") for name, kind in zip(numbers, kinds, strict=True)]
        frame.select(*ids, *cells).sink_csv(path, separator="\t", quote_style="never")


def _are_integral(name: str) -> pl.Expr:
    numbers = pl.col(name)
    return ((numbers == numbers.floor()) & numbers.is_between(-(2.0**63), 2.0**63, closed="none")).all()


_REASON = "reason"
_SCHEMA = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}
_SCHEMA |= {FILE: pl.String, LINE: pl.Int64}


def read_interactions(
    converter: Converter,
    parts: InteractionTable,
    items: Collection[str],
    rejects: Rejects,
    *,
    show_progress: bool = True,
) -> None:
    """Read all interactions of a source into ``parts``.

    Bad ones go to ``rejects``: an unknown item, an id that RecBole cannot read back, a rating or time that is missing
    or not finite.

    Args:
        converter: the source.
        parts: where the good rows go.
        items: ids of all items.
        rejects: takes the bad rows.
        show_progress: show a progress bar.

    Raises:
        DataError: the converter yields other columns than it should.
    """
    known = pl.DataFrame({"item_id": list(items)}, schema={"item_id": pl.String}).with_columns(is_known=True)
    columns: list[str] | None = None
    with tqdm(desc="interactions", unit=" rows", unit_scale=True, disable=not show_progress) as bar:
        for batch in converter.interactions(rejects):
            columns = _checked_columns(converter, batch, columns)
            checked = batch.cast({name: _SCHEMA[name] for name in columns}).join(
                known, on="item_id", how="left", maintain_order="left"
            )
            checked = checked.with_columns(_reason(columns).alias(_REASON))
            _reject(checked.filter(pl.col(_REASON).is_not_null()), columns, rejects)
            good = checked.filter(pl.col(_REASON).is_null())
            parts.append(good.select(name for name in columns if name not in (FILE, LINE)))
            bar.update(batch.height)


def _checked_columns(converter: Converter, batch: pl.DataFrame, before: list[str] | None) -> list[str]:
    columns = [name for name in _SCHEMA if name in batch.columns]
    missing = [name for name in _SCHEMA if name not in NUMBERS and name not in columns]
    if missing or set(batch.columns) - set(_SCHEMA) or (before is not None and columns != before):
        raise DataError(
            f"{converter.name}: interactions with the columns {', '.join(batch.columns)}; "
            f"all batches must have the same ones of {', '.join(_SCHEMA)}"
        )
    return columns


def _reason(columns: list[str]) -> pl.Expr:
    """Return why a row is bad, null where it is good."""
    reasons = [bad_ids("user_id"), bad_ids("item_id")]
    for name in NUMBERS:
        if name in columns:
            finite = pl.col(name).is_finite().fill_null(False)
            reasons.append(pl.when(~finite).then(pl.lit(f"no finite number as {name}")))
    reasons.append(pl.when(pl.col("is_known").is_null()).then(pl.lit("an unknown item")))
    return pl.coalesce(reasons)


def _reject(bad: pl.DataFrame, columns: list[str], rejects: Rejects) -> None:
    shown = [name for name in columns if name not in (FILE, LINE)]
    for row in bad.iter_rows(named=True):
        cells = " ".join(str(row[name]) for name in shown)
        rejects.add(row[FILE], row[LINE], row[_REASON], cells)
