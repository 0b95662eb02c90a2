"""MIND [1] and what is laid out like it: NeMig [2]; with the translations of xMIND [3].

[1] Wu et al.: MIND: A Large-scale Dataset for News Recommendation. ACL 2020.
[2] Iana et al.: NeMig: A Bilingual News Collection and Knowledge Graph about Migration. INRA 2023.
[3] Iana et al.: MIND Your Language: A Multilingual Dataset for Cross-lingual News Recommendation. SIGIR 2024.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, located_rows
from recbole_xling.convert.reading.compressed import PERHAPS_PACKED, expected_file, find_file
from recbole_xling.convert.reading.open_table import ParquetTable, open_table
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable
from recbole_xling.convert.sources.mind_behaviors import (
    FILE_NAME,
    Edition,
    interactions_of,
    is_timed,
    read_impressions,
    read_readers,
)
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.language.tags import asked_language
from recbole_xling.text.record import DISPLAY, PARALLEL

NEWS = "news.tsv"
_LAYOUT = Layout(
    separator="\t",
    quote=None,
    names=("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities"),
)
_NEWS_COLUMNS = {
    "id": Column("id"),
    "category": Column("category", required=False),
    "subcategory": Column("subcategory", required=False),
    "title": Column("title", required=False),
    "abstract": Column("abstract", required=False),
}
_XMIND_COLUMNS = {
    "nid": Column("id"),
    "title": Column("title", required=False),
    "abstract": Column("abstract", required=False),
}
_XMIND_FILE = re.compile(rf".+\.(parquet(\.gzip)?|(tsv|csv|jsonl){PERHAPS_PACKED})")
_PARTS = ("train", "dev", "valid", "test")  # in order of time


class _News(NamedTuple):
    item_id: str
    language: str
    row: dict[str, str | None]
    location: SourceLocation


class Mind(Converter):
    """MIND, NeMig, or several editions of such news merged into one dataset.

    News that are not in ``news.tsv`` are left out of histories and candidates, and the rows that name them are counted
    as bad ones.

    Each user's history is yielded once, before the clicks of the impressions. The candidates that were not clicked are
    in the impressions only. Category names are features, not text, because they are English in every edition.

    Args:
        input: folder of one edition: ``news.tsv`` and ``behaviors.tsv``, or sub-folders of them.
        language: of the news in ``input``.
        lang: in place of ``input``, pairs of language and folder; all ids begin with the language, as in ``de:news_1``.
        xmind: pairs of language and a table of ``nid``, ``title``, ``abstract`` or a folder of such tables: parallel
            texts of the news in ``input``.

    Raises:
        ConfigError: neither ``input`` nor ``lang`` is given, or what is given does not fit together.
        DataError: a file is missing.
    """

    name = "mind"
    layout = """a folder of
  news.tsv         id, category, subcategory, title, abstract, url, entities of the title, entities of the abstract
  behaviors.tsv    impression id, user, time (11/11/2019 9:05:58 AM, or empty), history (N1 N2), candidates (N3-0 N4-1)
or of sub-folders of these (MINDsmall_train, MINDsmall_dev); cells are separated by tabs, without a line of names.
Each file may be compressed (.gz, .xz, .bz2, .zst, .zip)"""
    item_fields = {"category": "token", "subcategory": "token"}
    user_fields = {"user_language": "token"}

    def __init__(
        self,
        *,
        input: str | Path | None = None,
        language: str = "en",
        lang: Sequence[tuple[str, str | Path]] = (),
        xmind: Sequence[tuple[str, str | Path]] = (),
    ) -> None:
        super().__init__(input=input)
        if (self.input is None) != bool(lang):
            raise ConfigError("mind needs either --input, a folder of one language, or --lang de=DIR for each language")
        if lang and xmind:
            raise ConfigError("xMIND translates the news of MIND: give MIND with --input instead of --lang")
        self.language = language
        self.lang = {tag: Path(folder) for tag, folder in lang}
        self.xmind = {tag: Path(path) for tag, path in xmind}
        for tag in (language, *self.lang, *self.xmind):
            asked_language(tag)
        if len(self.lang) < len(lang) or len(self.xmind) < len(xmind) or (xmind and language in self.xmind):
            raise ConfigError("a language is given twice; name one folder for each")
        self._counts: Counter[str] = Counter()
        self._news_ids: dict[str, pl.DataFrame] = {}
        self._readers: dict[str, pl.DataFrame] = {}

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--language``, ``--lang`` and ``--xmind``."""
        lang = "in place of --input, once for each language: merge these folders; ids begin with the language"
        xmind = "once for each language: a table of nid, title, abstract, or a folder of them: parallel texts"
        parser.add_argument("--language", default="en", metavar="TAG", help="of the news in --input (default: en)")
        parser.add_argument("--lang", action="append", default=[], type=_pair, metavar="TAG=DIR", help=lang)
        parser.add_argument("--xmind", action="append", default=[], type=_pair, metavar="TAG=PATH", help=xmind)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield histories and clicks.

        A click has the time of its impression. The clicks of a history have no times: they get times one second apart,
        the last one a second before the user's first impression.
        """
        self._counts["other histories"] = 0
        for frame in self._impressions(rejects):
            self._counts["other histories"] += int(frame["is_other"].sum())
            yield interactions_of(frame)

    def impressions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield all impressions, also those of which nothing was clicked."""
        self._counts["impressions"] = self._counts["candidates"] = 0
        for every in self._impressions(rejects):
            frame = every.filter(pl.col("item_id").list.len() > 0)
            self._counts["impressions"] += frame.height
            self._counts["candidates"] += int(frame["item_id"].list.len().sum())
            yield frame.select("impression_id", "user_id", "timestamp", "item_id", "label")

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the news with their categories."""
        for news in self._news(rejects):
            features = {name: news.row[name] or "" for name in self.item_fields}
            yield Item(news.item_id, news.language, features, news.location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users with the language of their edition."""
        for edition in self._editions:
            for user_id in self._readers_of(edition, rejects)["user_id"]:
                yield User(user_id, {"user_language": edition.language})

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield title and abstract of all news, then their translations by language."""
        for news in self._news(rejects):
            yield SourceText(news.item_id, news.language, _fields(news.row), DISPLAY, news.location)
        self._counts["unused"] = 0
        for language, path in sorted(self.xmind.items()):
            inside = (file for file in path.rglob("*") if _XMIND_FILE.fullmatch(file.name))
            files = [path] if path.is_file() else sorted(inside)
            if not files:
                raise DataError(f"{path} has no table (.tsv, .csv, .jsonl, .parquet) of nid, title, abstract")
            known = set(self._ids_of(self._editions[0], rejects)["item_id"])
            earlier: set[str] = set()
            for file in files:
                is_published = file.name.endswith(".parquet.gzip")  # Parquet with gzip inside
                here: list[str] = []
                read = ParquetTable if is_published else open_table
                for row, location in located_rows(read(file, _XMIND_COLUMNS, rejects)):
                    if row["id"] in known and row["id"] not in earlier:
                        here.append(row["id"])
                        yield SourceText(row["id"], language, _fields(row), PARALLEL, location)
                    self._counts["unused"] += row["id"] not in known
                earlier.update(here)  # of two texts in one table the writer keeps the first and rejects the second

    def notes(self) -> Iterator[str]:
        """Yield what the impressions are, and what replaces missing times."""
        yield f"the source has {self._counts['impressions']} impressions with {self._counts['candidates']} candidates"
        timed = [edition for edition in self._editions if is_timed(self._readers[edition.language])]
        if timed:
            yield "no times in the histories: they get times one second apart, right before the user's first impression"
        for edition in self._editions:
            if edition not in timed:
                yield f"no times ({edition.language}): the order of the file replaces them: a running number per user"
        if 0 < len(timed) < len(self._editions):
            yield "only some editions have times: time stamps of different languages cannot be compared"
        if self._counts["other histories"]:
            yield f"{self._counts['other histories']} impressions name another history than the first of their user"
        if self._counts["unused"]:
            yield f"{self._counts['unused']} translations are of news that are not in this release"

    @property
    def origin(self) -> str:
        """The folders as messages name them."""
        return super().origin if self.input is not None else ", ".join(str(folder) for folder in self.lang.values())

    @cached_property
    def _editions(self) -> tuple[Edition, ...]:
        if self.input is not None:
            return (Edition(self.language, "", _folders(self.input)),)
        return tuple(Edition(tag, f"{tag}:", _folders(folder)) for tag, folder in self.lang.items())

    def _news(self, rejects: Rejects) -> Iterator[_News]:
        """Yield the news; those of an earlier folder are left out of later ones."""
        for edition in self._editions:
            earlier: set[str] = set()
            for folder in edition.folders:
                here: list[str] = []
                for row, location in located_rows(_news_table(folder, rejects)):
                    if row["id"] not in earlier:
                        here.append(row["id"])
                        yield _News(edition.prefix + row["id"], edition.language, row, location)
                earlier.update(here)  # of two rows in one folder the writer keeps the first and rejects the second

    def _impressions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        for edition in self._editions:
            readers = self._readers_of(edition, rejects)
            yield from read_impressions(edition, self._ids_of(edition, rejects), readers, rejects)

    def _ids_of(self, edition: Edition, rejects: Rejects) -> pl.DataFrame:
        if edition.language not in self._news_ids:
            frames = [frame.select("id") for folder in edition.folders for frame in _news_table(folder, rejects)]
            ids = pl.concat([pl.DataFrame(schema={"id": pl.String}), *frames]).unique()
            self._news_ids[edition.language] = ids.select(item_id=pl.lit(edition.prefix) + pl.col("id"))
        return self._news_ids[edition.language]

    def _readers_of(self, edition: Edition, rejects: Rejects) -> pl.DataFrame:
        if edition.language not in self._readers:
            self._readers[edition.language] = read_readers(edition, self._ids_of(edition, rejects), rejects)
        return self._readers[edition.language]


def _pair(text: str) -> tuple[str, str]:
    tag, equals, path = text.partition("=")
    if not (tag and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not written like de=DIR")
    return tag, path


def _folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders of the files: this one, or those in it, train before dev before test."""
    if find_file(folder, FILE_NAME) is not None:
        return (folder,)
    inner = {path.parent for path in folder.glob(f"*/{FILE_NAME}*")}
    if not inner:
        raise DataError(f"neither {folder} nor a folder in it has {FILE_NAME}")

    def order(path: Path) -> tuple[int, str]:
        numbers = (number for number, part in enumerate(_PARTS) if path.name.lower().endswith(part))
        return next(numbers, len(_PARTS)), path.name

    return tuple(sorted(inner, key=order))


def _news_table(folder: Path, rejects: Rejects) -> TextTable:
    return TextTable(expected_file(folder, NEWS), _NEWS_COLUMNS, rejects, layout=_LAYOUT)


def _fields(row: dict[str, str | None]) -> dict[str, str]:
    return {name: text for name in ("title", "abstract") if (text := row[name])}
