"""Any tables: interactions, items and users of one's own shop or newsroom."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, chance_order, located
from recbole_xling.convert.cells import bad_ids
from recbole_xling.convert.reading.numbers import written_number
from recbole_xling.convert.reading.open_table import Batches, open_table, table_files
from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.convert.reading.text_table import Column
from recbole_xling.convert.sources.table_conditions import Condition
from recbole_xling.convert.sources.table_mapping import Feature, read_mapping
from recbole_xling.errors import DataError
from recbole_xling.language.tags import UNDETERMINED, stated_language
from recbole_xling.text.record import DISPLAY, PARALLEL
from recbole_xling.utils.arguments import FINER_THAN_MICROSECONDS, parse_iso_time

_OPTIONS = (
    ("user", "COLUMN", "column of user ids in the interactions (default: user_id)"),
    ("item", "COLUMN", "column of item ids in the interactions (default: item_id)"),
    ("rating", "COLUMN", "column of ratings"),
    ("time", "COLUMN", "column of times: numbers, or ISO dates and times (UTC where they name no zone)"),
    (
        "interaction-features",
        "PARTS",
        "further columns for the .inter file: event,weight=quantity:float; the types are token (default), token_seq "
        "(elements with spaces between) and float",
    ),
    ("items", "FILE", "file of the items"),
    ("item-id", "COLUMN", "column of ids in the items (default: that of --item)"),
    ("language", "COLUMN", "column of language tags in the items"),
    (
        "text",
        "PARTS",
        "columns of text in the items: title=name,description=desc; with languages, title:de=name_de,title:fr=name_fr, "
        "an item has a text in each, and is shown in that of --language or the first",
    ),
    ("item-features", "PARTS", "further columns for the .item file, written like --interaction-features"),
    ("users", "FILE", "file of the users"),
    ("user-id", "COLUMN", "column of ids in the users (default: that of --user)"),
    ("user-features", "PARTS", "further columns for the .user file, written like --interaction-features"),
    ("separator", "CHARACTER", "between cells of .csv, .tsv, .txt and .dat"),
    ("encoding", "NAME", "of .csv, .tsv, .txt and .dat (default: utf-8)"),
)
_FLAGS = (
    ("in-order", "interactions without times are in order of time; their number becomes the time stamp"),
    ("random-order", "interactions are in no order of time; a hash of user and item becomes the time stamp"),
    ("no-header", "the first line of .csv, .tsv, .txt and .dat is a row: columns are called 1, 2, ..."),
)
_SHOWN = 10  # values of a column in a message
_NUMBER, _DATE = "time as a number", "time as a date"  # no names of features, which have no spaces


class TableConverter(Converter):
    """Tables with one row per interaction, item and user; the user says which column means what.

    Without a file of items the catalog is made of the items that occur, without texts.

    Args:
        input: file of the interactions, or a folder of shards.
        mapping: YAML file with any of the settings.
        settings: as in :class:`~recbole_xling.convert.sources.table_mapping.TableMapping`; they go before those of the
            file.

    Raises:
        ConfigError: a setting is unknown or malformed.
    """

    name = "table"
    layout = """a file of interactions (--input) and perhaps one of items (--items) and one of users (--users), each of
  .csv                       cells separated by commas, quoted with " where needed; the first line names the columns
  .tsv, .txt                 cells separated by tabs, never quoted; the first line names the columns
  .dat                       the same, or cells separated by ::
  .jsonl, .ndjson, .json     one JSON object per line
  .parquet, .pq
or a folder of such files, which are read in the order of their names; all but Parquet may be compressed (.gz, .xz,
.bz2, .zst, .zip). A file given by --mapping has the same settings as YAML:
  user: customer
  items: products.csv
  text: {title: name, description: desc}"""

    def __init__(self, *, input: str | Path | None = None, mapping: str | Path | None = None, **settings: Any) -> None:
        self.mapping = read_mapping(None if mapping is None else Path(mapping), settings | {"input": input})
        super().__init__(input=self.mapping.input)
        self.item_fields = _kinds(self.mapping.item_features)
        self.user_fields = _kinds(self.mapping.user_features)
        self.interaction_fields = _kinds(self.mapping.interaction_features)
        self.arbitrary_order = self.mapping.random_order
        self._removed: Counter[str] = Counter()  # rows by condition
        self._met: dict[str, dict[str, None]] = {}  # the first values of columns with a condition
        self._unmet: dict[tuple[str, str], None] = {}  # columns and values that no row has had yet
        self._shown_otherwise = 0  # items without a text in their language
        self._rounded = 0  # time stamps with more digits than a float holds
        self._has_dates: bool | None = None  # whether the times are dates, None before the first one

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare the settings as options."""
        parser.add_argument("--mapping", metavar="FILE", help="YAML file of the settings below; options go before it")
        for name, metavar, explanation in _OPTIONS:
            parser.add_argument(f"--{name}", metavar=metavar, help=explanation)
        for name, explanation in _FLAGS:
            parser.add_argument(f"--{name}", action="store_true", default=None, help=explanation)
        where = (
            "read only rows of the interactions for which this holds, and so on if it is given again: "
            "event=purchase,cart or market!=uk or 'stars>=4'"
        )
        parser.add_argument("--where", action="append", metavar="CONDITION", help=where)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the interactions; dates become Unix seconds, numbers stay as they are."""
        mapping, before = self.mapping, 0
        for frame in self._usable(rejects):
            if mapping.in_order:
                order = pl.int_range(before + 1, before + 1 + frame.height, dtype=pl.Int64, eager=True)
                frame = frame.with_columns(order.cast(pl.Float64).alias("timestamp"))
            elif mapping.random_order:
                frame = frame.with_columns(chance_order(frame))
            before += frame.height
            meanings = [name for name in ("user_id", "item_id", "rating", "timestamp") if name in frame.columns]
            features = [
                self._text_of(feature.column).alias(name) for name, feature in mapping.interaction_features.items()
            ]
            yield frame.select(*meanings, *features, FILE, LINE)

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the items of the file, or else those that occur, in the order in which they first do."""
        mapping = self.mapping
        if mapping.items is None:
            seen: dict[str, None] = {}
            for frame in self._usable(rejects):
                good = frame.filter(bad_ids("item_id").is_null())  # a bad one is listed with its interaction
                seen.update(dict.fromkeys(good["item_id"].unique(maintain_order=True)))
            yield from (Item(item_id, UNDETERMINED) for item_id in seen)
            return
        self._shown_otherwise = 0
        for row, location in self._items(rejects):
            language, _ = self._texts_of(row)
            if mapping.language:
                stated = stated_language(row[mapping.language] or "")
                self._shown_otherwise += stated not in (stated_language(language), UNDETERMINED)
            yield Item(row[self._item_id] or "", language, _features(row, mapping.item_features), location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users of the file, if there is one."""
        mapping = self.mapping
        if mapping.users is not None:
            user_id = mapping.user_id or mapping.user
            hints = {user_id: "--user-id names the column of ids in the users; without it --user does in both files"}
            hints = {feature.column: "--user-features names it" for feature in mapping.user_features.values()} | hints
            for row, location in self._rows(mapping.users, user_id, hints, rejects):
                yield User(row[user_id] or "", _features(row, mapping.user_features), location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield the texts of each item, of the parts that are not empty: the display text, then parallel ones."""
        if self.mapping.items is not None and self.mapping.text:
            for row, location in self._items(rejects):
                shown, texts = self._texts_of(row)
                for language, fields in texts.items():
                    source = DISPLAY if language == shown else PARALLEL
                    yield SourceText(row[self._item_id] or "", language, fields, source, location)

    def notes(self) -> Iterator[str]:
        """Yield what the conditions did, and what RecBole's models will miss."""
        for condition, number in self._removed.items():
            yield f"--where {condition} took out {number} rows"
        for column, value in self._unmet:
            yield f"--where: no row has '{value}' as {column}, which has {', '.join(self._met[column])}"
        if self._shown_otherwise:
            yield (
                f"{self._shown_otherwise} items have no text in the language that {self.mapping.language} states, so "
                "they are shown, and counted, in that of their first text"
            )
        if self._rounded:
            yield (
                f"{self._rounded} time stamps have more digits than a number in an atomic file (nanoseconds?), "
                "so they are rounded; rows that then have equal ones keep the order of the file"
            )
        if self.mapping.in_order:
            yield "no times in the source: the number of the row is the time stamp"
        elif self.mapping.random_order:
            yield (
                "no times in the source: the time stamp is a hash of user and item, so what comes last is left to "
                "chance, the same on every machine"
            )
        elif self.mapping.time is None:
            yield (
                "no times: sequential models need a column of times (--time), rows in order of time (--in-order), or "
                "an order by chance (--random-order)"
            )
        if not self.mapping.text:
            yield "no texts: name their columns with --items and --text"

    # ---- interactions -----------------------------------------------------------------------------------------

    def _usable(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the rows of :meth:`_interactions`; where they have times, those whose time can be read."""
        self._has_dates, self._rounded = None, 0
        for frame in self._interactions(rejects):
            yield frame if self.mapping.time is None else self._timed(frame, rejects)

    def _interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the rows for which the conditions hold, with a column for each of the file that has a use.

        Raises:
            DataError: the conditions hold for none.
        """
        mapping = self.mapping
        hints = {condition.column: "--where names it" for condition in mapping.where}
        hints |= {
            feature.column: "--interaction-features names it" for feature in mapping.interaction_features.values()
        }
        columns = {name: Column(self._name_of(name), required=False, hint=hint) for name, hint in hints.items()}
        header = "; --no-header is for a first line that is a row"
        columns[mapping.user] = Column("user_id", hint=f"--user names the column of user ids{header}")
        columns[mapping.item] = Column("item_id", hint=f"--item names the column of item ids{header}")
        if mapping.rating is not None:
            columns[mapping.rating] = Column("rating", "number", hint="--rating names the column of ratings")
        if mapping.time is not None:
            columns[mapping.time] = Column(self._name_of(mapping.time), hint="--time names the column of times")
        self._removed = Counter({str(condition): 0 for condition in mapping.where})
        self._met = {condition.column: {} for condition in mapping.where}
        self._unmet = dict.fromkeys(
            (c.column, value) for c in mapping.where if not c.compares_numbers for value in self._values_of(c)
        )
        left = 0
        for table in self._open(mapping.input, columns, rejects):
            for frame in located(table):
                kept = self._kept(frame, rejects)
                left += kept.height
                yield kept
        if mapping.where and not left:
            met = "; ".join(f"'{column}' has {', '.join(values)}" for column, values in self._met.items())
            conditions = " --where ".join(map(str, mapping.where))
            raise DataError(f"{mapping.input}: no row is left by --where {conditions}: {met}")

    def _name_of(self, column: str) -> str:
        """Return the name in frames of a column of the interactions."""
        mapping = self.mapping
        named = {mapping.user: "user_id", mapping.item: "item_id", mapping.rating: "rating"}
        return named.get(column, f"cell {column}")

    def _text_of(self, column: str) -> pl.Expr:
        """Return the texts of a column of the interactions, also of that of the ratings, which are numbers."""
        texts = pl.col(self._name_of(column)).cast(pl.String)
        return texts.str.strip_suffix(".0") if column == self.mapping.rating else texts

    def _values_of(self, condition: Condition) -> tuple[str, ...]:
        """Return a condition's values, numbers among those of ratings as :meth:`_text_of` writes them."""
        if condition.column != self.mapping.rating:
            return condition.values
        numbers = pl.Series("rating", [written_number(value) for value in condition.values], pl.Float64)
        texts = numbers.to_frame().select(self._text_of(condition.column)).to_series()
        return tuple(value if text is None else text for value, text in zip(condition.values, texts, strict=True))

    def _kept(self, frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
        """Return the rows for which the conditions hold."""
        for condition in self.mapping.where:
            cells = self._text_of(condition.column)
            values = frame.select(cells.fill_null("")).to_series().unique(maintain_order=True)
            for value in values.head(_SHOWN):
                if len(self._met[condition.column]) < _SHOWN:
                    self._met[condition.column][value or "(nothing)"] = None
            wanted = self._values_of(condition)
            for value in values.filter(values.is_in(list(wanted))):
                self._unmet.pop((condition.column, value), None)
            if condition.compares_numbers:
                is_number = cells.cast(pl.Float64, strict=False).is_finite().fill_null(False)
                no_number = pl.lit(f"no number in column '{condition.column}'")
                reason = pl.when(cells.is_not_null() & ~is_number).then(no_number)
                frame = rejects.sift(frame, [reason], lambda row: f"{row['user_id']} {row['item_id']}")
            kept = frame.filter(condition._replace(values=wanted).holds(cells))
            self._removed[str(condition)] += frame.height - kept.height
            frame = kept
        return frame

    def _timed(self, frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
        """Return the rows whose time can be read and is of the kind of the others, with it as a number.

        The first batch tells whether the times are numbers or dates: nobody knows the unit of the numbers, and a date
        among milliseconds would come before all of them.
        """
        column = self.mapping.time
        assert column is not None
        texts = frame[self._name_of(column)]
        numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
        numbers = numbers.set(~numbers.is_finite(), None)
        others = texts.filter(numbers.is_null()).unique().to_list()
        dates = texts.replace_strict(
            others, [parse_iso_time(text) for text in others], default=None, return_dtype=pl.Float64
        )
        if self._has_dates is None and numbers.count() + dates.count():
            self._has_dates = dates.count() > numbers.count()
        number, date = pl.col(_NUMBER), pl.col(_DATE)
        neither = f"neither a number nor an ISO date in column '{column}'"
        if self._has_dates:
            other = pl.when(number.is_not_null()).then(pl.lit(f"a number where others are dates in column '{column}'"))
        else:
            other = pl.when(date.is_not_null()).then(pl.lit(f"a date where others are numbers in column '{column}'"))
        good = rejects.sift(
            frame.with_columns(numbers.alias(_NUMBER), dates.alias(_DATE)),
            [pl.when(number.is_null() & date.is_null()).then(pl.lit(neither)), other],
            lambda row: f"{row['user_id']} {row['item_id']} {row[self._name_of(column)]}",
        )
        cells = good[self._name_of(column)]
        self._rounded += int((cells.cast(pl.Int64, strict=False) != good[_NUMBER].cast(pl.Int64, strict=False)).sum())
        if self._has_dates:
            self._rounded += int(cells.str.contains(FINER_THAN_MICROSECONDS).sum())
        return good.with_columns(pl.coalesce(_NUMBER, _DATE).alias("timestamp"))

    # ---- items and texts --------------------------------------------------------------------------------------

    @property
    def _item_id(self) -> str:
        return self.mapping.item_id or self.mapping.item

    def _items(self, rejects: Rejects) -> Iterator[tuple[dict[str, str | None], SourceLocation]]:
        mapping = self.mapping
        assert mapping.items is not None
        hints = {feature.column: "--item-features names it" for feature in mapping.item_features.values()}
        hints |= {part.column: "--text names it" for part in mapping.text}
        if mapping.language is not None:
            hint = "--language names the column of languages"
            if stated_language(mapping.language) != UNDETERMINED:
                hint += f"; if all texts are in one language, write --text title:{mapping.language}=COLUMN"
            hints[mapping.language] = hint
        hints[self._item_id] = "--item-id names the column of ids in the items; without it --item does in both files"
        return self._rows(mapping.items, self._item_id, hints, rejects)

    def _texts_of(self, row: Mapping[str, str | None]) -> tuple[str, dict[str, dict[str, str]]]:
        """Return the language that an item is shown in, and its texts by language, this one first.

        Parts whose language is not told belong to the text in the language of ``language``, or, without that, to all.
        """
        mapping = self.mapping
        stated = row[mapping.language] if mapping.language else None
        plain = {part.name: row[part.column] or "" for part in mapping.text if part.language is None}
        if not mapping.text_languages:
            return stated or UNDETERMINED, {stated or UNDETERMINED: plain}
        texts = {}
        for language in mapping.text_languages:
            own = {part.name: row[part.column] or "" for part in mapping.text if part.language == language}
            if any(own.values()):
                texts[language] = own if mapping.language else _filled(plain, own)
        shown = next(iter(texts), mapping.text_languages[0] if len(mapping.text_languages) == 1 else UNDETERMINED)
        if mapping.language:
            main = stated_language(stated or "")
            if any(plain.values()) or main in texts or not texts:
                own = texts.pop(main, {})
                shown = stated if stated and main == UNDETERMINED else main
                texts = {shown: _filled(plain, own)} | texts
        return shown, texts or {shown: plain}

    # ---- tables -----------------------------------------------------------------------------------------------

    def _open(self, path: Path, columns: Mapping[str, Column], rejects: Rejects) -> Iterator[Batches]:
        """Yield the table of a file, or those of a folder of shards."""
        mapping = self.mapping
        layout: dict[str, Any] = {"separator": mapping.separator, "encoding": mapping.encoding}
        for file in table_files(path):
            yield open_table(file, columns, rejects, numbered=mapping.no_header, **layout)

    def _rows(
        self, path: Path, id_column: str, hints: Mapping[str, str], rejects: Rejects
    ) -> Iterator[tuple[dict[str, str | None], SourceLocation]]:
        """Yield the rows of a table one by one: cells by column of the file, and where the row comes from.

        Args:
            path: the file, or a folder of shards.
            id_column: the column that every row needs.
            hints: the wanted columns, that one included, with a sentence for the message if the file lacks one.
            rejects: takes the bad rows.
        """
        columns = {name: Column(f"cell {name}", required=name == id_column, hint=hint) for name, hint in hints.items()}
        for table in self._open(path, columns, rejects):
            for frame in table:
                cells = frame.select(column.name for column in columns.values())
                for line, row in zip(frame[LINE], cells.iter_rows(), strict=True):
                    yield dict(zip(columns, row, strict=True)), SourceLocation(str(table.path), line)


def _kinds(features: Mapping[str, Feature]) -> dict[str, str]:
    return {name: feature.kind for name, feature in features.items()}


def _filled(common: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of all languages with those of one language in their place, where these are not empty."""
    return {**common, **{name: part for name, part in own.items() if part or name not in common}}


def _features(row: Mapping[str, str | None], features: Mapping[str, Feature]) -> dict[str, str | tuple[str, ...]]:
    """Return the features in a row; the elements of a sequence are separated by spaces."""
    cells = {name: (row[feature.column] or "", feature.kind) for name, feature in features.items()}
    return {name: tuple(cell.split()) if kind == "token_seq" else cell for name, (cell, kind) in cells.items()}
