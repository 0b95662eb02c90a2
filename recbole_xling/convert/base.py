"""What a converter is and yields, and the table of converters.

Importing this file is cheap, so that the command line can list the converters at once.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.text.record import ItemText

if TYPE_CHECKING:
    import polars as pl

    from recbole_xling.convert.reading.open_table import Batches

Features = Mapping[str, str | tuple[str, ...]]
"""Features of an item or user by column; a tuple for columns of type ``token_seq``. A missing column is empty."""


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where a record comes from: a file, and in it the number of the record's first line, from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the catalog; its texts are records of their own.

    Attributes:
        item_id: external id of the item.
        language: of its display text as the source states it, in any spelling; empty or ``und`` if not stated.
        features: values by column.
        location: where it comes from.
    """

    item_id: str
    language: str
    features: Features = field(default_factory=dict)
    location: SourceLocation | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    Attributes:
        user_id: external id of the user.
        features: values by column; ``user_language`` is a language as the source states it.
        location: where the user comes from.
    """

    user_id: str
    features: Features = field(default_factory=dict)
    location: SourceLocation | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SourceText(ItemText):
    """A text and where it comes from; its language is as the source states it."""

    location: SourceLocation | None = field(default=None, compare=False)


class Converter(ABC):
    """Reads one raw format and yields what is in it, row by row; it writes nothing.

    Every method may be called more than once and yields the same each time. Rows that cannot be read go to
    ``rejects``; the writer checks the rows against each other (a second row of an item, an interaction with an unknown
    item).

    Class attributes:
        name: the name under which ``get_converter`` finds it.
        layout: the files it expects, as shown by ``--help``.
        clean_texts: whether its texts need no cleaning.

    Attributes:
        arbitrary_order: whether its time stamps order each user's interactions by chance (:func:`chance_order`).
        item_fields: type by column of :attr:`Item.features`: ``token``, ``token_seq`` or ``float``.
        user_fields: the same for :attr:`User.features`, with other names.
        interaction_fields: the same for further columns of the interactions, with other names.

    Args:
        input: file or folder of the raw data, None for the converter's own default.
    """

    name: ClassVar[str]
    layout: ClassVar[str] = ""
    clean_texts: ClassVar[bool] = False
    item_fields: Mapping[str, str] = {}
    user_fields: Mapping[str, str] = {}
    interaction_fields: Mapping[str, str] = {}
    arbitrary_order: bool = False

    def __init__(self, *, input: str | Path | None = None) -> None:
        self.input = None if input is None else Path(input)

    def needed_input(self, what: str) -> Path:
        """Return :attr:`input`.

        Args:
            what: what it should be, for the message.

        Raises:
            ConfigError: it is not given.
        """
        if self.input is None:
            raise ConfigError(f"{self.name} needs --input, {what}")
        return self.input

    @property
    def origin(self) -> str:
        """The input as messages name it."""
        return "the source" if self.input is None else str(self.input)

    @classmethod  # noqa: B027
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare options of its own for the command line; each is a keyword of the constructor."""

    @abstractmethod
    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield all interactions in frames of any length, in the order of the source.

        Columns: ``user_id`` and ``item_id`` (String); ``rating`` and ``timestamp`` (Float64) if the source has them, a
        time in Unix seconds if it tells the date, otherwise any number that grows; those of ``interaction_fields`` as
        texts (String); ``file`` (String) and ``line`` (Int64).
        """

    @abstractmethod
    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield each item once."""

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield each user once, or nothing if the source tells nothing about users."""
        return iter(())

    @abstractmethod
    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield all texts of all items; a display text is in the language of its item."""

    def impressions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield what was shown together, in frames of any length, or nothing if the source does not tell.

        Columns: ``impression_id`` and ``user_id`` (String), ``timestamp`` (Int64) as in the interactions, ``item_id``
        and ``label`` (lists of the same length: the candidates, and 1 for clicked or 0). The bad rows are those of the
        interactions.
        """
        return iter(())

    def notes(self) -> Iterator[str]:
        """Yield, after everything has been read, what the user should know about this source, a sentence each."""
        return iter(())


def located(table: Batches) -> Iterator[pl.DataFrame]:
    """Yield the batches of a table with the column ``file``."""
    import polars as pl

    for frame in table:
        yield frame.with_columns(pl.lit(str(table.path)).alias(FILE))


def chance_order(interactions: pl.DataFrame) -> pl.Series:
    """Return a time stamp for each interaction of a source that does not tell which was first.

    It is a hash of user and item, so an order by chance that is the same each time and on every machine, whatever the
    order of the source. Of the hash (BLAKE2b) 24 bits are taken, which single precision keeps apart.
    """
    import polars as pl

    pairs = zip(interactions["user_id"], interactions["item_id"], strict=True)
    hashes = (blake2b(f"{user}\t{item}".encode("utf-8", "replace"), digest_size=3).digest() for user, item in pairs)
    return pl.Series("timestamp", [int.from_bytes(value, "big") for value in hashes], pl.Float64)


def located_rows(table: Batches) -> Iterator[tuple[dict[str, Any], SourceLocation]]:
    """Yield the rows of a table one by one: cells by column, and where the row comes from."""
    for frame in table:
        for row in frame.iter_rows(named=True):
            yield row, SourceLocation(str(table.path), row[LINE])


CONVERTERS: dict[str, str] = {
    "amazon-m2": "recbole_xling.convert.sources.amazon_m2:AmazonM2",
    "amazon-reviews": "recbole_xling.convert.sources.amazon_reviews:AmazonReviews",
    "book-crossing": "recbole_xling.convert.sources.book_crossing:BookCrossing",
    "debian": "recbole_xling.convert.sources.debian:Debian",
    "deskdrop": "recbole_xling.convert.sources.deskdrop:DeskDrop",
    "goodbooks": "recbole_xling.convert.sources.goodbooks:Goodbooks",
    "ml-100k": "recbole_xling.convert.sources.ml100k:MovieLens100K",
    "mind": "recbole_xling.convert.sources.mind:Mind",
    "movielens": "recbole_xling.convert.sources.movielens:MovieLens",
    "table": "recbole_xling.convert.sources.table:TableConverter",
    "xmarket": "recbole_xling.convert.sources.xmarket:XMarket",
}
"""Module and class by name; :func:`get_converter` imports the module."""


def get_converter(name: str) -> type[Converter]:
    """Return the converter class of a name.

    Raises:
        ConfigError: the name is unknown; the message lists the known ones.
    """
    if name not in CONVERTERS:
        raise ConfigError(unknown_name("converter", name, CONVERTERS))
    module, _, attribute = CONVERTERS[name].partition(":")
    converter: type[Converter] = getattr(import_module(module), attribute)
    return converter
