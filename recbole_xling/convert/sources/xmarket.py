"""XMarket [1]: ratings and products of Amazon in many markets.

[1] Bonab, Aliannejadi, Vardasbi, Kanoulas and Allan: Cross-Market Product Recommendation. CIKM 2021.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, located
from recbole_xling.convert.reading.compressed import PERHAPS_PACKED, without_copies
from recbole_xling.convert.reading.rejects import LINE, Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable
from recbole_xling.convert.sources.products import read_products
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.text.record import DISPLAY, PARALLEL

LANGUAGES = {
    "ae": "ar", "au": "en", "br": "pt", "ca": "en", "cn": "zh", "de": "de", "es": "es", "fr": "fr", "in": "en",
    "it": "it", "jp": "ja", "mx": "es", "nl": "nl", "pl": "pl", "sa": "ar", "se": "sv", "sg": "en", "tr": "tr",
    "uk": "en", "us": "en",
}  # fmt: skip
"""Language tag by market."""

_FILE_NAME = re.compile(
    rf"(?P<kind>ratings|metadata)_(?P<market>[a-z]{{2}})_.+\.(?:txt|json){PERHAPS_PACKED}", re.IGNORECASE
)
_RATINGS = Layout(separator=" ", quote=None)


class _MarketFile(NamedTuple):
    path: Path
    market: str

    @property
    def language(self) -> str:
        return LANGUAGES[self.market]


class XMarket(Converter):
    """XMarket's ratings and metadata of any markets and categories.

    The market tells the language of users and texts. A product of several markets is one item: it is shown in the
    first of them, and the text of another market is a parallel one unless a text in its language has been read before.
    A user of several markets belongs to the first.

    Args:
        input: the folder of the files, which may be in folders of their own.
        markets: the markets that are read, in the order that decides which is the first, such as ``de,fr,us``; None
            for all by name.

    Raises:
        ConfigError: ``input`` is not given, or a market is unknown.
        DataError: a market is unknown, or has no ratings or no metadata.
    """

    name = "xmarket"
    layout = """a folder, perhaps of folders, of (may be compressed: .gz, .xz, .bz2, .zst, .zip)
  ratings_<market>_<category>.txt      userId itemId rate date (2015-01-31), separated by spaces, with a header
  metadata_<market>_<category>.json    JSON lines: asin, title, brand, categories, features, description"""
    item_fields = {"brand": "token"}
    user_fields = {"user_language": "token", "market": "token"}

    def __init__(self, *, input: str | Path | None = None, markets: str | None = None) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input("the folder of ratings_<market>_<category>.txt")
        named = None if markets is None else [market.strip().lower() for market in markets.split(",")]
        unknown = next((market for market in named or () if market not in LANGUAGES), None)
        if unknown is not None:
            raise ConfigError(unknown_name("market", unknown, LANGUAGES))
        self.markets = named
        self._same_language = 0
        self._shared_users = 0

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--markets``."""
        markets = "read these markets (de,fr,us); a product is shown in the first that has it (default: all, by name)"
        parser.add_argument("--markets", metavar="MARKETS", help=markets)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the ratings, file by file; dates become Unix seconds."""
        columns = {
            "userId": Column("user_id"),
            "itemId": Column("item_id"),
            "rate": Column("rating", "number"),
            "date": Column("date"),
        }
        for path, _ in self._ratings:
            for frame in located(TextTable(path, columns, rejects, layout=_RATINGS)):
                times = pl.col("date").str.to_datetime("%Y-%m-%d", strict=False).dt.epoch("s").cast(pl.Float64)
                timed = frame.with_columns(times.alias("timestamp"))
                no_date = pl.when(pl.col("timestamp").is_null()).then(
                    pl.lit("no date like 2015-01-31 in column 'date'")
                )
                yield rejects.sift(timed, [no_date], lambda row: str(row["date"])).drop("date")

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield each product in the language of its first market."""
        known = set[str]()
        for file in self._metadata:
            for product in read_products(file.path, "asin", rejects):
                if product.item_id not in known:
                    known.add(product.item_id)
                    yield Item(product.item_id, file.language, {"brand": product.brand}, product.location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield each user with the first market and its language."""
        markets: dict[str, str] = {}
        shared: set[str] = set()
        for file in self._ratings:
            features = {"user_language": file.language, "market": file.market}
            for frame in TextTable(file.path, {"userId": Column("user_id")}, rejects, layout=_RATINGS):
                first = frame.select("user_id", LINE).unique("user_id", keep="first", maintain_order=True)
                for user_id, line in first.iter_rows():
                    if user_id not in markets:
                        markets[user_id] = file.market
                        yield User(user_id, features, SourceLocation(str(file.path), line))
                    elif markets[user_id] != file.market:
                        shared.add(user_id)
        self._shared_users = len(shared)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield the first text of each product in each language, and the empty ones that come before it."""
        shown: dict[str, str] = {}  # the language of each product
        languages: dict[str, tuple[str, ...]] = {}  # in which it has a text
        self._same_language = 0
        for file in self._metadata:
            for product in read_products(file.path, "asin", rejects):
                source = DISPLAY if shown.setdefault(product.item_id, file.language) == file.language else PARALLEL
                known = languages.get(product.item_id, ())
                if file.language in known:
                    self._same_language += 1
                    continue
                if product.fields:  # an empty text takes no place
                    languages[product.item_id] = (*known, file.language)
                yield SourceText(product.item_id, file.language, product.fields, source, product.location)

    def notes(self) -> Iterator[str]:
        """Yield what several markets have in common."""
        if self._same_language:
            yield f"{self._same_language} texts of products that had one in the same language were left out"
        if self._shared_users:
            yield f"{self._shared_users} users rated in several markets; they have the language of the first"

    @cached_property
    def _ratings(self) -> list[_MarketFile]:
        return self._find("ratings")

    @cached_property
    def _metadata(self) -> list[_MarketFile]:
        return self._find("metadata")

    @cached_property
    def _files(self) -> list[tuple[str, _MarketFile]]:
        """All files by name: kind and file."""
        if not self.folder.is_dir():
            raise DataError(f"folder {self.folder} does not exist")
        paths = without_copies(sorted(self.folder.rglob("*")))
        names = ((path, _FILE_NAME.fullmatch(path.name)) for path in paths)
        return [(name["kind"].lower(), _MarketFile(path, name["market"].lower())) for path, name in names if name]

    def _find(self, kind: str) -> list[_MarketFile]:
        """Return the files of a kind, by market and name."""
        markets = self.markets or sorted({file.market for _, file in self._files})
        unknown = next((market for market in markets if market not in LANGUAGES), None)
        if unknown is not None:
            raise DataError(f"{self.folder}: {unknown_name('market', unknown, LANGUAGES)}; leave it out by --markets")
        files = [file for of_kind, file in self._files if of_kind == kind and file.market in markets]
        absent = next(
            (market for market in markets or ("<market>",) if not any(market == f.market for f in files)), None
        )
        if absent is not None:
            raise DataError(f"{self.folder} has no file {kind}_{absent}_<category>")
        return sorted(files, key=lambda file: markets.index(file.market))
