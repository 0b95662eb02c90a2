"""goodbooks-10k [1]: ratings of the 10,000 books most rated on Goodreads.

[1] Zając: Goodbooks-10k: a new dataset for book recommendations. FastML, 2017.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, located, located_rows
from recbole_xling.convert.reading.compressed import expected_file
from recbole_xling.convert.reading.rejects import LINE, Rejects
from recbole_xling.convert.reading.text_table import Column, TextTable
from recbole_xling.text.record import DISPLAY

_RATINGS, _BOOKS = "ratings.csv", "books.csv"
_BOOK = {
    "book_id": Column("item_id"),
    "goodreads_book_id": Column("goodreads_book_id"),
    "authors": Column("authors", required=False),
    "original_publication_year": Column("year", "number", required=False),
    "original_title": Column("original_title", required=False),
    "title": Column("title"),
    "language_code": Column("language", required=False),
}
_SERIES = re.compile(r"\s*\([^()]*\)$")


class Goodbooks(Converter):
    """goodbooks-10k in its second release.

    The ratings are in order of time, so an interaction's time stamp is the number of its line. A book has the language
    of its edition.

    Args:
        input: the folder of the files.

    Raises:
        ConfigError: ``input`` is not given.
        DataError: a file is missing.
    """

    name = "goodbooks"
    layout = """a folder of
  ratings.csv    user_id, book_id, rating; in order of time
  books.csv      book_id, goodreads_book_id, authors, original_publication_year, original_title, title, language_code
in UTF-8; each may be compressed (.gz, .xz, .bz2, .zst, .zip)"""
    item_fields = {"goodreads_book_id": "token", "publication_year": "token", "author": "token"}

    def __init__(self, *, input: str | Path | None = None) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input(f"the folder of {_RATINGS} and {_BOOKS}")

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the ratings; the time is the number of the line."""
        columns = {
            "user_id": Column("user_id"),
            "book_id": Column("item_id"),
            "rating": Column("rating", "number"),
        }
        path = expected_file(self.folder, _RATINGS)
        for frame in located(TextTable(path, columns, rejects)):
            yield frame.with_columns(pl.col(LINE).cast(pl.Float64).alias("timestamp"))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the books; of several authors the first one, of the years that of the first edition."""
        for row, location in self._books(rejects):
            features = {
                "goodreads_book_id": row["goodreads_book_id"],
                "publication_year": _year(row["year"]),
                "author": " ".join((row["authors"] or "").partition(",")[0].split()).strip('"'),
            }
            yield Item(row["item_id"], row["language"] or "", features, location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield a display text per book.

        The original title is a part of it, unless it is the title with or without its series in brackets.
        """
        for row, location in self._books(rejects):
            title, original = row["title"].strip(), (row["original_title"] or "").strip()
            known = {title.casefold(), _SERIES.sub("", title).casefold()}
            fields = {
                "title": row["title"],
                "original_title": "" if original.casefold() in known else original,
                "authors": row["authors"],
                "year": _year(row["year"]),
            }
            fields = {name: value for name, value in fields.items() if value}
            yield SourceText(row["item_id"], row["language"] or "", fields, DISPLAY, location)

    def notes(self) -> Iterator[str]:
        """Yield what the times are."""
        yield "no times in the source, but its ratings are in order of time: the number of the line is the time stamp"

    def _books(self, rejects: Rejects) -> Iterator[tuple[dict[str, Any], SourceLocation]]:
        return located_rows(TextTable(expected_file(self.folder, _BOOKS), _BOOK, rejects))


def _year(number: float | None) -> str:
    """Return the year of the first edition; one before our era is negative."""
    return "" if number is None else str(int(number))
