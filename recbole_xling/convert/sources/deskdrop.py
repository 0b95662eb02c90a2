"""CI&T DeskDrop [1]: what a company's employees did with articles that colleagues shared, in English and Portuguese.

[1] Moreira: Articles sharing and reading from CI&T DeskDrop. Kaggle, 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, located, located_rows
from recbole_xling.convert.reading.compressed import expected_file, find_file
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column, TextTable
from recbole_xling.text.record import DISPLAY

_EVENTS = "users_interactions.csv"
_ARTICLES = ("articles.csv", "shared_articles.csv")
_EVENT_COLUMNS = {
    "timestamp": Column("timestamp", "number"),
    "eventType": Column("event"),
    "contentId": Column("item_id"),
    "personId": Column("user_id"),
}
_ARTICLE_COLUMNS = {
    "eventType": Column("event", required=False),
    "contentId": Column("item_id"),
    "title": Column("title", required=False),
    "text": Column("text", required=False),
    "lang": Column("language", required=False),
}
_REMOVED = "CONTENT REMOVED"

WEIGHTS = {"DISLIKE": 0.0, "VIEW": 1.0, "LIKE": 2.0, "BOOKMARK": 2.5, "FOLLOW": 3.0, "COMMENT CREATED": 4.0}
"""The rating of each kind of event: the weights of [1], where a dislike has none."""


class DeskDrop(Converter):
    """DeskDrop as published, or with a part of its articles.

    The rating of an interaction is the weight of its event. Articles that were removed stay, because they were read;
    of several rows of an article the first that shares it counts.

    Args:
        input: the folder of the files.

    Raises:
        ConfigError: ``input`` is not given.
        DataError: a file is missing.
    """

    name = "deskdrop"
    layout = """a folder of
  users_interactions.csv                   timestamp, eventType, contentId, personId
  articles.csv or shared_articles.csv      contentId, title, text, lang; eventType may be missing
each may be compressed (.gz, .xz, .bz2, .zst, .zip)"""
    interaction_fields = {"event": "token"}

    def __init__(self, *, input: str | Path | None = None) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input(f"the folder of {_EVENTS} and {_ARTICLES[0]}")
        self._left_out = self._unweighted = 0

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the events with articles that have a text, each with its weight."""
        listed = [item for item, *_ in self._articles(rejects)]
        self._left_out = self._unweighted = 0
        for frame in located(TextTable(expected_file(self.folder, _EVENTS), _EVENT_COLUMNS, rejects)):
            kept = frame.filter(pl.col("item_id").is_in(listed))
            self._left_out += frame.height - kept.height
            self._unweighted += int((~kept["event"].is_in(list(WEIGHTS))).sum())
            weight = pl.col("event").replace_strict(WEIGHTS, default=1.0, return_dtype=pl.Float64)
            yield kept.with_columns(weight.alias("rating"), pl.col("event").str.replace_all(" ", "_"))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the articles."""
        for item_id, row, location in self._articles(rejects):
            yield Item(item_id, row["language"] or "", location=location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield title and text of each article."""
        for item_id, row, location in self._articles(rejects):
            fields = {name: row[name] for name in ("title", "text") if row[name]}
            yield SourceText(item_id, row["language"] or "", fields, DISPLAY, location)

    def notes(self) -> Iterator[str]:
        """Yield what was left out."""
        yield f"{self._left_out} events with articles that {self._articles_file.name} does not have are left out"
        if self._unweighted:
            yield f"{self._unweighted} events of a kind without a weight count as views"

    @property
    def _articles_file(self) -> Path:
        found = (find_file(self.folder, name) for name in _ARTICLES)
        return next((path for path in found if path is not None), self.folder / _ARTICLES[0])

    def _articles(self, rejects: Rejects) -> Iterator[tuple[str, dict[str, Any], SourceLocation]]:
        """Yield the articles, each once, without rows that tell that one was removed."""
        seen = set()
        for row, location in located_rows(TextTable(self._articles_file, _ARTICLE_COLUMNS, rejects)):
            if row["event"] != _REMOVED and row["item_id"] not in seen:
                seen.add(row["item_id"])
                yield row["item_id"], row, location
