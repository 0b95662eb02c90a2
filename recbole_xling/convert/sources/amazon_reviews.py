"""Amazon Reviews of 2018 [1] and 2023 [2].

[1] Ni, Li and McAuley: Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects. EMNLP 2019.
[2] Hou et al.: Bridging Language and Items for Retrieval and Recommendation. arXiv:2403.03952, 2024.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceText, located
from recbole_xling.convert.reading.compressed import SUFFIXES, numbered_lines, without_copies
from recbole_xling.convert.reading.open_table import JsonLines, parse_object
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column
from recbole_xling.convert.sources.products import Product, read_products
from recbole_xling.errors import DataError
from recbole_xling.language.tags import asked_language
from recbole_xling.text.record import DISPLAY

_JSON_LINES = (".json", ".jsonl")
_LINES_LOOKED_AT = 100
_ITEM_KEYS = ("parent_asin", "asin")


class _Reviews(NamedTuple):
    """Keys of a release's reviews, and how many units of its time make a second."""

    user: str
    item: str
    rating: str
    time: str
    per_second: int

    @property
    def keys(self) -> set[str]:
        return {self.user, self.item, self.rating, self.time}


_RELEASES = (
    _Reviews("reviewerID", "asin", "overall", "unixReviewTime", 1),
    _Reviews("user_id", "parent_asin", "rating", "timestamp", 1000),
    _Reviews("user_id", "asin", "rating", "timestamp", 1000),
)


class AmazonReviews(Converter):
    """Amazon Reviews 2018 or 2023: reviews and product metadata as JSON lines.

    Each file is told by the keys of its objects. Items are what the metadata describe: the products of 2018, of 2023
    the parent products, which comprise variants. A product listed twice with the same text counts once.

    Args:
        input: the folder of the files.
        language: of all texts.

    Raises:
        ConfigError: ``input`` is not given, or ``language`` names no language.
        DataError: the folder has no reviews or no metadata.
    """

    name = "amazon-reviews"
    layout = """a folder of JSON lines (.json, .jsonl; may be compressed: .gz, .xz, .zst, ...), told by their keys:
  reviews    reviewerID, asin, overall, unixReviewTime (2018)
             user_id, parent_asin, rating, timestamp in milliseconds (2023)
  metadata   asin, title, brand, category, feature, description (2018)
             parent_asin, title, store, categories, features, description (2023)"""
    item_fields = {"brand": "token"}

    def __init__(self, *, input: str | Path | None = None, language: str = "en") -> None:
        super().__init__(input=input)
        self.folder = self.needed_input("the folder of reviews and metadata")
        self.language = asked_language(language)
        self._repeated = 0

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--language``."""
        parser.add_argument("--language", default="en", metavar="TAG", help="language of all texts (default: en)")

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the reviews, file by file; times are Unix seconds."""
        for path, release in self._reviews:
            columns = {
                release.user: Column("user_id"),
                release.item: Column("item_id"),
                release.rating: Column("rating", "number"),
                release.time: Column("timestamp", "number"),
            }
            for frame in located(JsonLines(path, columns, rejects)):
                yield frame.with_columns(pl.col("timestamp") / release.per_second)

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the products of the metadata."""
        for product in self._products(rejects):
            yield Item(product.item_id, self.language, {"brand": product.brand}, product.location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield the text of each product."""
        for product in self._products(rejects):
            yield SourceText(product.item_id, self.language, product.fields, DISPLAY, product.location)

    def notes(self) -> Iterator[str]:
        """Yield which files were left out, and how many rows of the metadata repeat a product."""
        used = {path for path, _ in (*self._reviews, *self._metadata)}
        if len(used) < len(self._files):
            names = ", ".join(path.name for path in self._files if path not in used)
            yield f"neither reviews nor metadata, so not read: {names}"
        if self._repeated:
            yield f"{self._repeated} rows of the metadata repeat a product with the same text"

    @cached_property
    def _files(self) -> dict[Path, frozenset[str]]:
        """The keys of the first objects in each file."""
        if not self.folder.is_dir():
            raise DataError(f"folder {self.folder} does not exist")
        endings = tuple(kind + packed for kind in _JSON_LINES for packed in ("", *SUFFIXES))
        keys: dict[Path, frozenset[str]] = {}
        found = (path for path in sorted(self.folder.rglob("*")) if path.name.lower().endswith(endings))
        for path in without_copies(path for path in found if path.is_file()):
            records = (parse_object(line) for _, line in islice(numbered_lines(path), _LINES_LOOKED_AT))
            keys[path] = frozenset(key for record in records if record is not None for key in record)
        return keys

    @cached_property
    def _reviews(self) -> list[tuple[Path, _Reviews]]:
        releases = ((path, _release(keys)) for path, keys in self._files.items())
        found = [(path, release) for path, release in releases if release is not None]
        if not found:
            raise DataError(f"{self.folder} has no reviews; it should be {self.layout}")
        return found

    @cached_property
    def _metadata(self) -> list[tuple[Path, str]]:
        """The files of metadata, and their keys of ids."""
        found = [
            (path, next(key for key in _ITEM_KEYS if key in keys))
            for path, keys in self._files.items()
            if _release(keys) is None and "title" in keys and keys.intersection(_ITEM_KEYS)
        ]
        if not found:
            raise DataError(f"{self.folder} has no metadata of products; it should be {self.layout}")
        return found

    def _products(self, rejects: Rejects) -> Iterator[Product]:
        """Yield the products but those that repeat an earlier row."""
        contents: dict[str, int] = {}
        self._repeated = 0
        for path, key in self._metadata:
            for product in read_products(path, key, rejects):
                content = hash(tuple(product.fields.items()))
                if contents.get(product.item_id) == content:
                    self._repeated += 1
                else:
                    contents.setdefault(product.item_id, content)
                    yield product


def _release(keys: frozenset[str]) -> _Reviews | None:
    """Return the release whose reviews have these keys, None if the file has other ones."""
    return next((release for release in _RELEASES if release.keys <= keys), None)
