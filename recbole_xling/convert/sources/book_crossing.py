"""Book-Crossing [1]: ratings of books, in the language of the country or area their ISBN was given out in.

[1] Ziegler et al.: Improving Recommendation Lists Through Topic Diversification. WWW 2005.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert.base import (
    Converter,
    Item,
    SourceLocation,
    SourceText,
    User,
    chance_order,
    located,
    located_rows,
)
from recbole_xling.convert.reading.compressed import blocks, find_file
from recbole_xling.convert.reading.numbers import written_number
from recbole_xling.convert.reading.rejects import LINE, Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable
from recbole_xling.errors import DataError
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.text.record import DISPLAY

_NAMES = {
    "ratings": ("BX-Book-Ratings.csv", "Ratings.csv", "ratings.csv"),
    "books": ("BX-Books.csv", "Books.csv", "books.csv"),
    "users": ("BX-Users.csv", "Users.csv", "users.csv"),
}
_optional = partial(Column, required=False, may_be_absent=True)
_COLUMNS = {
    "ratings": {
        "User-ID": Column("user_id", also=("user-id", "user")),
        "ISBN": Column("item_id", also=("isbn",)),
        "Book-Rating": Column("rating", "number", also=("book-rating", "rating")),
    },
    "books": {
        "ISBN": Column("item_id", also=("isbn",)),
        "Book-Title": Column("title", also=("book-title", "title")),
        "Book-Author": _optional("author", also=("book-author", "author")),
        "Year-Of-Publication": _optional("year", also=("year-of-publication", "publication-year", "year")),
        "Publisher": _optional("publisher", also=("publisher", "book-publisher")),
    },
    "users": {
        "User-ID": Column("user_id", also=("user-id", "user")),
        "Location": _optional("location", also=("location", "user-location", "country", "user-country")),
        "Age": _optional("age", also=("age", "user-age")),
    },
}
_YEARS = range(1450, 2006)  # from the first printed books to the year after the data were collected
_UNKNOWN = ("", "n/a", "null")
_OUT_OF_PLACE = '\\";'  # what a title has in it that was not taken apart from the cells behind it


class BookCrossing(Converter):
    """Book-Crossing, as published or as CSV with commas; separator, escapes and encoding are found out.

    A book has the language of the registration group of its ISBN, ``und`` if that has several. ISBNs are written in
    capitals without hyphens and spaces, and get back the zeros in front that tables of numbers have lost. The source
    has no times, and lists each user's books by ISBN: an interaction's time stamp is a hash of user and book. The
    rating 0 means an interaction without a rating.

    Args:
        input: the folder of the files.
        explicit_only: leave out interactions without a rating.
        keep_unknown: books that have ratings but no row among the books become items without text.

    Raises:
        ConfigError: ``input`` is not given.
        DataError: a file is missing.
    """

    name = "book-crossing"
    layout = """a folder of
  BX-Book-Ratings.csv or Ratings.csv    User-ID, ISBN, Book-Rating
  BX-Books.csv or Books.csv             ISBN, Book-Title, Book-Author, Year-Of-Publication, Publisher
  BX-Users.csv or Users.csv             User-ID, Location, Age; may be missing
with cells separated by ; or , and quoted where needed, in Latin-1 or UTF-8; names without BX- may be in small
letters, and columns may have other usual names (title, Book-Publisher, User-Country, rating, ...); only ISBN, title,
user and rating are needed; each file may be compressed (.gz, .xz, .bz2, .zst, .zip)"""
    item_fields = {"publication_year": "token", "author": "token"}
    user_fields = {"country": "token", "age": "token"}
    arbitrary_order = True

    def __init__(
        self, *, input: str | Path | None = None, explicit_only: bool = False, keep_unknown: bool = False
    ) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input("the folder of BX-Book-Ratings.csv")
        self.explicit_only = explicit_only
        self.keep_unknown = keep_unknown
        self._implicit = 0
        self._layouts: dict[Path, Layout] = {}
        self._shifted: set[str] = set()  # books whose cells were out of place
        self._padded: set[str] = set()  # ISBNs that got zeros

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--explicit-only`` and ``--keep-unknown``."""
        explicit_only = "leave out interactions without a rating (those with the rating 0)"
        keep_unknown = "rated books that are not among the books become items without text, instead of bad rows"
        parser.add_argument("--explicit-only", action="store_true", help=explicit_only)
        parser.add_argument("--keep-unknown", action="store_true", help=keep_unknown)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the ratings, 0 for an interaction without one, in an order by chance."""
        self._implicit = 0
        for frame in located(self._table("ratings", rejects)):
            implicit = frame["rating"] == 0
            self._implicit += int(implicit.sum())
            if self.explicit_only:
                frame = frame.filter(~implicit)
            frame = self._with_isbns(frame)
            yield frame.with_columns(chance_order(frame))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the books, then those that only the ratings have."""
        listed = set()
        for row, location in self._books(rejects):
            features = {"publication_year": row["year"], "author": _token(row["author"])}
            yield Item(row["item_id"], isbn_language(row["item_id"]), features, location)
            listed.add(row["item_id"])
        if self.keep_unknown:
            ratings = self._table("ratings", rejects)
            for frame in ratings:
                first = self._with_isbns(frame).unique("item_id", keep="first", maintain_order=True)
                for line, isbn in first.select(LINE, "item_id").iter_rows():
                    if isbn not in listed:
                        yield Item(isbn, isbn_language(isbn), location=SourceLocation(str(ratings.path), line))
                        listed.add(isbn)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users with age and country: the last part of their location, in small letters."""
        if self._files["users"] is not None:
            for row, location in located_rows(self._table("users", rejects)):
                country = (row["location"] or "").rpartition(",")[2]
                features = {"country": _token(country).lower(), "age": _token(row["age"]).removesuffix(".0")}
                features = {name: value for name, value in features.items() if value.lower() not in _UNKNOWN}
                yield User(row["user_id"], features, location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield a display text per book."""
        for row, location in self._books(rejects):
            fields = {
                "title": row["title"],
                "author": row["author"],
                "year": row["year"],
                "publisher": row["publisher"],
            }
            fields = {name: value for name, value in fields.items() if value}
            yield SourceText(row["item_id"], isbn_language(row["item_id"]), fields, DISPLAY, location)

    def notes(self) -> Iterator[str]:
        """Yield what the ratings and their order mean."""
        yield (
            "no times in the source, whose order is that of the ISBNs: the time stamp is a hash of user and book, so "
            "what comes last is left to chance, the same on every machine"
        )
        what = "were left out" if self.explicit_only else "have the rating 0 (--explicit-only leaves them out)"
        yield f"{self._implicit} interactions without a rating {what}"
        if self._padded:
            yield f"{len(self._padded)} ISBNs had lost zeros in front, which they got back, in books and ratings alike"
        if self._shifted:
            yield f"{len(self._shifted)} books had author, year and publisher in the cells of their neighbors"

    @cached_property
    def _files(self) -> dict[str, Path | None]:
        found = {what: [find_file(self.folder, name) for name in names] for what, names in _NAMES.items()}
        return {what: next((path for path in paths if path is not None), None) for what, paths in found.items()}

    def _table(self, what: str, rejects: Rejects) -> TextTable:
        path = self._files[what]
        if path is None:
            raise DataError(f"{self.folder} has neither {' nor '.join(_NAMES[what])}")
        if path not in self._layouts:
            self._layouts[path] = find_layout(path)
        return TextTable(path, _COLUMNS[what], rejects, layout=self._layouts[path])

    def _books(self, rejects: Rejects) -> Iterator[tuple[dict[str, Any], SourceLocation]]:
        """Yield the books; ``year`` is a plausible one, or empty."""
        table = self._table("books", rejects)
        for frame in table:
            for row in self._with_isbns(frame).iter_rows(named=True):
                location = SourceLocation(str(table.path), row[LINE])
                number = written_number(row["year"] or "0")
                if number is None and _OUT_OF_PLACE in row["title"]:
                    self._shifted.add(row["item_id"])
                    title, _, author = row["title"].partition(_OUT_OF_PLACE)
                    row |= {
                        "title": title,
                        "author": author.strip('"'),
                        "publisher": row["year"],
                        "year": row["author"],
                    }
                    number = written_number(row["year"] or "0")
                if number is None:
                    rejects.omit(table.path, row[LINE], "a year that is no number", f"{row['item_id']} {row['year']}")
                row["year"] = str(int(number)) if number is not None and int(number) in _YEARS else ""
                yield row, location

    def _with_isbns(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a table with its ISBNs in one spelling."""
        isbn = pl.col("item_id").str.to_uppercase().str.replace_all("[ -]", "")
        frame = frame.with_columns(isbn)
        short = frame.filter(pl.col("item_id").str.contains(_SHORT))["item_id"].unique()
        whole = {isbn: isbn.zfill(10) for isbn in short if _is_checked(isbn.zfill(10))}
        self._padded.update(whole)
        return frame.with_columns(pl.col("item_id").replace(whole)) if whole else frame


def _token(cell: str | None) -> str:
    """Return a cell as a value that RecBole reads back: without line breaks, and without quotes around it."""
    return " ".join((cell or "").split()).strip(' "')


# ---- language by ISBN -------------------------------------------------------------------------------------------

_SHORT = "^[0-9]{5,8}[0-9X]$"  # what is left of ten characters after four zeros at most
_ISBN = re.compile(r"(?:97[89][0-9]|[0-9])[0-9]{8}[0-9X]")
_GROUPS = {
    "ar": "603 9933 9960",
    "bg": "619 954",
    "da": "87",
    "de": "3",
    "el": "618 960",
    "en": "0 1",
    "es": "84 607 612 628 631 950 956 958 959 968 970 980 987 9930 9942 9945 9968 9972 9974 9977 9978 99905 99922 "
    "99923 99924 99925 99926",
    "et": "9916 9949 9985",
    "fa": "600 622 964",
    "fi": "951 952",
    "fr": "2",
    "hr": "953",
    "hu": "615 963",
    "id": "602 623 979",
    "is": "9935 9979",
    "it": "88",
    "ja": "4",
    "ko": "89 9946",
    "lt": "609 9955 9986",
    "lv": "9934 9984",
    "nl": "90 94",
    "no": "82",
    "pl": "83",
    "pt": "65 85 972 989",
    "ro": "606 630 973",
    "ru": "5",
    "sl": "961",
    "sv": "91",
    "th": "611 616 974",
    "tr": "605 625 975",
    "vi": "604",
    "zh": "7",
    "zh-Hant": "626 957 986",
}
_GROUPS_979 = {"en": "8", "es": "13", "fr": "10", "it": "12", "ko": "11"}
_LANGUAGE = {f"978{group}": language for language, groups in _GROUPS.items() for group in groups.split()}
_LANGUAGE |= {f"979{group}": language for language, groups in _GROUPS_979.items() for group in groups.split()}
_LONGEST = max(map(len, _LANGUAGE))


def _is_checked(isbn: str) -> bool:
    """Tell whether the check digit of an ISBN of ten characters is right."""
    digits = [10 if character == "X" else int(character) for character in isbn]
    return sum(weight * digit for weight, digit in zip(range(10, 0, -1), digits, strict=True)) % 11 == 0


def isbn_language(isbn: str) -> str:
    """Return the language of an ISBN's registration group, ``und`` if that has several or it is not an ISBN.

    Args:
        isbn: 10 or 13 characters without hyphens; its check digit is not verified.
    """
    if _ISBN.fullmatch(isbn):
        number = isbn if len(isbn) == 13 else f"978{isbn}"
        for end in range(4, _LONGEST + 1):  # the groups are a prefix code
            if number[:end] in _LANGUAGE:
                return _LANGUAGE[number[:end]]
    return UNDETERMINED


# ---- layout of a file -------------------------------------------------------------------------------------------

_ESCAPED_QUOTE = re.compile(rb'\\"[^",;\r\n]')
_UTF8_SHARE = 0.9


def find_layout(path: Path) -> Layout:
    r"""Return the layout of a table whose first line names its columns; the whole file is read, a block at a time.

    - The separator is ``;`` or ``,``, whichever is in the first line more often.
    - A backslash escapes if a ``\"`` is followed by text. That does not happen where quotes are doubled: there a quote
      after a backslash is followed by another one, or ends its cell.
    - The encoding is UTF-8 if at least nine of ten lines beyond ASCII are valid in it, so that a damaged line becomes a
      bad row, and otherwise Latin-1, in which every line is valid.

    Raises:
        DataError: the file cannot be read.
    """
    separator, escaped, valid, invalid = "", False, 0, 0
    for block in blocks(path):
        if not separator:
            header = block.partition(b"\n")[0]
            separator = ";" if header.count(b";") > header.count(b",") else ","
        escaped = escaped or _ESCAPED_QUOTE.search(block) is not None
        if not block.isascii():
            lines = [line for line in block.split(b"\n") if not line.isascii()]
            good = sum(line.decode(errors="ignore").encode() == line for line in lines)
            valid, invalid = valid + good, invalid + len(lines) - good
    encoding = "utf-8" if valid >= _UTF8_SHARE * (valid + invalid) else "latin-1"
    return Layout(separator or ",", escape="\\" if escaped else None, encoding=encoding)
