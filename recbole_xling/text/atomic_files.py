"""Reading RecBole's atomic files raw: a cell is its text as it is written, without quotes or words for missing values.

The first line names columns and their types (``user_id:token``), each further line is a row. Only an empty cell is
missing: ``NA``, ``null`` and ``"`` are text like any other. Every error names the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.errors import DataError, unknown_name
from recbole_xling.text.raw_tables import text_lines
from recbole_xling.utils.arguments import FINER_THAN_MICROSECONDS, parse_iso_time

TYPES = ("token", "token_seq", "float", "float_seq")
"""The types of columns that RecBole knows."""

PADDING = "[PAD]"
"""RecBole's name for no user and no item: no id may be that."""

_SEPARATORS = ("\t", ",", ";", "|", "::", " ")
_EXAMPLE = "user_id:token{0}item_id:token{0}timestamp:float"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AtomicFile:
    """Rows of an atomic file.

    Attributes:
        path: of the file.
        types: the type of each column that was asked for, in the order of the file.
        cells: the texts of these columns, null where a cell is empty.
        lines: the line of each row, from 2.
    """

    path: Path
    types: dict[str, str]
    cells: pl.DataFrame
    lines: pl.Series

    def place(self, row: int) -> str:
        """Return the place of a row for a message: path and line."""
        return f"{self.path}:{self.lines[row]}"

    def numbers(self, column: str) -> FloatArray:
        """Return the numbers of a column, NaN where a cell is empty, ``(n_rows,)``.

        Raises:
            DataError: a cell is not a finite number.
        """
        cells = self.cells[column].str.strip_chars()
        numbers = _finite(cells)
        self.refuse(column, cells.is_not_null() & numbers.is_null(), "is not a finite number; correct it, or empty it")
        return numbers.to_numpy(writable=True)

    def times(self, column: str) -> FloatArray:
        """Return the times of a column, NaN where a cell is empty, ``(n_rows,)``.

        The cells are numbers, which are taken as they are, or ISO 8601 dates and times, which become Unix seconds (UTC
        where they name no zone).

        Raises:
            DataError: a cell is neither, or is a number and others are dates, or different times would become equal.
        """
        cells = self.cells[column].str.strip_chars()
        times = _finite(cells)
        if times.null_count() < len(times):
            lost = _lost_in_rounding(cells, times)
            self.refuse(column, lost, "has more digits than can be told apart; write microseconds, or coarser units")
            problem = "is not a number as others are"
        else:
            texts = cells.unique().drop_nulls().to_list()
            dates = [None if re.search(FINER_THAN_MICROSECONDS, text) else parse_iso_time(text) for text in texts]
            times = cells.replace_strict(texts, dates, default=None, return_dtype=pl.Float64)
            problem = "is neither a number nor a date like 2024-05-31 or 2024-05-31T18:30:00"
        problem += "; correct it, or set TIME_FIELD to the column of times"
        self.refuse(column, cells.is_not_null() & times.is_null(), problem)
        return times.to_numpy(writable=True)

    def tokens(self, column: str) -> NDArray[np.object_]:
        """Return the texts of a column, None where a cell is empty, ``(n_rows,)``; equal ones are one object."""
        cells = self.cells.select(text=column)
        different = cells.unique(maintain_order=True)
        numbered = cells.join(
            different.with_row_index(), on="text", how="left", nulls_equal=True, maintain_order="left"
        )
        texts: NDArray[np.object_] = np.array(different["text"].to_list(), dtype=object)
        return texts[numbered["index"].to_numpy()]

    def token_lists(self, column: str, separator: str) -> list[NDArray[np.str_]]:
        """Return the texts between separators of each cell, empty ones left out."""
        cells = self.cells[column].fill_null("").to_list()
        return [np.array([text for text in cell.split(separator) if text], dtype=np.str_) for cell in cells]

    def number_lists(self, column: str, separator: str) -> list[FloatArray]:
        """Return the numbers between separators of each cell.

        Raises:
            DataError: a cell contains something else.
        """
        parts = self.cells[column].fill_null("").str.split(separator).list.eval(pl.element().filter(pl.element() != ""))
        numbers = parts.list.eval(pl.element().cast(pl.Float64, strict=False))
        is_wrong = numbers.list.eval(~pl.element().is_finite().fill_null(value=False)).list.any()
        self.refuse(column, is_wrong, f"is not a list of finite numbers between {separator!r}; correct it")
        return [np.array(row, dtype=np.float64) for row in numbers.to_list()]

    def refuse(self, column: str, is_wrong: pl.Series, problem: str) -> None:
        """Raise a DataError for the first row that is wrong, if any."""
        row = is_wrong.fill_null(value=False).arg_max()
        if row is not None and is_wrong[row]:
            raise DataError(f"{self.place(row)}: {column} {self.cells[column][row]!r} {problem}")


def _finite(cells: pl.Series) -> pl.Series:
    """Return cells as numbers, null where a cell is not a finite number."""
    numbers = cells.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def _lost_in_rounding(cells: pl.Series, numbers: pl.Series) -> pl.Series:
    """Mark those of which two different ones become the same number in double precision."""
    table = pl.DataFrame({"cell": cells, "number": numbers}).drop_nulls().filter(pl.col("cell").str.len_bytes() > 15)
    same = table.unique().filter(pl.col("number").is_duplicated())
    lost = [number for (number,), rows in same.group_by("number") if len(set(map(Decimal, rows["cell"]))) > 1]
    return numbers.is_in(lost)


# ---- reading --------------------------------------------------------------------------------------------------


def read_atomic_file(
    path: Path, wanted: Collection[str] | None = None, *, separator: str = "\t", encoding: str = "utf-8"
) -> AtomicFile:
    r"""Read columns of an atomic file. Empty lines are left out; a byte order mark and ``\r`` at line ends as well.

    Args:
        path: of the file.
        wanted: names of columns, all of them if None; those that the file lacks are left out.
        separator: of the cells (RecBole's ``field_separator``).
        encoding: of the file.

    Raises:
        DataError: the file is missing or empty, its header is wrong, a row has more or fewer cells than the header,
            or a line contains a NUL byte or is not valid in the encoding.
    """
    lines = _read_lines(path, encoding)
    types = _header(path, lines[0] if len(lines) else None, separator)
    table = pl.DataFrame({"line": pl.int_range(2, len(lines) + 1, dtype=pl.UInt32, eager=True), "text": lines[1:]})
    table = table.drop_nulls("text")
    n_cells = table["text"].str.count_matches(separator, literal=True) + 1
    is_wrong = n_cells != len(types)
    if is_wrong.any():
        row = int(is_wrong.arg_max() or 0)
        raise DataError(
            f"{path}:{table['line'][row]}: {n_cells[row]} cells, but the header has {len(types)}; "
            "a cell contains neither the separator nor a line break"
        )
    cells = table["text"].str.split_exact(separator, len(types) - 1).struct.unnest()
    cells.columns = list(types)
    chosen = [name for name in types if wanted is None or name in wanted]
    cells = cells.select(pl.col(chosen).replace("", None))
    return AtomicFile(path, {name: types[name] for name in chosen}, cells, table["line"])


def file_format(config: Any) -> dict[str, str]:
    """Return the separator and encoding that a configuration gives, as arguments of :func:`read_atomic_file`."""
    return {"separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}


def read_header(path: Path, *, separator: str = "\t", encoding: str = "utf-8") -> dict[str, str]:
    """Return the types of an atomic file's columns by name.

    Raises:
        DataError: the file is missing or empty, or its first line does not name columns and types.
    """
    number, line = next(text_lines(path, encoding), (0, ""))
    return _header(path, line if number == 1 else "", separator)


def _read_lines(path: Path, encoding: str) -> pl.Series:
    """Return the lines of a file, null where a line is empty."""
    next(text_lines(path, encoding), None)  # refuses encodings that are not a superset of ASCII
    try:
        with path.open("rb") as file:
            if any(b"\0" in block for block in iter(lambda: file.read(1 << 20), b"")):
                raise ValueError("it contains a NUL byte")  # at the end of a line polars would not tell
        is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
        source = path if is_utf8 else path.read_bytes().decode(encoding).encode()
        # the only column is the line, as no line may contain the separator
        schema = {"text": pl.String}
        table = pl.read_csv(source, has_header=False, separator="\0", quote_char=None, schema=schema, glob=False)
        return table["text"]
    except (pl.exceptions.PolarsError, ValueError, LookupError) as error:
        for _ in text_lines(path, encoding):
            pass  # names the line that has a NUL byte or is not valid in the encoding
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _header(path: Path, line: str | None, separator: str) -> dict[str, str]:
    """Return the types of columns by name, as the first line of a file tells them."""
    example = _EXAMPLE.format(separator)
    place = f"{path}:1"
    if not line:
        raise DataError(f"{place}: the line is empty; it must name the columns and their types, such as {example!r}")
    if "\r" in line:
        raise DataError(f"{place}: lines end in a carriage return alone; convert the line ends of the file to \\n")
    names = line.split(separator)
    others = [other for other in _SEPARATORS if other in line and (other != " " or line.count(":") > 1)]
    if len(names) == 1 and others:
        raise DataError(
            f"{place}: no {separator!r} between the columns in {line[:60]!r}; separate them by it, or set "
            f"field_separator: {max(others, key=line.count)!r}"
        )
    types: dict[str, str] = {}
    for number, text in enumerate(names, start=1):
        name, colon, kind = text.partition(":")
        if not text:
            raise DataError(f"{place}: column {number} has no name; remove the separator that is there twice")
        if not name or not colon:
            raise DataError(
                f"{place}: column {number} is {text[:60]!r}, without name or type; "
                f"the first line must name the columns and their types, such as {example!r}"
            )
        if kind not in TYPES:
            raise DataError(f"{place}: column '{name}': {unknown_name('type', kind, TYPES)}")
        if name in types:
            raise DataError(f"{place}: column '{name}' appears twice; rename one")
        types[name] = kind
    return types
