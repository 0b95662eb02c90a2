"""Amazon-M2 [1], the sessions of KDD Cup 2023 in six locales.

[1] Jin et al.: Amazon-M2: A Multilingual Multi-locale Shopping Session Dataset for Recommendation and Text Generation.
NeurIPS 2023, datasets and benchmarks.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, located_rows
from recbole_xling.convert.reading.compressed import find_file
from recbole_xling.convert.reading.open_table import open_table, parquet_batches, table_files
from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.convert.reading.text_table import Column
from recbole_xling.convert.sources.products import Product
from recbole_xling.errors import DataError
from recbole_xling.text.record import DISPLAY, PARALLEL

LANGUAGES = {"DE": "de", "ES": "es", "FR": "fr", "IT": "it", "JP": "ja", "UK": "en"}
"""Language tag by locale."""

_TEXTS = {
    "title": "title", "brand": "brand", "color": "color", "size": "size", "model": "model", "material": "material",
    "author": "author", "desc": "description",
}  # fmt: skip
_SESSIONS_AT_A_TIME = 100_000
_ITEM = r"[^\s,'\[\]]+"
_PRINTED = rf"^\s*\[(?:[\s,]*'{_ITEM}')*\s*\]\s*$"  # beyond 1000 elements NumPy prints dots, which do not match


class AmazonM2(Converter):
    """Amazon-M2: each session is a user, the position in it the time stamp.

    Users are named by locale and number, counted within the locale from 0 in the order of the files: ``UK:0``. A
    product of several locales is one item with a text in the language of each: it is shown as in the first row about
    it, the texts of its other locales are parallel ones. The locale of a session tells the language of its user.

    Args:
        input: the folder of the files.
        test_sessions: read the sessions of the test files as well; they lack the next item.

    Raises:
        ConfigError: ``input`` is not given.
        DataError: a file is missing.
    """

    name = "amazon-m2"
    layout = """a folder of (CSV, perhaps compressed: .gz, .xz, .bz2, .zst, .zip; or .parquet, a file or a folder)
  products_train.csv      id, locale, title, price, brand, color, size, model, material, author, desc; the first three
                          are needed
  sessions_train.csv      prev_items (as NumPy prints them: ['B01' 'B02'], or a list of Parquet), next_item, locale
  sessions_test*.csv      the same without next_item; only for --test-sessions"""
    item_fields = {"brand": "token"}
    user_fields = {"user_language": "token", "market": "token", "session_file": "token"}

    def __init__(self, *, input: str | Path | None = None, test_sessions: bool = False) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input("the folder of products_train.csv and sessions_train.csv")
        self.test_sessions = test_sessions

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--test-sessions``."""
        test_sessions = "read the sessions of the test files as well: histories without their next item"
        parser.add_argument("--test-sessions", action="store_true", help=test_sessions)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the items of the sessions; the time is the position in the session, from 1."""
        for path, _, frame in self._sessions(rejects):
            positions = pl.int_ranges(1, pl.col("items").list.len() + 1).alias("timestamp")
            listed = frame.filter(pl.col("items").list.len() > 0).with_columns(positions)
            events = listed.select("user_id", pl.col("items").alias("item_id"), "timestamp", LINE)
            yield events.explode("item_id", "timestamp").with_columns(pl.lit(str(path)).alias(FILE))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield each product in the language of its first row."""
        for product, language, is_new in self._products(rejects):
            if is_new:
                yield Item(product.item_id, language, {"brand": product.brand}, product.location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the sessions with their locale as market, its language, and the name of their file."""
        for path, name, frame in self._sessions(rejects):
            file = str(path)
            for user_id, locale, line in frame.select("user_id", "locale", LINE).iter_rows():
                features = {"user_language": LANGUAGES[locale], "market": locale, "session_file": name}
                yield User(user_id, features, SourceLocation(file, line))

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield the texts of each product: of its first row the display text, then the parallel ones."""
        displayed: dict[str, str] = {}
        for product, language, _ in self._products(rejects):
            source = DISPLAY if displayed.setdefault(product.item_id, language) == language else PARALLEL
            yield SourceText(product.item_id, language, product.fields, source, product.location)

    def notes(self) -> Iterator[str]:
        """Yield what the time stamps and the test sessions are."""
        yield "no times in the source: the time stamp is the position in the session, and tells nothing across sessions"
        if self.test_sessions:
            yield "the last item of a test session is history: its next item, the target, is not in the files"

    def _sessions(self, rejects: Rejects) -> Iterator[tuple[Path, str, pl.DataFrame]]:
        """Yield the file, the name of its table and the sessions with the column ``user_id``."""
        names = ["sessions_train"]
        if self.test_sessions:
            tests = {path.name.partition(".")[0] for path in self.folder.glob("sessions_test*")}
            if not tests:
                raise DataError(f"--test-sessions needs files sessions_test*.csv or .parquet in {self.folder}")
            names += sorted(tests)
        numbers: Counter[str] = Counter()
        files = [(name, path) for name in names for path in self._files(name)]
        for name, path in files:
            for frame in read_sessions(path, rejects, has_next=name == names[0]):
                before = pl.col("locale").replace_strict({name: numbers[name] for name in LANGUAGES})
                number = before + pl.int_range(pl.len()).over("locale")
                yield path, name, frame.with_columns(pl.format("{}:{}", "locale", number).alias("user_id"))
                numbers.update(dict(frame["locale"].value_counts().iter_rows()))

    def _products(self, rejects: Rejects) -> Iterator[tuple[Product, str, bool]]:
        """Yield each row of the products: product, language, whether it is the product's first row."""
        columns = {"id": Column("item_id"), "locale": Column("locale")}
        for name, field in _TEXTS.items():
            columns[name] = Column(field, required=False, may_be_absent=name != "title")
        seen: set[str] = set()
        tables = (open_table(path, columns, rejects) for path in self._files("products_train"))
        for row, location in chain.from_iterable(map(located_rows, tables)):
            item_id, language = row["item_id"], LANGUAGES.get(row["locale"])
            if language is None:
                rejects.add(location.file, location.line, "an unknown locale", f"{item_id} {row['locale']}")
                continue
            fields = {field: row[field] for field in _TEXTS.values() if row[field]}
            yield Product(item_id, fields, location), language, item_id not in seen
            seen.add(item_id)

    def _files(self, name: str) -> list[Path]:
        """Return the CSV file of a name, or else the Parquet file, or the shards of a folder of that name."""
        path = find_file(self.folder, f"{name}.csv") or self.folder / f"{name}.parquet"
        path = path if path.exists() else self.folder / name
        if not path.exists():
            raise DataError(f"{self.folder} has neither {name}.csv nor {name}.parquet")
        return table_files(path)


def read_sessions(path: Path, rejects: Rejects, *, has_next: bool) -> Iterator[pl.DataFrame]:
    """Yield sessions in batches: ``items`` (a list of ids, in order), ``locale`` and the line.

    Args:
        path: CSV, compressed or not, or Parquet.
        rejects: takes sessions with a broken list, an unknown locale, or without their next item.
        has_next: the sessions have a ``next_item``, which becomes the last one of the list.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    names = ["prev_items", "locale", *(["next_item"] if has_next else [])]
    columns = {name: Column(name) for name in names}

    def cells(schema: pl.Schema) -> Iterator[pl.Expr]:
        for name in names:
            is_list = name == "prev_items" and isinstance(schema[name], (pl.List, pl.Array))
            yield pl.col(name).cast(pl.List(pl.String) if is_list else pl.String)

    frames: Iterable[pl.DataFrame]
    if path.suffix == ".parquet":
        frames = parquet_batches(path, columns, rejects, cells, rows_at_a_time=_SESSIONS_AT_A_TIME)
    else:
        frames = open_table(path, columns, rejects)
    for frame in frames:
        items = pl.col("prev_items")
        if frame.schema["prev_items"] == pl.String:
            items = pl.when(items.str.contains(_PRINTED)).then(items.str.extract_all(_ITEM))
        else:
            lacks_one = items.list.eval(pl.element().fill_null("") == "").list.any()
            items = pl.when(~lacks_one).then(items)
        reasons = [
            pl.when(items.is_null()).then(pl.lit("no whole list of items in column 'prev_items'")),
            pl.when(~pl.col("locale").is_in(list(LANGUAGES)).fill_null(False)).then(pl.lit("an unknown locale")),
        ]
        if has_next:
            no_next = pl.col("next_item").fill_null("") == ""
            reasons.append(pl.when(no_next).then(pl.lit("nothing in column 'next_item'")))
            items = pl.concat_list(items, "next_item")
        good = rejects.sift(frame, reasons, lambda row: " ".join(str(row[name]) for name in names), path)
        yield good.select(items.alias("items"), "locale", LINE)
