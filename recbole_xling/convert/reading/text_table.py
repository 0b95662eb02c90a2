"""Tables in text files.

A block in which nothing is odd is parsed at once; one with quotes, carriage returns or a bad row in it row by row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recbole_xling.convert.reading.compressed import blocks
from recbole_xling.convert.reading.numbers import written_number
from recbole_xling.convert.reading.rejects import LINE, BadRowError, Rejects
from recbole_xling.errors import DataError, unknown_name
from recbole_xling.text.raw_tables import LONGEST_LINE

Kind = Literal["text", "number"]
Cells = list[str | float | None]

_LONGEST_RECORD = 200  # lines; a quote left open would otherwise swallow the rest of the file


class _OpenQuoteError(Exception):
    """The lines end within a quoted cell."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is wanted.

    Attributes:
        name: its name in the batches.
        kind: ``text``, or ``number`` for finite floats.
        required: whether an empty cell makes the row a bad one; otherwise it becomes null, and so does one that is no
            number where a number is wanted.
        also: other names that text tables of this kind give it, the best first, in small letters with hyphens;
            underscores, spaces and capitals are the same.
        may_be_absent: whether the file may lack the column, whose cells are null then.
        hint: a sentence for the message if the file lacks the column.
    """

    name: str
    kind: Kind = "text"
    required: bool = True
    also: Sequence[str] = ()
    may_be_absent: bool = False
    hint: str = ""


def check_columns(path: Path, columns: Mapping[str, Column], found: Collection[str], kind: str = "column") -> None:
    """Check that a file has the wanted columns.

    Args:
        path: the file.
        columns: the wanted column by its name in the file.
        found: names of the columns that the file has.
        kind: what the format calls a column.

    Raises:
        DataError: it lacks one.
    """
    for name, column in columns.items():
        if name not in found and not column.may_be_absent:
            hint = f". {column.hint}" if column.hint else ""
            raise DataError(f"{path}: {unknown_name(kind, name, found)}{hint}")


def batch_schema(columns: Mapping[str, Column]) -> dict[str, type[pl.DataType]]:
    """Return the types of a batch with these columns: :data:`LINE`, then the columns in their order."""
    kinds = {c.name: pl.Float64 if c.kind == "number" else pl.String for c in columns.values()}
    return {LINE: pl.Int64, **kinds}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written.

    Attributes:
        separator: between two cells; more than one character only if nothing is quoted.
        quote: around cells with separators or line breaks in them, doubled inside; None if quotes are plain text.
        escape: character that takes a quote's meaning away, None for none.
        encoding: of the text.
        names: the columns, if the first line does not name them.
        numbered: whether the columns have no names, and are called ``1``, ``2``, ...
    """

    separator: str = ","
    quote: str | None = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    names: Sequence[str] | None = None
    numbered: bool = False


class TextTable:
    """The rows of a table, in batches.

    Iterating yields frames with the wanted columns and :data:`LINE`, in the order of the file; bad rows go to
    ``rejects``. Memory follows the block, not the file.

    Args:
        path: the file, compressed or not.
        columns: the wanted column by its name in the file.
        rejects: takes rows with another number of cells, broken quotes, wrong encoding, NUL bytes, and a bad number or
            nothing in a required column; a bad number in another column is left out.
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

    def _read_header(self, data: bytes) -> bytes:
        """Take the names of the columns from the first line; return the other lines."""
        line, _, rest = data.partition(b"\n")
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{self.path} is in UTF-16: convert it to UTF-8")
        try:
            cells, _ = self._record([line], 0)
        except (csv.Error, _OpenQuoteError):
            raise DataError(f"{self.path}:1: broken quotes in the first line") from None
        names = [name.strip() for name in cells]
        if self.layout.numbered:
            names = [str(number) for number in range(1, len(names) + 1)]
        spelled = {re.sub("[_ ]", "-", name).lower(): place for place, name in reversed(list(enumerate(names)))}
        for name, column in self.columns.items():
            other = next((spelled[other] for other in column.also if other in spelled), None)
            if name not in names and other is not None:
                names[other] = name
        check_columns(self.path, self.columns, names)
        twice = next((name for name in self.columns if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{self.path}: column '{twice}': appears twice")
        self._names = names
        if self.layout.numbered:
            return data
        self._line += 1
        return rest

    def _parse_whole(self, data: bytes) -> pl.DataFrame | None:
        """Parse a block in which nothing is odd; return None if anything is."""
        layout, names = self.layout, self._names
        assert names is not None
        marks = [b"\0", b"\r", *(mark.encode() for mark in (layout.quote, layout.escape) if mark is not None)]
        if any(mark in data for mark in marks):
            return None
        try:
            lines = pl.Series(data.decode(layout.encoding).removesuffix("\n").split("\n"))
        except UnicodeDecodeError:
            return None
        cells = lines.str.splitn(layout.separator, len(names) + 1).struct  # one more, for cells too many
        if cells.field(f"field_{len(names) - 1}").null_count() or cells.field(f"field_{len(names)}").count():
            return None
        series = [pl.int_range(self._line, self._line + len(lines), eager=True).alias(LINE)]
        for name, column in self.columns.items():
            if name not in names:
                kind = batch_schema(self.columns)[column.name]
                series.append(pl.repeat(None, len(lines), dtype=kind, eager=True).alias(column.name))
                continue
            values = cells.field(f"field_{names.index(name)}").alias(column.name)
            empty = values == ""
            if empty.any():
                if column.required:
                    return None
                values = values.set(empty, None)
            if column.kind == "number":
                nulls = values.null_count()
                values = values.cast(pl.Float64, strict=False)
                if values.null_count() != nulls or not values.is_finite().all():
                    return None
            series.append(values)
        self.rejects.saw(self.path, len(lines))
        self._line += len(lines)
        return pl.DataFrame(series)

    def _parse_rows(self, data: bytes, *, last: bool) -> tuple[pl.DataFrame, bytes]:
        """Parse record by record; return the good rows, and what is left of a record that is not complete."""
        rows: list[tuple[Any, ...]] = []
        lines = data.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        begin, before = 0, csv.field_size_limit(LONGEST_LINE)
        try:
            while begin < len(lines):
                cells: list[str] = []
                end, fault = begin + 1, None
                try:
                    cells, end = self._record(lines, begin)
                except _OpenQuoteError:
                    left = lines[begin : begin + _LONGEST_RECORD]
                    if not last and len(left) < _LONGEST_RECORD and sum(map(len, left)) <= LONGEST_LINE:
                        break
                    fault = "a quote is not closed"
                except csv.Error:
                    fault = "broken quotes" if self._has_quote(lines[begin]) else "a carriage return within the row"
                record = b"\n".join(lines[begin:end])
                number = self._line + begin
                begin = end
                if record.strip():
                    self.rejects.saw(self.path, 1)
                    text = record.removesuffix(b"\r").decode(self.layout.encoding, "replace")
                    faults: list[str] = []
                    try:
                        rows.append((number, *self._wanted_cells(record, cells, fault, faults)))
                    except BadRowError as error:
                        self.rejects.add(self.path, number, str(error), text)
                        continue
                    for omitted in faults:
                        self.rejects.omit(self.path, number, omitted, text)
        finally:
            csv.field_size_limit(before)
        self._line += begin
        frame = pl.DataFrame(rows, schema=batch_schema(self.columns), orient="row")
        return frame, b"\n".join(lines[begin:]) + b"\n" if begin < len(lines) else b""

    def _has_quote(self, line: bytes) -> bool:
        return self.layout.quote is not None and self.layout.quote.encode() in line

    def _record(self, lines: list[bytes], begin: int) -> tuple[list[str], int]:
        """Return the cells of the record that begins with a line, and the index after its last line.

        Only the csv reader tells where a record ends: a quote within an unquoted cell is text, and opens nothing.

        Raises:
            csv.Error: the quotes are broken, or there is a carriage return outside of them.
            _OpenQuoteError: a quote is still open where the lines end, or after as many as a record may have.
        """
        layout = self.layout
        if layout.quote is None:
            text = lines[begin].removesuffix(b"\r").decode(layout.encoding, "replace")
            return text.split(layout.separator), begin + 1
        reader = csv.reader(
            self._texts(lines, begin),
            delimiter=layout.separator,
            quotechar=layout.quote,
            escapechar=layout.escape,
            strict=True,
        )
        return next(reader), begin + reader.line_num

    def _texts(self, lines: list[bytes], begin: int) -> Iterator[str]:
        """Yield the lines from ``begin`` that may be of one record.

        Raises:
            _OpenQuoteError: more than these are asked for.
        """
        size = 0
        for line in lines[begin : begin + _LONGEST_RECORD]:
            if size and size + len(line) > LONGEST_LINE:
                break
            size += len(line)
            # the row of a NUL is bad, and Python 3.10 reads none
            yield line.decode(self.layout.encoding, "replace").replace("\0", "\ufffd") + "\n"
        raise _OpenQuoteError

    def _wanted_cells(self, record: bytes, cells: list[str], fault: str | None, faults: list[str]) -> Cells:
        """Return the wanted ones of a record's cells.

        Args:
            record: its bytes.
            cells: all of its cells.
            fault: why they could not be read.
            faults: takes what is left out of it.

        Raises:
            BadRowError: the row is bad; the message says why.
        """
        assert self._names is not None
        if b"\0" in record:
            raise BadRowError("NUL byte")
        try:
            record.decode(self.layout.encoding)
        except UnicodeDecodeError:
            raise BadRowError(f"not valid {self.layout.encoding}") from None
        if fault is not None:
            raise BadRowError(fault)
        expected = len(self._names)
        if len(cells) != expected:
            raise BadRowError(f"{expected} cells expected" + (", more found" if len(cells) > expected else ""))
        wanted: Cells = []
        for name, column in self.columns.items():
            cell = cells[self._names.index(name)] if name in self._names else ""
            if not cell and column.required:
                raise BadRowError(f"nothing in column '{name}'")
            if not cell or column.kind == "text":
                wanted.append(cell or None)
                continue
            number = written_number(cell)
            if number is None:
                no_number = f"no number in column '{name}'"
                if column.required:
                    raise BadRowError(no_number)
                faults.append(no_number)
            wanted.append(number)
        return wanted
