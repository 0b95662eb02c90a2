"""Tables by the end of their file's name: JSON lines, Parquet, or the text tables of ``text_table``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from recbole_xling.convert.reading.compressed import BLOCK_BYTES, SUFFIXES, blocks, check_expansion, without_copies
from recbole_xling.convert.reading.numbers import written_number
from recbole_xling.convert.reading.rejects import LINE, BadRowError, Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable, batch_schema, check_columns
from recbole_xling.errors import DataError
from recbole_xling.utils.arguments import finite_number
from recbole_xling.utils.json_text import parse_json

_TABS = Layout(separator="\t", quote=None)
_TABLES = {".csv": Layout(), ".tsv": _TABS, ".txt": _TABS, ".dat": _TABS}
_COLONS = "::"  # in many a .dat file, MovieLens's for one
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_ALL = (*_TABLES, *_JSON_LINES, *_PARQUET)
_HIDDEN = re.compile(r"(^|/)[_.]")  # marks of success, checksums, temporary folders
_INEXACT = 2.0**53  # from here on, several whole numbers are the same float, and several ids would be one
_INEXACT_SINGLE = 2.0**24  # the same in single precision
_FIRST_ROWS, _MOST_GROWTH = 1_000, 4  # rows of the first batch of a Parquet file; of the next one, times as many
_PARQUET_ERRORS = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)  # a panic is not an ``Exception``


class Batches(Protocol):
    """Frames with the wanted columns and :data:`LINE`; each iteration reads the file from its start."""

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
    numbered: bool = False,
) -> Batches:
    """Return the reader for a file by the end of its name: CSV, TSV, JSON lines or Parquet.

    Args:
        path: the file; all but Parquet may be compressed.
        columns: the wanted column by its name in the file.
        rejects: takes the bad rows.
        separator: between the cells of a text table, instead of the comma of ``.csv`` and the tab of the others, or the
            ``::`` of a ``.dat`` file that has it in its first line.
        encoding: of a text table.
        numbered: whether the columns of a text table have no names, and are called ``1``, ``2``, ...

    Raises:
        DataError: the name does not tell the format, or ``numbered`` is set for one that names its columns.
    """
    suffix = _ending(path)
    if numbered and suffix not in _TABLES:
        raise DataError(f"{path}: this format names its columns; --no-header is for {', '.join(_TABLES)}")
    if suffix in _JSON_LINES:
        return JsonLines(path, columns, rejects)
    if suffix in _PARQUET:
        return ParquetTable(path, columns, rejects)
    if suffix in _TABLES:
        layout = _TABLES[suffix]
        if suffix == ".dat" and separator is None and _COLONS.encode() in next(blocks(path), b"").partition(b"\n")[0]:
            separator = _COLONS
        separator = separator or layout.separator
        quote = layout.quote if len(separator) == 1 else None
        layout = Layout(separator, quote, encoding=encoding, numbered=numbered)
        return TextTable(path, columns, rejects, layout=layout)
    raise DataError(f"{path}: no known format; the name of the file must end in one of {', '.join(_ALL)}")


def table_files(path: Path) -> list[Path]:
    """Return the files of a table: the file itself, or the shards in a folder, as Spark, Ray and others write them.

    They come in the order of their names, in which numbers count as numbers, also from folders in the folder. Where
    there are Parquet files, others are no shards; nor are those whose names begin with ``_`` or ``.``, and compressed
    ones that lie beside their unpacked copy.

    Args:
        path: a file, which need not exist, or a folder.

    Raises:
        DataError: the folder has no table in it.
    """
    if not path.is_dir():
        return [path]
    shown = (file for file in path.rglob("*") if not _HIDDEN.search(file.relative_to(path).as_posix()))
    tables = {file: _ending(file) for file in shown if file.is_file() and _ending(file) in _ALL}
    parquet = [file for file, ending in tables.items() if ending in _PARQUET]
    if not tables:
        raise DataError(f"folder {path} has no shards of a table: files ending in {', '.join(_ALL)}")
    return sorted(without_copies(parquet or tables), key=lambda file: _in_order(file.relative_to(path).parts))


def _ending(path: Path) -> str:
    """Return the end of a file's name that tells its format, without that of a compressed file."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in SUFFIXES]
    return suffixes[-1] if suffixes else ""


def _in_order(names: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Return what orders paths by their names, and ``part-10`` behind ``part-9``."""
    parts = (re.split(r"([0-9]+)", name) for name in names)
    return [[(int(word), "") if word.isdecimal() else (-1, word) for word in words] for words in parts]


class JsonLines:
    """One JSON object per line; numbers and booleans are taken as texts where texts are wanted.

    Args:
        path: the file, compressed or not.
        columns: the wanted column by its key in the objects.
        rejects: takes lines that are not objects, and rows with a value of the wrong type or nothing in a required
            column; a value of the wrong type in another column is left out.

    Raises:
        DataError: the file cannot be read, or no row has one of the keys.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], rejects: Rejects) -> None:
        self.path = path
        self.columns = columns
        self.rejects = rejects

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self.rejects.begin(self.path)
        first, keys = 1, set[str]()
        for block in blocks(self.path):
            rows = []
            lines = block.removesuffix(b"\n").split(b"\n")
            for number, line in enumerate(lines, first):
                if not line.strip():
                    continue
                self.rejects.saw(self.path, 1)
                record = parse_object(line)
                faults: list[str] = []
                try:
                    if record is None:
                        raise BadRowError("not a JSON object in UTF-8")
                    keys.update(record)
                    cells = [_json_cell(record.get(key), key, column, faults) for key, column in self.columns.items()]
                    rows.append((number, *cells))
                except BadRowError as error:
                    self.rejects.add(self.path, number, str(error), line.decode(errors="replace"))
                    continue
                for fault in faults:
                    self.rejects.omit(self.path, number, fault, line.decode(errors="replace"))
            first += len(lines)
            if rows:
                yield pl.DataFrame(rows, schema=batch_schema(self.columns), orient="row")
        if first > 1:
            check_columns(self.path, self.columns, keys, "key")


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line, None if it is not one."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _json_cell(value: object, key: str, column: Column, faults: list[str]) -> str | float | None:
    """Return a value of a JSON object as the column wants it; ``faults`` takes why one that is not required is not.

    Raises:
        BadRowError: it cannot be that, and is required; the message says why.
    """
    if value is None or value == "":
        if column.required:
            raise BadRowError(f"nothing in column '{key}'")
        return None
    try:
        return _wanted_value(value, key, column)
    except BadRowError as error:
        if column.required:
            raise
        faults.append(str(error))
        return None


def _wanted_value(value: object, key: str, column: Column) -> str | float:
    if isinstance(value, bool) and not column.required:  # what is required is an id or a time
        value = json.dumps(value)  # as it is written, and as those of Parquet are
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadRowError(f"neither text nor number in column '{key}'")
    if column.kind == "text":
        if isinstance(value, float) and not abs(value) < (_INEXACT if column.required else math.inf):
            raise BadRowError(f"a float too large to be exact in column '{key}'")
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise BadRowError(f"a NUL or half a surrogate pair in column '{key}'")
        return text
    number = written_number(value) if isinstance(value, str) else finite_number(value)
    if number is None:
        raise BadRowError(f"no number in column '{key}'")
    return number


class ParquetTable:
    """A Parquet file; a row's "line" is its number from 1.

    Args:
        path: the file.
        columns: the wanted column by its name in the file. Dates become ISO texts in UTC where texts are wanted.
        rejects: takes rows with nothing in a required column, or no finite number in one of numbers; in a column that
            is not required it is left out.

    Raises:
        DataError: the file cannot be read, lacks a column, or has lists or records in one.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], rejects: Rejects) -> None:
        self.path = path
        self.columns = columns
        self.rejects = rejects

    def __iter__(self) -> Iterator[pl.DataFrame]:
        reasons = [pl.lit(None, pl.String)]
        optional = []  # columns of numbers
        for name, column in self.columns.items():
            no_number = pl.when(~pl.col(column.name).is_finite()).then(pl.lit(f"no number in column '{name}'"))
            if column.required:
                nothing = pl.lit(f"nothing in column '{name}', or a float too large to be exact")
                reasons.append(pl.when(pl.col(column.name).is_null()).then(nothing))
                reasons += [no_number] if column.kind == "number" else []
            elif column.kind == "number":
                optional.append((column.name, no_number))
        for frame in parquet_batches(self.path, self.columns, self.rejects, self._wanted_cells):
            good = self.rejects.sift(frame, reasons, self._row, self.path)
            for name, no_number in optional:
                marked = good.with_columns(no_number.alias("fault")).filter(pl.col("fault").is_not_null())
                for cells in marked.iter_rows(named=True):
                    self.rejects.omit(self.path, cells[LINE], cells["fault"], self._row(cells))
                good = good.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)))
            yield good

    def _row(self, cells: Mapping[str, Any]) -> str:
        return str({name: cells[column.name] for name, column in self.columns.items()})

    def _wanted_cells(self, schema: pl.Schema) -> Iterator[pl.Expr]:
        """Yield the wanted columns of a file with this schema; what should be a number and is not becomes NaN."""
        kinds = {name: schema[name] for name in self.columns if name in schema}
        unread = next(
            (name for name in kinds if kinds[name].is_nested() or kinds[name] in (pl.Duration, pl.Time)), None
        )
        if unread is not None:
            raise DataError(f"{self.path}: column '{unread}' has {kinds[unread]}; it must have texts, numbers or dates")
        for name, column in self.columns.items():
            if name not in schema:
                yield pl.lit(None, pl.Float64 if column.kind == "number" else pl.String).alias(column.name)
                continue
            cells, kind = pl.col(name), schema[name]
            if column.kind == "number":
                numbers = cells.cast(pl.Float64, strict=False)
                if kind == pl.Float32:  # by way of text, 4.1 stays 4.1 and does not become 4.099999904632568
                    by_text = cells.cast(pl.String).cast(pl.Float64, strict=False)
                    numbers = pl.when(cells == cells.floor()).then(numbers).otherwise(by_text)
                is_empty = cells.is_null() | (cells == "") if kind == pl.String else cells.is_null()
                wanted = pl.when(is_empty | numbers.is_not_null()).then(numbers).otherwise(math.nan)
            else:
                texts = (cells.cast(pl.Datetime("us")) if kind.is_temporal() else cells).cast(pl.String)
                if kind.is_float():  # whole numbers become floats in a column in which something is missing
                    whole = pl.coalesce(cells.cast(pl.Int64, strict=False).cast(pl.String), texts)
                    texts = pl.when(cells == cells.floor()).then(whole).otherwise(texts)
                    inexact = _INEXACT_SINGLE if kind == pl.Float32 else _INEXACT  # as an id it would be another's
                    texts = pl.when(cells.abs() < (inexact if column.required else math.inf)).then(texts)
                wanted = pl.when(texts != "").then(texts)
            yield wanted.alias(column.name)


def parquet_batches(
    path: Path,
    columns: Mapping[str, Column],
    rejects: Rejects,
    cells: Callable[[pl.Schema], Iterable[pl.Expr]],
    *,
    rows_at_a_time: int = 500_000,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a Parquet file in batches, with their number from 1 as :data:`LINE`.

    The first batches are small, and later ones have about 16 MiB of text, so that a small file that unpacks to
    gigabytes is refused before it is in memory.

    Args:
        path: the file.
        columns: the wanted column by its name in the file.
        rejects: counts the rows.
        cells: returns the columns of the batches, given the file's schema.
        rows_at_a_time: most rows of a batch.

    Raises:
        DataError: the file cannot be read, lacks a column, or becomes so much larger by unpacking that it must be meant
            to harm.
    """
    rejects.begin(path)
    try:
        file = pl.scan_parquet(path, glob=False)
        schema, height = file.collect_schema(), file.select(pl.len()).collect().item()
        check_columns(path, columns, schema)
        wanted, found = list(cells(schema)), [name for name in columns if name in schema]
        texts = [name for name in found if schema[name] in (pl.String, pl.Binary)]
        start, size, unpacked = 0, min(_FIRST_ROWS, rows_at_a_time), height
        while start < height:
            # polars shares equal texts as long as nobody changes them
            read = file.slice(start, size).select(found).collect()
            text_bytes = sum(read[name].cast(pl.Binary).bin.size().sum() for name in texts)
            unpacked += text_bytes
            check_expansion(path, path.stat().st_size, unpacked)
            frame = read.select(wanted)
            rejects.saw(path, frame.height)
            yield frame.with_columns(pl.int_range(start + 1, start + 1 + frame.height, eager=True).alias(LINE))
            start += read.height
            if not read.height:
                raise DataError(f"{path} has fewer rows than it says; is it complete? Fetch it again")
            fitting = BLOCK_BYTES * read.height // max(text_bytes, 1)
            size = max(1, min(fitting, _MOST_GROWTH * size, rows_at_a_time))
    except _PARQUET_ERRORS as error:
        problem = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read ({problem}); is it a complete Parquet file?") from error
