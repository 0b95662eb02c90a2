"""Any tables: interactions, items and users of one's own shop or newsroom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert.base import Converter, Item, Place, SourceText, User, located
from recbole_xling.convert.filters import parse_time
from recbole_xling.convert.mapping import Feature, read_mapping
from recbole_xling.convert.read.records import Batches, open_table
from recbole_xling.convert.read.rejects import Rejects
from recbole_xling.convert.read.table import LINE, Column
from recbole_xling.text.record import DISPLAY, UNDETERMINED


class TableConverter(Converter):
    """Tables with one row per interaction, item and user; which column means what, the user says.

    Without a file of items the catalogue is made of the items that occur, without texts.

    Args:
        input: file of the interactions.
        mapping: YAML file with any of the settings.
        settings: as in :class:`~recbole_xling.convert.mapping.TableMapping`; they go before those of the file.

    Raises:
        ConfigError: a setting is unknown or malformed.
    """

    name = "table"
    layout = """a file of interactions (--input) and perhaps one of items (--items) and one of users (--users), each of
  .csv                       cells separated by commas, quoted with " where needed; the first line names the columns
  .tsv, .txt                 cells separated by tabs, never quoted; the first line names the columns
  .jsonl, .ndjson, .json     one JSON object per line
  .parquet, .pq
all but Parquet may be compressed (.gz, .zst, .zip). A file given by --mapping holds the same settings as YAML:
  user: customer
  items: products.csv
  text: {title: name, description: desc}"""

    def __init__(self, *, input: str | Path | None = None, mapping: str | Path | None = None, **settings: Any) -> None:
        self.mapping = read_mapping(None if mapping is None else Path(mapping), settings | {"input": input})
        super().__init__(input=self.mapping.input)
        self.item_fields = {name: feature.kind for name, feature in self.mapping.item_features.items()}
        self.user_fields = {name: feature.kind for name, feature in self.mapping.user_features.items()}

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare the settings as options."""
        parser.add_argument("--mapping", metavar="FILE", help="YAML file of the settings below; options go before it")
        for name, metavar, explanation in _OPTIONS:
            parser.add_argument(f"--{name}", metavar=metavar, help=explanation)
        in_order = "interactions without times are in order of time; their number becomes the time stamp"
        parser.add_argument("--in-order", action="store_true", default=None, help=in_order)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the interactions; dates become Unix seconds, numbers stay as they are."""
        mapping = self.mapping
        wanted = {"user_id": mapping.user, "item_id": mapping.item, "rating": mapping.rating, "timestamp": mapping.time}
        columns = {
            name: Column(meaning, "number" if meaning == "rating" else "text")
            for meaning, name in wanted.items()
            if name is not None
        }
        before = 0
        for frame in located(self._open(mapping.input, columns, rejects)):
            if mapping.time is not None:
                frame = self._with_times(frame, rejects)
            elif mapping.in_order:
                order = pl.int_range(before + 1, before + 1 + frame.height, dtype=pl.Int64, eager=True)
                frame = frame.with_columns(order.cast(pl.Float64).alias("timestamp"))
            before += frame.height
            yield frame

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the items of the file, or else those that occur, in the order in which they first do."""
        mapping = self.mapping
        if mapping.items is None:
            seen: dict[str, None] = {}
            for frame in self._open(mapping.input, {mapping.item: Column("item_id")}, rejects):
                seen.update(dict.fromkeys(frame["item_id"].unique(maintain_order=True)))
            yield from (Item(item_id, UNDETERMINED) for item_id in seen)
            return
        for row, place in self._rows(mapping.items, self._item_id, self._item_columns, rejects):
            language = row[mapping.language] if mapping.language else None
            features = _features(row, mapping.item_features)
            yield Item(row[self._item_id] or "", language or UNDETERMINED, features, place)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users of the file, if there is one."""
        mapping = self.mapping
        if mapping.users is not None:
            user_id = mapping.user_id or mapping.user
            columns = [feature.column for feature in mapping.user_features.values()]
            for row, place in self._rows(mapping.users, user_id, columns, rejects):
                yield User(row[user_id] or "", _features(row, mapping.user_features), place)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield a display text per item, of the parts that are not empty."""
        mapping = self.mapping
        if mapping.items is not None and mapping.text:
            for row, place in self._rows(mapping.items, self._item_id, self._item_columns, rejects):
                language = row[mapping.language] if mapping.language else None
                fields = {name: row[column] or "" for name, column in mapping.text.items()}
                yield SourceText(row[self._item_id] or "", language or UNDETERMINED, fields, DISPLAY, place)

    def notes(self) -> Iterator[str]:
        """Yield what RecBole's models will miss."""
        if self.mapping.in_order:
            yield "no times in the source: the number of the row is the time stamp"
        elif self.mapping.time is None:
            yield "no times: sequential models need a column of times (--time), or rows in order of time (--in-order)"
        if not self.mapping.text:
            yield "no texts: name their columns with --items and --text"

    @property
    def _item_id(self) -> str:
        return self.mapping.item_id or self.mapping.item

    @property
    def _item_columns(self) -> list[str]:
        mapping = self.mapping
        features = [feature.column for feature in mapping.item_features.values()]
        return [*([mapping.language] if mapping.language else []), *mapping.text.values(), *features]

    def _open(self, path: Path, columns: Mapping[str, Column], rejects: Rejects) -> Batches:
        return open_table(path, columns, rejects, separator=self.mapping.separator, encoding=self.mapping.encoding)

    def _rows(
        self, path: Path, id_column: str, others: list[str], rejects: Rejects
    ) -> Iterator[tuple[dict[str, str | None], Place]]:
        """Yield the cells by column, and the place, of each row of a table."""
        names = list(dict.fromkeys([id_column, *others]))
        columns = {name: Column(f"cell {name}", required=name == id_column) for name in names}
        for frame in self._open(path, columns, rejects):
            lines = frame[LINE]
            cells = frame.select(column.name for column in columns.values())
            for line, row in zip(lines, cells.iter_rows(), strict=True):
                yield dict(zip(names, row, strict=True)), Place(str(path), line)

    def _with_times(self, frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
        """Make numbers of the texts in the column of times; rows where that cannot be done are bad."""
        texts = frame["timestamp"]
        times = texts.cast(pl.Float64, strict=False)
        if times.null_count():
            unique = texts.unique().to_list()
            times = texts.replace_strict(unique, [parse_time(text) for text in unique], return_dtype=pl.Float64)
        reason = f"neither a number nor an ISO date in column '{self.mapping.time}'"
        for row in frame.filter(times.is_null()).iter_rows(named=True):
            rejects.add(self.mapping.input, row[LINE], reason, f"{row['user_id']} {row['item_id']} {row['timestamp']}")
        return frame.with_columns(times.alias("timestamp")).filter(times.is_not_null())


_OPTIONS = (
    ("user", "COLUMN", "column of user ids in the interactions (default: user_id)"),
    ("item", "COLUMN", "column of item ids in the interactions (default: item_id)"),
    ("rating", "COLUMN", "column of ratings"),
    ("time", "COLUMN", "column of times: numbers, or ISO dates and times (UTC where they name no zone)"),
    ("items", "FILE", "file of the items"),
    ("item-id", "COLUMN", "column of ids in the items (default: that of --item)"),
    ("language", "COLUMN", "column of language tags in the items"),
    ("text", "PARTS", "columns of text in the items: title=name,description=desc"),
    (
        "item-features",
        "PARTS",
        "further columns for the .item file: brand=maker,price=eur:float; the types are token (default), token_seq "
        "(elements with spaces between) and float",
    ),
    ("users", "FILE", "file of the users"),
    ("user-id", "COLUMN", "column of ids in the users (default: that of --user)"),
    ("user-features", "PARTS", "further columns for the .user file, written like --item-features"),
    ("separator", "CHARACTER", "between cells of .csv, .tsv and .txt"),
    ("encoding", "NAME", "of .csv, .tsv and .txt (default: utf-8)"),
)


def _features(row: Mapping[str, str | None], features: Mapping[str, Feature]) -> dict[str, str | tuple[str, ...]]:
    """Return the features in a row; the elements of a sequence are separated by spaces."""
    cells = {name: (row[feature.column] or "", feature.kind) for name, feature in features.items()}
    return {name: tuple(cell.split()) if kind == "token_seq" else cell for name, (cell, kind) in cells.items()}
