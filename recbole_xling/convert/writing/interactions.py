"""The interactions of a source: read and checked batch by batch, and a table of them that is larger than memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from tqdm.auto import tqdm

from recbole_xling.convert.base import Converter
from recbole_xling.convert.cells import bad_ids, checked_features
from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.errors import DataError
from recbole_xling.utils.files import polars_os_errors, replacing

NUMBERS = ("rating", "timestamp")
ROW = "row"
"""Column of :class:`InteractionTable`: number of the interaction in the order of the source, from 0."""

_ROWS_AT_A_TIME = 2_000_000


class InteractionTable:
    """A table too large for memory: Parquet files in a folder of its own, one for each batch that was appended.

    Queries over all rows (:meth:`scan`) run in polars' streaming engine. :meth:`keep` takes rows out file by file, with
    one file in memory at a time; the others stay in order.

    Args:
        folder: an empty folder.

    Attributes:
        rows: number of rows.
        columns: names of the columns without :data:`ROW`, none before the first batch.
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
            with polars_os_errors(self._paths[-1]):
                frame.with_columns(numbers.alias(ROW)).write_parquet(self._paths[-1], compression="lz4")
            self._next_row += frame.height
            self.rows += frame.height

    def scan(self) -> pl.LazyFrame:
        """Return all rows as a lazy frame; the table must not be empty."""
        return pl.scan_parquet(self._paths, glob=False)

    def distinct(self, column: str) -> pl.Series:
        """Return the values of a column, each once, unordered."""
        return self.scan().select(pl.col(column).unique()).collect(engine="streaming")[column]

    def by_users(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield columns of all rows, unordered, some 2 million at a time; all rows of a user are in one frame."""
        shares = math.ceil(self.rows / _ROWS_AT_A_TIME)
        for share in range(shares):
            of_share = self.scan().filter(pl.col("user_id").hash() % shares == share)
            yield of_share.select(columns).collect(engine="streaming")

    def keep(self, chosen: Callable[[pl.DataFrame], pl.DataFrame]) -> int:
        """Replace the rows of each file by those that ``chosen`` returns; return the number of rows removed."""
        before, self.rows = self.rows, 0
        for path in list(self._paths):
            part = pl.read_parquet(path, memory_map=False, glob=False)
            kept = chosen(part)
            self.rows += kept.height
            if not kept.height:
                self._paths.remove(path)
            elif kept.height < part.height:
                with replacing(path) as new, polars_os_errors(new):
                    kept.write_parquet(new, compression="lz4")
        return before - self.rows

    def write(self, path: Path, fields: Mapping[str, str]) -> None:
        """Write RecBole's ``.inter`` file; a column of whole numbers is written without decimals.

        Args:
            path: of the new file.
            fields: types of the further columns.
        """
        frame = self.scan()
        floats = [*NUMBERS, *(name for name, kind in fields.items() if kind == "float")]
        numbers = {name: pl.col(name) for name in floats if name in self.columns}
        whole = frame.select(
            ((number == number.floor()) & number.is_between(-(2.0**63), 2.0**63, closed="none")).all()
            for number in numbers.values()
        ).collect(engine="streaming")
        cells = [pl.col(name).alias(f"{name}:token") for name in ("user_id", "item_id")]
        for name in (*(name for name in NUMBERS if name in numbers), *fields):
            if name in numbers:
                cell = numbers[name].cast(pl.Int64 if whole[name].item() else pl.Float64).alias(f"{name}:float")
            else:
                cell = pl.col(name).alias(f"{name}:{fields[name]}")
            cells.append(cell)
        with polars_os_errors(path):
            frame.select(cells).sink_csv(path, separator="\t", quote_style="never")


_CELLS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}
_KNOWN, _FAULT = "is known", "what is wrong"  # no names of features, which have no spaces
_PLACE = {FILE: pl.String, LINE: pl.Int64}


def read_interactions(
    converter: Converter,
    table: InteractionTable,
    items: Collection[str],
    rejects: Rejects,
    *,
    show_progress: bool = True,
) -> None:
    """Read all interactions of a source into a table.

    Bad ones go to ``rejects``: an unknown item, an id that RecBole cannot read back, a rating or time that is missing
    or not finite. A cell of a further column that cannot be written is left out.

    Args:
        converter: the source.
        table: takes the good rows.
        items: ids of all items.
        rejects: takes the bad rows.
        show_progress: show a progress bar.

    Raises:
        DataError: the converter yields other columns than it should.
    """
    known = pl.DataFrame({"item_id": list(items)}, schema={"item_id": pl.String}).with_columns(
        pl.lit(True).alias(_KNOWN)
    )
    before: list[str] | None = None
    fields = dict(converter.interaction_fields)
    schema = _CELLS | dict.fromkeys(fields, pl.String) | _PLACE
    features = list(checked_features(fields))
    with tqdm(desc="interactions", unit=" rows", unit_scale=True, disable=not show_progress) as bar:
        for batch in converter.interactions(rejects):
            columns = [name for name in schema if name in batch.columns]
            missing = [name for name in schema if name not in NUMBERS and name not in columns]
            if missing or set(batch.columns) - set(schema) or columns != (before or columns):
                raise DataError(
                    f"{converter.name}: interactions with the columns {', '.join(batch.columns)}; "
                    f"all batches must have the same ones of {', '.join(schema)}"
                )
            before = columns
            reasons = [bad_ids("user_id"), bad_ids("item_id")]
            for name in NUMBERS:
                if name in columns:
                    finite = pl.col(name).is_finite().fill_null(False)
                    reasons.append(pl.when(~finite).then(pl.lit(f"no finite number as {name}")))
            reasons.append(pl.when(pl.col(_KNOWN).is_null()).then(pl.lit("an unknown item")))
            rows = batch.cast({name: schema[name] for name in columns})
            rows = rows.join(known, on="item_id", how="left", maintain_order="left")
            good = rejects.sift(rows, reasons, _row)
            for cells, fault in features:
                marked = good.with_columns(fault.alias(_FAULT))
                for row in marked.filter(pl.col(_FAULT).is_not_null()).iter_rows(named=True):
                    rejects.omit(row[FILE], row[LINE], row[_FAULT], _row(row))
                good = good.with_columns(cells)
            table.append(good.select(name for name in schema if name in columns and name not in _PLACE))
            bar.update(batch.height)


def _row(cells: Mapping[str, Any]) -> str:
    return " ".join(str(cells[name]) for name in _CELLS if name in cells)
