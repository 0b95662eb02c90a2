"""JSON lines and Parquet files, read as :class:`~recbole_xling.convert.reading.text_table.Table` reads text tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from recbole_xling.convert.reading.compressed import blocks
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import LINE, Column, Layout, Table
from recbole_xling.errors import DataError, unknown_name

_ROWS_AT_A_TIME = 500_000
_REASON = "reason of rejection"
_TABLES = {".csv": Layout(), ".tsv": Layout(separator="\t", quote=None), ".txt": Layout(separator="\t", quote=None)}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".zst", ".zip")
PARQUET_ERRORS = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What polars raises on damaged Parquet files; a panic is no ``Exception``."""


class Batches(Protocol):
    """Frames with the wanted columns and :data:`LINE`; iterating anew reads the file anew."""

    path: Path

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Yield the batches in the order of the file."""


def open_table(
    path: Path,
    columns: Mapping[str, Column],
    rejects: Rejects,
    *,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Batches:
    """Return the reader for a file by the end of its name: CSV, TSV, JSON lines or Parquet.

    Args:
        path: the file; all but Parquet may be compressed.
        columns: the wanted column by its name in the file.
        rejects: takes the bad rows.
        separator: between the cells of a text table, instead of the comma of ``.csv`` and the tab of ``.tsv``.
        encoding: of a text table.

    Raises:
        DataError: the name says nothing of the format.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _JSON_LINES:
        return JsonLines(path, columns, rejects)
    if suffix in _PARQUET:
        return ParquetTable(path, columns, rejects)
    if suffix in _TABLES:
        layout = _TABLES[suffix]
        return Table(
            path, columns, rejects, layout=Layout(separator or layout.separator, layout.quote, encoding=encoding)
        )
    known = ", ".join((*_TABLES, *_JSON_LINES, *_PARQUET))
    raise DataError(f"{path}: no known format; the name of the file ends in one of {known}")


class JsonLines:
    """One JSON object per line; numbers are taken as texts where texts are wanted.

    Args:
        path: the file, compressed or not.
        columns: the wanted column by its key in the objects.
        rejects: takes lines that are no objects, and rows with a value of the wrong type or nothing in a required
            column.

    Raises:
        DataError: the file cannot be read, or no row has one of the keys.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], rejects: Rejects) -> None:
        self.path = path
        self.columns = columns
        self.rejects = rejects

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self.rejects.begin(self.path)
        number, keys = 0, set[str]()
        for block in blocks(self.path):
            rows = []
            for line in block.removesuffix(b"\n").split(b"\n"):
                number += 1
                if line.strip():
                    self.rejects.saw(self.path, 1)
                    row = self._row(line, number, keys)
                    if row is not None:
                        rows.append((*row, number))
            if rows:
                yield pl.DataFrame(rows, schema=_schema(self.columns), orient="row")
        absent = next((key for key in self.columns if key not in keys), None)
        if number and absent is not None:
            raise DataError(f"{self.path}: {unknown_name('key', absent, keys)}")

    def _row(self, line: bytes, number: int, keys: set[str]) -> list[str | float | None] | None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        reason = "not a JSON object in UTF-8"
        if isinstance(record, dict):
            keys.update(record)
            try:
                return [_value(record.get(key), key, column) for key, column in self.columns.items()]
            except ValueError as error:
                reason = str(error)
        self.rejects.add(self.path, number, reason, line.decode(errors="replace"))
        return None


class ParquetTable:
    """A Parquet file; a row's "line" is its number from 1.

    Args:
        path: the file.
        columns: the wanted column by its name in the file. Dates become ISO texts in UTC where texts are wanted.
        rejects: takes rows with nothing in a required column, or no finite number where one is wanted.

    Raises:
        DataError: the file cannot be read, lacks a column, or has lists or records in one.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], rejects: Rejects) -> None:
        self.path = path
        self.columns = columns
        self.rejects = rejects

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self.rejects.begin(self.path)
        try:
            file = pl.scan_parquet(self.path)
            schema, height = file.collect_schema(), file.select(pl.len()).collect().item()
        except PARQUET_ERRORS as error:
            raise DataError(f"{self.path} cannot be read ({error}); is it a complete Parquet file?") from error
        absent = next((name for name in self.columns if name not in schema), None)
        if absent is not None:
            raise DataError(f"{self.path}: {unknown_name('column', absent, schema)}")
        nested = next((name for name in self.columns if schema[name].is_nested()), None)
        if nested is not None:
            raise DataError(f"{self.path}: column '{nested}' holds {schema[nested]}; it must be texts or numbers")
        wanted = [_converted(name, schema[name], column) for name, column in self.columns.items()]
        for start in range(0, height, _ROWS_AT_A_TIME):
            try:
                frame = file.slice(start, _ROWS_AT_A_TIME).select(*wanted).collect()
            except PARQUET_ERRORS as error:
                raise DataError(f"{self.path} cannot be read ({error}); is it a complete Parquet file?") from error
            frame = frame.with_columns(pl.int_range(start + 1, start + 1 + frame.height, eager=True).alias(LINE))
            self.rejects.saw(self.path, frame.height)
            yield self._good(frame)

    def _good(self, frame: pl.DataFrame) -> pl.DataFrame:
        reasons = [pl.lit(None, pl.String)]
        for name, column in self.columns.items():
            if column.required:
                reasons.append(_where(pl.col(column.name).is_null(), f"nothing in column '{name}'"))
            if column.kind == "number":
                reasons.append(_where(~pl.col(column.name).is_finite(), f"no number in column '{name}'"))
        checked = frame.with_columns(pl.coalesce(reasons).alias(_REASON))
        for row in checked.filter(pl.col(_REASON).is_not_null()).iter_rows(named=True):
            cells = {name: row[column.name] for name, column in self.columns.items()}
            self.rejects.add(self.path, row[LINE], row[_REASON], str(cells))
        return checked.filter(pl.col(_REASON).is_null()).drop(_REASON)


def _where(bad: pl.Expr, reason: str) -> pl.Expr:
    return pl.when(bad).then(pl.lit(reason)).otherwise(None)


def _schema(columns: Mapping[str, Column]) -> dict[str, type[pl.DataType]]:
    schema: dict[str, type[pl.DataType]] = {
        column.name: pl.Float64 if column.kind == "number" else pl.String for column in columns.values()
    }
    return schema | {LINE: pl.Int64}


def _value(value: object, key: str, column: Column) -> str | float | None:
    """Return a value of a JSON object as the column wants it; a ValueError tells why it cannot."""
    if value is None or value == "":
        if column.required:
            raise ValueError(f"nothing in column '{key}'")
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"neither text nor number in column '{key}'")
    if column.kind == "text":
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"a NUL or half a surrogate pair in column '{key}'")
        return text
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"no number in column '{key}'")
    return number


def _converted(name: str, kind: pl.DataType, column: Column) -> pl.Expr:
    """Return the cells of a Parquet column as wanted; what is no number becomes NaN."""
    cells = pl.col(name)
    if column.kind == "number":
        numbers = cells.cast(pl.Float64, strict=False)
        return pl.when(cells.is_null() | numbers.is_not_null()).then(numbers).otherwise(math.nan).alias(column.name)
    if kind.is_temporal():
        cells = cells.cast(pl.Datetime("us"))
    texts = cells.cast(pl.String)
    if kind.is_float():  # a whole number is what it was before something was missing in the column
        texts = (
            pl.when(cells == cells.floor()).then(cells.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(texts)
        )
    return pl.when(texts != "").then(texts).alias(column.name)
