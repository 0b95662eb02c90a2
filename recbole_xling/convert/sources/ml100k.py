"""MovieLens-100k in several languages: films under the titles of their release in eight languages.

Interactions, users and English titles are those of MovieLens-100k [1], read from the copy inside RecBole's wheel. Other
titles, original languages and genre names are tables of this project. Each film gets one display language, so that the
catalog is mixed as one that was gathered in several countries; its other titles are kept as parallel texts.

[1] Harper and Konstan: The MovieLens Datasets: History and Context. TiiS 5(4), 2015.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, located
from recbole_xling.convert.reader_languages import ReaderLanguages
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable
from recbole_xling.convert.sources.film_titles import article_in_front
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import is_language
from recbole_xling.language.users import USER_LANGUAGE
from recbole_xling.text.raw_tables import table_columns, table_rows
from recbole_xling.text.record import DISPLAY, PARALLEL
from recbole_xling.utils.paths import package_folder

ENGLISH_SHARE = 0.4
UNKNOWN_GENRE = "unknown"
_YEARS = range(1870, 2101)
_TRAILING_BRACKETS = re.compile(r"(?<=\S)(\s+\([^()]*\))+$")


def english_title(title: str) -> str:
    """Return MovieLens's title without alternatives in trailing brackets and with the article in front.

    ``Big Blue, The (Grand bleu, Le)`` gives ``The Big Blue``.
    """
    return article_in_front(_TRAILING_BRACKETS.sub("", title.strip()))


def display_language(movie_id: str, titles: Mapping[str, str], original: str | None = None) -> str:
    """Choose the language in which a film is shown.

    A film whose original title is known is shown under that. Of the others 40% are shown in English and the rest are
    spread evenly over the languages they have a title in. The choice depends on this film alone: another title of it
    can only move it to the language of that title, and moves no other film.

    Args:
        movie_id: MovieLens's id of the film.
        titles: known titles by language.
        original: original language of the film unless that is English.
    """
    if original is not None and original in titles:
        return original
    others = [language for language in titles if language != "en"]
    if not others or _uniform(movie_id) < ENGLISH_SHARE:
        return "en"
    return max(sorted(others), key=lambda language: _uniform(f"{movie_id}\t{language}"))


@dataclass(frozen=True, slots=True)
class _ListedFilm:
    movie_id: str
    year: str
    genres: tuple[str, ...]
    titles: Mapping[str, str]
    language: str
    location: SourceLocation


class MovieLens100K(Converter):
    """MovieLens-100k with titles in several languages.

    Args:
        input: folder of ``ml-100k.inter``, ``.item`` and ``.user``; None for the copy inside RecBole's wheel.
        tables: folder of ``titles.tsv``, ``original_languages.tsv`` and ``genres.tsv``; None for those of the package.
        reader_language: share by language: each user reads the language that a hash of his id draws.

    Raises:
        ConfigError: ``reader_language`` makes no sense.
        DataError: a file is missing or wrong.
    """

    name = "ml-100k"
    layout = "none needed: RecBole carries the files; otherwise a folder of ml-100k.inter, ml-100k.item, ml-100k.user"
    clean_texts = True
    item_fields = {"release_year": "token", "genres": "token_seq"}
    user_fields = {"age": "token", "gender": "token", "occupation": "token", "zip_code": "token"}

    def __init__(
        self,
        *,
        input: str | Path | None = None,
        tables: str | Path | None = None,
        reader_language: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(input=input)
        self.readers = ReaderLanguages(reader_language, by="their id")
        if self.readers.shares:
            self.user_fields = {USER_LANGUAGE: "token", **self.user_fields}
        if self.input is not None:
            self.folder = self.input
        else:
            spec = find_spec("recbole")  # importing RecBole would import torch as well
            if spec is None or not spec.submodule_search_locations:
                raise DataError(
                    "RecBole, whose wheel carries MovieLens-100k, is not installed: pip install recbole, or give input"
                )
            self.folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
        self.tables = package_folder("datasets") / "ml-100k-xling" if tables is None else Path(tables)

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--reader-language``."""
        ReaderLanguages.add_argument(parser, "their id")

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the ratings in the order of the source; times are Unix seconds."""
        columns = {"user_id:token": Column("user_id"), "item_id:token": Column("item_id")}
        columns |= {f"{name}:float": Column(name, "number") for name in ("rating", "timestamp")}
        layout = Layout(separator="\t", quote=None)
        yield from located(TextTable(self.folder / "ml-100k.inter", columns, rejects, layout=layout))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the films; an implausible year is left out, genres are MovieLens's names."""
        for film in self._films:
            features: dict[str, str | tuple[str, ...]] = {"release_year": film.year, "genres": film.genres}
            yield Item(film.movie_id, film.language, features, film.location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users with all their features as in the source."""
        names = tuple(name for name in self.user_fields if name != USER_LANGUAGE)
        path = self.folder / "ml-100k.user"
        for line, (user_id, *values) in table_rows(path, ("user_id", *names)):
            features = dict(zip(names, values, strict=True))
            if self.readers.shares:
                features[USER_LANGUAGE] = self.readers.draw(user_id)
            yield User(user_id, features, SourceLocation(str(path), line))

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield for each film its display text, then the parallel ones by language."""
        for film in self._films:
            genres = [genre for genre in film.genres if genre != UNKNOWN_GENRE]
            absent = next((genre for genre in genres if genre not in self._genres), None)
            if absent is not None:
                raise DataError(f"{self.tables / 'genres.tsv'}: genre '{absent}' has no row; add one")
            for language in sorted(film.titles, key=lambda language: (language != film.language, language)):
                names = (self._genres[genre].get(language) for genre in genres)
                fields = {
                    "title": film.titles[language],
                    "year": film.year,
                    "genres": ", ".join(name for name in names if name is not None),
                }
                fields = {name: value for name, value in fields.items() if value}
                source = DISPLAY if language == film.language else PARALLEL
                yield SourceText(film.movie_id, language, fields, source, film.location)

    def notes(self) -> Iterator[str]:
        """Yield how users got their languages."""
        if self.readers.shares:
            yield self.readers.note()

    @cached_property
    def _films(self) -> list[_ListedFilm]:
        known: dict[str, dict[str, str]] = {}  # titles by film and language
        path = self.tables / "titles.tsv"
        for number, (movie_id, language, title) in table_rows(path, ("movie_id", "language", "title")):
            _check_language(language, path, number)
            if not title.strip():
                raise DataError(f"{path}:{number}: the title is empty; remove the row")
            if language in known.setdefault(movie_id, {}):
                raise DataError(f"{path}:{number}: film {movie_id} has two titles in '{language}'; keep one")
            known[movie_id][language] = title
        languages = {"en"}.union(*known.values())
        if absent := sorted(self.readers.shares.keys() - languages):
            raise ConfigError(f"--reader-language: {unknown_name('language of titles', absent[0], languages)}")
        originals: dict[str, str] = {}
        path = self.tables / "original_languages.tsv"
        for number, (movie_id, language) in table_rows(path, ("movie_id", "language")):
            _check_language(language, path, number)
            if movie_id in originals:
                raise DataError(f"{path}:{number}: film {movie_id} has two original languages; keep one")
            if language != "en":
                originals[movie_id] = language
        films = []
        path = self.folder / "ml-100k.item"
        columns = ("item_id", "movie_title", "release_year", "class")
        for line, (movie_id, title, year, genres) in table_rows(path, columns):
            titles = {"en": english_title(title)} | known.get(movie_id, {})
            language = display_language(movie_id, titles, originals.get(movie_id))
            year = year if re.fullmatch("[0-9]{4}", year) and int(year) in _YEARS else ""
            location = SourceLocation(str(path), line)
            films.append(_ListedFilm(movie_id, year, tuple(genres.split()), titles, language, location))
        return films

    @cached_property
    def _genres(self) -> dict[str, dict[str, str]]:
        """Genre names by MovieLens's name and language."""
        path = self.tables / "genres.tsv"
        languages = [column for column in table_columns(path) if column != "genre"]
        return {
            genre: {language: name for language, name in zip(languages, names, strict=True) if name}
            for _, (genre, *names) in table_rows(path, ("genre", *languages))
        }


def _check_language(language: str, path: Path, number: int) -> None:
    if not is_language(language):
        raise DataError(f"{path}:{number}: language {language!r} is not a BCP 47 tag; write it like 'de'")


def _uniform(key: str) -> float:
    """Return a number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
