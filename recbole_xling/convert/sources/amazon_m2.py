"""Amazon-M2 [1], the sessions of KDD Cup 2023 in six locales.

[1] Jin et al.: Amazon-M2: A Multilingual Multi-locale Shopping Session Dataset for Recommendation and Text Generation.
NeurIPS 2023, datasets and benchmarks.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import FILE, Converter, Item, SourceLocation, SourceText, User
from recbole_xling.convert.reading.compressed import find_file
from recbole_xling.convert.reading.open_table import PARQUET_ERRORS, Batches, open_table
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import LINE, Column
from recbole_xling.convert.sources.products import Product
from recbole_xling.errors import DataError, unknown_name
from recbole_xling.text.record import DISPLAY, PARALLEL

_SESSIONS_AT_A_TIME = 100_000
_REASON = "reason of rejection"
_ITEM = r"[^\s,'\[\]]+"
_PRINTED = rf"^\s*\[(?:[\s,]*'{_ITEM}')*\s*\]\s*$"  # beyond 1000 elements NumPy prints dots, which do not match


def read_sessions(path: Path, locales: list[str], rejects: Rejects, *, has_next: bool) -> Iterator[pl.DataFrame]:
    """Yield sessions in batches: ``items`` (a list of ids, in order), ``locale`` and the line.

    Args:
        path: CSV, compressed or not, or Parquet.
        locales: those that are known.
        rejects: takes sessions with a broken list, an unknown locale, or without their next item.
        has_next: the sessions have a ``next_item``, which becomes the last one of the list.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    names = ["prev_items", "locale", *(["next_item"] if has_next else [])]
    for frame in _batches(path, names, rejects):
        items = _items(frame)
        reasons = [
            pl.when(items.is_null()).then(pl.lit("no whole list of items in column 'prev_items'")),
            pl.when(~pl.col("locale").is_in(locales).fill_null(False)).then(pl.lit("an unknown locale")),
        ]
        if has_next:
            no_next = pl.col("next_item").fill_null("") == ""
            reasons.append(pl.when(no_next).then(pl.lit("nothing in column 'next_item'")))
            items = pl.concat_list(items, "next_item")
        checked = frame.with_columns(items.alias("items"), pl.coalesce(reasons).alias(_REASON))
        for row in checked.filter(pl.col(_REASON).is_not_null()).iter_rows(named=True):
            rejects.add(path, row[LINE], row[_REASON], " ".join(str(row[name]) for name in names))
        yield checked.filter(pl.col(_REASON).is_null()).select("items", "locale", LINE)


def _items(frame: pl.DataFrame) -> pl.Expr:
    """Return the lists of items; null where a list is broken, cut short by NumPy, or lacks an element."""
    listed = pl.col("prev_items")
    if frame.schema["prev_items"] == pl.String:
        return pl.when(listed.str.contains(_PRINTED)).then(listed.str.extract_all(_ITEM))
    lacks_one = listed.list.eval(pl.element().fill_null("") == "").list.any()
    return pl.when(~lacks_one).then(listed)


def _batches(path: Path, names: list[str], rejects: Rejects) -> Batches | Iterator[pl.DataFrame]:
    """Yield the columns as they are in the file, and the line."""
    if path.suffix != ".parquet":
        return open_table(path, {name: Column(name) for name in names}, rejects)
    return _parquet_batches(path, names, rejects)


def _parquet_batches(path: Path, names: list[str], rejects: Rejects) -> Iterator[pl.DataFrame]:
    rejects.begin(path)
    try:
        file = pl.scan_parquet(path)
        schema, height = file.collect_schema(), file.select(pl.len()).collect().item()
        absent = next((name for name in names if name not in schema), None)
        if absent is not None:
            raise DataError(f"{path}: {unknown_name('column', absent, schema)}")
        kinds: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
        if isinstance(schema["prev_items"], (pl.List, pl.Array)):
            kinds["prev_items"] = pl.List(pl.String())
        for start in range(0, height, _SESSIONS_AT_A_TIME):
            frame = (
                file.slice(start, _SESSIONS_AT_A_TIME)
                .select(pl.col(name).cast(kind) for name, kind in kinds.items())
                .collect()
            )
            rejects.saw(path, frame.height)
            yield frame.with_columns(pl.int_range(start + 1, start + 1 + frame.height, eager=True).alias(LINE))
    except PARQUET_ERRORS as error:
        raise DataError(f"{path} cannot be read ({error}); is it a complete Parquet file?") from error


LANGUAGES = {"DE": "de", "ES": "es", "FR": "fr", "IT": "it", "JP": "ja", "UK": "en"}
"""Language tag by locale."""

_TEXTS = {
    "title": "title", "brand": "brand", "color": "color", "size": "size", "model": "model", "material": "material",
    "author": "author", "desc": "description",
}  # fmt: skip


class AmazonM2(Converter):
    """Amazon-M2: each session is a user, the position in it the time stamp.

    Users are named by locale and number, counted within the locale from 0 in the order of the files: ``UK:0``. A
    product of several locales is one item: it is shown as in the first row about it, the texts of its other locales are
    parallel ones.

    Args:
        input: the folder of the files.
        test_sessions: read the sessions of the test files as well; they lack the next item.

    Raises:
        ConfigError: ``input`` is not given.
        DataError: a file is missing.
    """

    name = "amazon-m2"
    layout = """a folder of (CSV, which may be compressed: .gz, .zst, .zip, or .parquet)
  products_train.csv      id, locale, title, price, brand, color, size, model, material, author, desc
  sessions_train.csv      prev_items (as NumPy prints them: ['B01' 'B02'], or a list of Parquet), next_item, locale
  sessions_test*.csv      the same without next_item; only for --test-sessions"""
    item_fields = {"brand": "token"}
    user_fields = {"user_language": "token", "session_file": "token"}

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
        for path, frame in self._sessions(rejects):
            positions = pl.int_ranges(1, pl.col("items").list.len() + 1).alias("timestamp")
            listed = frame.filter(pl.col("items").list.len() > 0).with_columns(positions)
            events = listed.select("user_id", pl.col("items").alias("item_id"), "timestamp", LINE)
            yield events.explode("item_id", "timestamp").with_columns(pl.lit(str(path)).alias(FILE))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield each product in the language of its first row."""
        for product, language, is_new in self._products(rejects):
            if is_new:
                yield Item(product.item_id, language, {"brand": product.brand}, product.place)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the sessions with the language of their locale and the name of their file."""
        for path, frame in self._sessions(rejects):
            file, name = str(path), path.name.partition(".")[0]
            for user_id, locale, line in frame.select("user_id", "locale", LINE).iter_rows():
                yield User(
                    user_id, {"user_language": LANGUAGES[locale], "session_file": name}, SourceLocation(file, line)
                )

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield the texts of each product: of its first row the display text, then the parallel ones."""
        displayed: dict[str, str] = {}
        for product, language, _ in self._products(rejects):
            source = DISPLAY if displayed.setdefault(product.item_id, language) == language else PARALLEL
            yield SourceText(product.item_id, language, product.fields, source, product.place)

    def notes(self) -> Iterator[str]:
        """Yield what the time stamps and the test sessions are."""
        yield "no times in the source: the time stamp is the position in the session, and tells nothing across sessions"
        if self.test_sessions:
            yield "the last item of a test session is history: its next item, the target, is not in the files"

    def _sessions(self, rejects: Rejects) -> Iterator[tuple[Path, pl.DataFrame]]:
        """Yield the sessions of each file with the column ``user_id``."""
        paths = [self._file("sessions_train"), *(self._test_files() if self.test_sessions else [])]
        numbers: Counter[str] = Counter()
        for path in paths:
            for frame in read_sessions(path, list(LANGUAGES), rejects, has_next=path == paths[0]):
                before = pl.col("locale").replace_strict({name: numbers[name] for name in LANGUAGES})
                number = before + pl.int_range(pl.len()).over("locale")
                yield path, frame.with_columns(pl.format("{}:{}", "locale", number).alias("user_id"))
                numbers.update(dict(frame["locale"].value_counts().iter_rows()))

    def _products(self, rejects: Rejects) -> Iterator[tuple[Product, str, bool]]:
        """Yield each row of the products: product, language, whether it is the product's first row."""
        path = self._file("products_train")
        columns = {"id": Column("item_id"), "locale": Column("locale")}
        columns |= {name: Column(field, required=False) for name, field in _TEXTS.items()}
        seen: set[str] = set()
        for frame in open_table(path, columns, rejects):
            for row in frame.iter_rows(named=True):
                language = LANGUAGES.get(row["locale"])
                if language is None:
                    rejects.add(path, row[LINE], "an unknown locale", f"{row['item_id']} {row['locale']}")
                    continue
                fields = {field: row[field] for field in _TEXTS.values() if row[field]}
                yield (
                    Product(row["item_id"], fields, SourceLocation(str(path), row[LINE])),
                    language,
                    row["item_id"] not in seen,
                )
                seen.add(row["item_id"])

    def _file(self, name: str) -> Path:
        """Return the CSV file of a name, or else the Parquet file."""
        path = find_file(self.folder, f"{name}.csv") or self.folder / f"{name}.parquet"
        if not path.is_file():
            raise DataError(f"there is neither {name}.csv nor {name}.parquet in {self.folder}")
        return path

    def _test_files(self) -> list[Path]:
        names = sorted({path.name.partition(".")[0] for path in self.folder.glob("sessions_test*")})
        if not names:
            raise DataError(f"--test-sessions needs files sessions_test*.csv or .parquet in {self.folder}")
        return [self._file(name) for name in names]
