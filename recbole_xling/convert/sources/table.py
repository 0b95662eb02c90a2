"""Any tables: interactions, items and users of one's own shop or newsroom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, located
from recbole_xling.convert.cells import FIELD_TYPES
from recbole_xling.convert.reading.open_table import Batches, open_table
from recbole_xling.convert.reading.rejects import LINE, Rejects
from recbole_xling.convert.reading.text_table import Column
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.text.record import DISPLAY
from recbole_xling.utils.arguments import parse_time

_FILES = ("input", "items", "users")


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


class TableConverter(Converter):
    """Tables with one row per interaction, item and user; the user says which column means what.

    Without a file of items the catalog is made of the items that occur, without texts.

    Args:
        input: file of the interactions.
        mapping: YAML file with any of the settings.
        settings: as in :class:`~recbole_xling.convert.sources.table.TableMapping`; they go before those of the file.

    Raises:
        ConfigError: a setting is unknown or malformed.
    """

    name = "table"
    layout = """a file of interactions (--input) and perhaps one of items (--items) and one of users (--users), each of
  .csv                       cells separated by commas, quoted with " where needed; the first line names the columns
  .tsv, .txt                 cells separated by tabs, never quoted; the first line names the columns
  .jsonl, .ndjson, .json     one JSON object per line
  .parquet, .pq
all but Parquet may be compressed (.gz, .zst, .zip). A file given by --mapping has the same settings as YAML:
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
                texts = frame["timestamp"]
                times = texts.cast(pl.Float64, strict=False)
                if times.null_count():
                    unique = texts.unique().to_list()
                    times = texts.replace_strict(unique, [parse_time(text) for text in unique], return_dtype=pl.Float64)
                reason = f"neither a number nor an ISO date in column '{mapping.time}'"
                frame = rejects.sift(
                    frame.with_columns(times.alias("number")),
                    [pl.when(pl.col("number").is_null()).then(pl.lit(reason))],
                    lambda row: f"{row['user_id']} {row['item_id']} {row['timestamp']}",
                )
                frame = frame.drop("timestamp").rename({"number": "timestamp"})
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
        for row, location in self._rows(mapping.items, self._item_id, self._item_columns, rejects):
            language = row[mapping.language] if mapping.language else None
            features = _features(row, mapping.item_features)
            yield Item(row[self._item_id] or "", language or UNDETERMINED, features, location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users of the file, if there is one."""
        mapping = self.mapping
        if mapping.users is not None:
            user_id = mapping.user_id or mapping.user
            columns = [feature.column for feature in mapping.user_features.values()]
            for row, location in self._rows(mapping.users, user_id, columns, rejects):
                yield User(row[user_id] or "", _features(row, mapping.user_features), location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield a display text per item, of the parts that are not empty."""
        mapping = self.mapping
        if mapping.items is not None and mapping.text:
            for row, location in self._rows(mapping.items, self._item_id, self._item_columns, rejects):
                language = row[mapping.language] if mapping.language else None
                fields = {name: row[column] or "" for name, column in mapping.text.items()}
                yield SourceText(row[self._item_id] or "", language or UNDETERMINED, fields, DISPLAY, location)

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
    ) -> Iterator[tuple[dict[str, str | None], SourceLocation]]:
        """Yield the rows of a table one by one: cells by column of the file, and where the row comes from."""
        names = list(dict.fromkeys([id_column, *others]))
        columns = {name: Column(f"cell {name}", required=name == id_column) for name in names}
        for frame in self._open(path, columns, rejects):
            lines = frame[LINE]
            cells = frame.select(column.name for column in columns.values())
            for line, row in zip(lines, cells.iter_rows(), strict=True):
                yield dict(zip(names, row, strict=True)), SourceLocation(str(path), line)


def _features(row: Mapping[str, str | None], features: Mapping[str, Feature]) -> dict[str, str | tuple[str, ...]]:
    """Return the features in a row; the elements of a sequence are separated by spaces."""
    cells = {name: (row[feature.column] or "", feature.kind) for name, feature in features.items()}
    return {name: tuple(cell.split()) if kind == "token_seq" else cell for name, (cell, kind) in cells.items()}


# ---- the mapping ------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    """A feature: the column it is in, and its type (``token``, ``token_seq``, ``float``)."""

    column: str
    kind: str = "token"


@dataclass(frozen=True, slots=True)
class TableMapping:
    """The files, and the names of their columns.

    Attributes:
        input: file of the interactions.
        user: its column of user ids.
        item: its column of item ids.
        rating: its column of ratings.
        time: its column of times: numbers, or ISO dates and times.
        in_order: the interactions are in order of time; their number becomes the time stamp.
        items: file of the items.
        item_id: its column of ids; None for the name of ``item``.
        language: its column of language tags.
        text: its columns of text by the name of the part: ``{"title": "name"}``.
        item_features: further columns for the ``.item`` file, by their names there.
        users: file of the users.
        user_id: its column of ids; None for the name of ``user``.
        user_features: further columns for the ``.user`` file, by their names there.
        separator: between cells of text tables.
        encoding: of text tables.

    Raises:
        ConfigError: two settings contradict each other, or one lacks its file.
    """

    input: Path
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    time: str | None = None
    in_order: bool = False
    items: Path | None = None
    item_id: str | None = None
    language: str | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    item_features: Mapping[str, Feature] = field(default_factory=dict)
    users: Path | None = None
    user_id: str | None = None
    user_features: Mapping[str, Feature] = field(default_factory=dict)
    separator: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        columns = [name for name in (self.user, self.item, self.rating, self.time) if name is not None]
        if len(set(columns)) < len(columns):
            raise ConfigError(f"user, item, rating and time are columns of their own, not {', '.join(columns)}")
        if self.in_order and self.time is not None:
            raise ConfigError("a table has either a column of times or is in order, not both")
        if self.items is None and (self.language or self.text or self.item_features):
            raise ConfigError("language, text and item_features are columns of a file of items; name it with --items")
        if self.users is None and self.user_features:
            raise ConfigError("user_features are columns of a file of users; name it with --users")


def read_mapping(path: Path | None, settings: Mapping[str, Any]) -> TableMapping:
    """Return the mapping of a YAML file, None for no file, with ``settings`` in place of what it says.

    The keys of the file are the attributes of :class:`TableMapping`; its paths are relative to it. A feature is
    written ``column`` or ``column:type``, several names in a flag as ``name=column,name=column``.

    Raises:
        ConfigError: a key is unknown or a value malformed.
    """
    merged: dict[str, Any] = {} if path is None else _read_yaml(path)
    merged |= {name: value for name, value in settings.items() if value is not None}
    known = [option.name for option in fields(TableMapping)]
    unknown = next((name for name in merged if name not in known), None)
    if unknown is not None:
        raise ConfigError(unknown_name("setting of a table", unknown, known))
    if "input" not in merged:
        raise ConfigError("table needs --input, the file of interactions")
    for option in ("item_features", "user_features"):
        if option in merged:
            features = {}
            for name, value in _names(option, merged[option]).items():
                column, colon, kind = value.rpartition(":")
                features[name] = Feature(column, kind) if colon else Feature(value)
                if features[name].kind not in FIELD_TYPES:
                    raise ConfigError(f"{option}: {value!r} has no known type; it is one of {', '.join(FIELD_TYPES)}")
            merged[option] = features
    if "text" in merged:
        merged["text"] = _names("text", merged["text"])
    merged |= {name: Path(merged[name]) for name in _FILES if name in merged}
    for name, value in merged.items():
        if not isinstance(value, (str, Path, dict)) and name != "in_order":
            raise ConfigError(f"{name} of a table must be a name, not {value!r}")
    return TableMapping(**merged)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must have 'name: value' lines, such as 'user: customer_id'")
    return {key: path.parent / value if key in _FILES else value for key, value in content.items()}


def _names(option: str, value: object) -> dict[str, str]:
    """Return ``title=name,year`` or the same as a dict: name to column, ``year`` for ``year=year``."""
    if isinstance(value, str):
        pairs = (pair.partition("=") for pair in value.split(","))
        value = {name.strip(): (column or name).strip() for name, _, column in pairs}
    if not isinstance(value, Mapping) or not all(
        isinstance(cell, str) and cell for pair in value.items() for cell in pair
    ):
        raise ConfigError(f"{option} of a table is written like title=name,description=desc, not {value!r}")
    return dict(value)
