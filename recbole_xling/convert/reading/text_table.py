"""Tables in text files: clean blocks parsed at once, blocks with anything odd in them row by row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from recbole_xling.convert.reading.compressed import blocks
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.errors import DataError, unknown_name

Kind = Literal["text", "number"]
LINE = "line"
"""Column of every batch: the number of the row's first line in its file, from 1."""

_LONGEST_RECORD = 200  # lines; a quote left open would otherwise swallow the rest of the file


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is wanted.

    Attributes:
        name: its name in the batches.
        kind: ``text``, or ``number`` for finite floats.
        required: whether an empty cell makes the row a bad one; otherwise it becomes null.
    """

    name: str
    kind: Kind = "text"
    required: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written.

    Attributes:
        separator: between two cells; more than one character only where nothing is quoted.
        quote: around cells that hold separators or line breaks, doubled inside; None where quotes are plain text.
        escape: character that takes a quote's meaning away, None where there is none.
        encoding: of the text.
        names: the columns, where the first line does not name them.
    """

    separator: str = ","
    quote: str | None = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    names: Sequence[str] | None = None


class Table:
    """The rows of a table, in batches.

    Iterating yields frames with the wanted columns and :data:`LINE`, in the order of the file; bad rows go to
    ``rejects``. Memory follows the block, not the file.

    Args:
        path: the file, compressed or not.
        columns: the wanted column by its name in the file.
        rejects: takes rows with another number of cells, broken quotes, wrong encoding, NUL bytes, bad numbers, or
            nothing in a required column.
        layout: how the file is written.
        show_progress: show a bar over its bytes.

    Raises:
        DataError: the file cannot be read or lacks a wanted column.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Column],
        rejects: Rejects,
        *,
        layout: Layout = Layout(),
        show_progress: bool = False,
    ) -> None:
        self.path = path
        self.columns = columns
        self.rejects = rejects
        self.layout = layout
        self.show_progress = show_progress
        self._names: list[str] | None = list(layout.names) if layout.names else None
        self._line = 1  # of the next line to be read

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self.rejects.begin(self.path)
        self._names = list(self.layout.names) if self.layout.names else None
        self._line = 1
        rest = b""  # a quoted cell that goes on in the next block
        for block in blocks(self.path, show_progress=self.show_progress):
            data = rest + block
            if self._line == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if self._names is None:
                data = self._read_header(data)
            frame = self._parse_whole(data)
            if frame is None:
                frame, rest = self._parse_rows(data, last=False)
            else:
                rest = b""
            if frame.height:
                yield frame
        if rest:
            frame, _ = self._parse_rows(rest, last=True)
            if frame.height:
                yield frame
        if self._names is None:
            raise DataError(f"{self.path} is empty; its first line must name the columns")

    # ---- header -----------------------------------------------------------------------------------------------

    def _read_header(self, data: bytes) -> bytes:
        line, _, rest = data.partition(b"\n")
        try:
            cells = self._cells(line.decode(self.layout.encoding, "replace").rstrip("\r"))
        except csv.Error:
            raise DataError(f"{self.path}:1: broken quotes in the line that names the columns") from None
        self._names = [name.strip() for name in cells]
        self._line += 1
        self._check_names()
        return rest

    def _check_names(self) -> None:
        assert self._names is not None
        for name in self.columns:
            if self._names.count(name) != 1:
                what = "appears twice" if name in self._names else unknown_name("column", name, self._names)
                raise DataError(
                    f"{self.path}: column '{name}': {what}" if name in self._names else f"{self.path}: {what}"
                )

    # ---- a clean block at once --------------------------------------------------------------------------------

    def _parse_whole(self, data: bytes) -> pl.DataFrame | None:
        """Parse a block in which nothing is odd; None where something is."""
        layout, names = self.layout, self._names
        assert names is not None
        if b"\0" in data or b"\r" in data or self._may_be_quoted(data):
            return None
        try:
            lines = pl.Series(data.decode(layout.encoding).removesuffix("\n").split("\n"))
        except UnicodeDecodeError:
            return None
        cells = lines.str.splitn(layout.separator, len(names) + 1).struct  # one more, for cells too many
        if cells.field(f"field_{len(names) - 1}").null_count() or cells.field(f"field_{len(names)}").count():
            return None
        wanted = {c.name: cells.field(f"field_{names.index(name)}") for name, c in self.columns.items()}
        result = self._typed(pl.DataFrame(wanted))
        if result is not None:
            self.rejects.saw(self.path, len(lines))
            self._line += len(lines)
        return result

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        series = [pl.int_range(self._line, self._line + frame.height, eager=True).alias(LINE)]
        for column in self.columns.values():
            cells = frame[column.name]
            empty = cells == ""
            if empty.any():
                if column.required:
                    return None
                cells = cells.set(empty, None)
            if column.kind == "number":
                nulls = cells.null_count()
                cells = cells.cast(pl.Float64, strict=False)
                if cells.null_count() != nulls or not cells.is_finite().all():
                    return None
            series.append(cells)
        return pl.DataFrame(series)

    def _may_be_quoted(self, data: bytes) -> bool:
        marks = (self.layout.quote, self.layout.escape)
        return any(mark is not None and mark.encode() in data for mark in marks)

    # ---- row by row -------------------------------------------------------------------------------------------

    def _parse_rows(self, data: bytes, *, last: bool) -> tuple[pl.DataFrame, bytes]:
        """Parse record by record; returns the good rows, and what is left of a record that is not complete."""
        rows: list[tuple[int, list[str | float | None]]] = []
        lines = data.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        begin = 0
        while begin < len(lines):
            end = self._end_of_record(lines, begin)
            if end is None and not last and len(lines) - begin <= _LONGEST_RECORD:
                break
            record = b"\n".join(lines[begin : end or begin + 1])
            number = self._line + begin
            begin = end or begin + 1
            if record.strip():
                self.rejects.saw(self.path, 1)
                cells = self._good_cells(record, number, closed=end is not None)
                if cells is not None:
                    rows.append((number, cells))
        self._line += begin
        schema: dict[str, type[pl.DataType]] = {LINE: pl.Int64}
        schema |= {c.name: pl.Float64 if c.kind == "number" else pl.String for c in self.columns.values()}
        frame = pl.DataFrame([(number, *cells) for number, cells in rows], schema=schema, orient="row")
        return frame, b"\n".join(lines[begin:]) + b"\n" if begin < len(lines) else b""

    def _end_of_record(self, lines: list[bytes], begin: int) -> int | None:
        """Return the index after a record's last line; None where its quotes are not closed."""
        if self.layout.quote is None:
            return begin + 1
        quote, quotes = self.layout.quote.encode(), 0
        for end in range(begin, min(len(lines), begin + _LONGEST_RECORD)):
            line = lines[end]
            if self.layout.escape is not None:
                line = re.sub(re.escape(self.layout.escape.encode()) + b".", b"", line)
            quotes += line.count(quote)
            if quotes % 2 == 0:
                return end + 1
        return None

    def _good_cells(self, record: bytes, number: int, *, closed: bool) -> list[str | float | None] | None:
        """Return the wanted cells of a record, or hand it to the rejects."""
        text = record.removesuffix(b"\r").decode(self.layout.encoding, "replace")
        reason = "a quote is not closed" if not closed else None
        if b"\0" in record:
            reason = "NUL byte"
        elif not _decodes(record, self.layout.encoding):
            reason = f"not valid {self.layout.encoding}"
        result = None
        if reason is None:
            result, reason = self._checked(text)
        if reason is not None:
            self.rejects.add(self.path, number, reason, text)
            return None
        return result

    def _checked(self, text: str) -> tuple[list[str | float | None] | None, str | None]:
        """Return the wanted cells, or why there are none."""
        assert self._names is not None
        try:
            cells = self._cells(text)
        except csv.Error:
            return None, "broken quotes"
        if len(cells) != len(self._names):
            return None, f"{len(self._names)} cells expected" + (
                ", more found" if len(cells) > len(self._names) else ""
            )
        result: list[str | float | None] = []
        for name, column in self.columns.items():
            cell = cells[self._names.index(name)]
            if not cell:
                if column.required:
                    return None, f"nothing in column '{name}'"
                result.append(None)
            elif column.kind == "number":
                number = _number(cell)
                if number is None:
                    return None, f"no number in column '{name}'"
                result.append(number)
            else:
                result.append(cell)
        return result, None

    def _cells(self, text: str) -> list[str]:
        layout = self.layout
        if layout.quote is None:
            return text.split(layout.separator)
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=layout.separator,
            quotechar=layout.quote,
            escapechar=layout.escape,
            strict=True,
        )
        return next(reader, [])


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _number(cell: str) -> float | None:
    try:
        number = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
