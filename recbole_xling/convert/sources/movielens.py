"""MovieLens [1], with titles and overviews in the films' own languages if files of them are given.

[1] Harper and Konstan: The MovieLens Datasets: History and Context. TiiS 5(4), 2015.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceLocation, SourceText, User, located, located_rows
from recbole_xling.convert.reading.compressed import expected_file, find_file
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable
from recbole_xling.convert.sources.film_titles import FilmTitle, split_title
from recbole_xling.convert.sources.tmdb import TmdbFilm, read_films
from recbole_xling.errors import DataError
from recbole_xling.language.tags import UNDETERMINED, stated_language
from recbole_xling.text.record import DISPLAY, PARALLEL

ENGLISH = "en"
NO_GENRES = "(no genres listed)"
_CSV = Layout()
_TSV = Layout(separator="\t", quote=None)
_NAMES_1M = {
    "ratings": ("userId", "movieId", "rating", "timestamp"),
    "movies": ("movieId", "title", "genres"),
    "users": ("userId", "gender", "age", "occupation", "zip_code"),
}


@dataclass(frozen=True, slots=True)
class _Film:
    movie_id: str
    title: FilmTitle
    genres: tuple[str, ...]
    native: TmdbFilm | None
    location: SourceLocation

    @property
    def language(self) -> str:
        return ENGLISH if self.native is None else self.native.language

    @property
    def english(self) -> dict[str, str]:
        """MovieLens's own text."""
        return {
            "title": self.title.title,
            "alternative_title": "; ".join(self.title.alternatives),
            "year": self.title.year,
            "genres": ", ".join(self.genres),
        }


class MovieLens(Converter):
    """MovieLens latest-small, 25M and 32M (CSV) or 1M (``::``).

    MovieLens's titles are English by convention, and so is the language of films without another text. A film that the
    TMDB files have is shown under its native title, with its overview, in the language of its file; the English title
    becomes a parallel text. The other titles MovieLens gives in brackets are the field ``alternative_title``.

    Args:
        input: the folder of the files.
        tmdb_text: folder of ``top*_<language>_films.csv``; needs ``links.csv``.
        titles: further titles, a table of ``movieId``, ``language``, ``title`` separated by tabs; they become parallel
            texts, and replace MovieLens's own title in the same language.

    Raises:
        ConfigError: ``input`` is not given.
        DataError: a file is missing.
    """

    name = "movielens"
    layout = """a folder of one of
  ratings.csv, movies.csv, links.csv    latest-small, 25M, 32M; links.csv only for --tmdb-text
  ratings.dat, movies.dat, users.dat    1M: cells separated by ::, Latin-1
each may be compressed (.gz, .xz, .bz2, .zst, .zip)"""
    item_fields = {"release_year": "token", "genres": "token_seq"}
    user_fields = {"gender": "token", "age": "token", "occupation": "token", "zip_code": "token"}

    def __init__(
        self,
        *,
        input: str | Path | None = None,
        tmdb_text: str | Path | None = None,
        titles: str | Path | None = None,
    ) -> None:
        super().__init__(input=input)
        self.folder = self.needed_input("the folder of ratings.csv or ratings.dat")
        self.tmdb_text = None if tmdb_text is None else Path(tmdb_text)
        self.titles = None if titles is None else Path(titles)
        self._counts: Counter[str] = Counter()

    @classmethod
    def add_arguments(cls, parser: argparse._ArgumentGroup) -> None:
        """Declare ``--tmdb-text`` and ``--titles``."""
        tmdb_text = (
            "folder of top*_<language>_films.csv (id;title;overview;release_date;vote_average): native titles and "
            "overviews, joined through links.csv"
        )
        titles = "table of movieId, language, title, separated by tabs: parallel titles"
        parser.add_argument("--tmdb-text", metavar="DIR", help=tmdb_text)
        parser.add_argument("--titles", metavar="FILE", help=titles)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the ratings; times are Unix seconds."""
        columns = {
            "userId": Column("user_id"),
            "movieId": Column("item_id"),
            "rating": Column("rating", "number"),
            "timestamp": Column("timestamp", "number"),
        }
        yield from located(self._table("ratings", columns, rejects))

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the films; genres are MovieLens's names."""
        for film in self._films(rejects):
            features: dict[str, str | tuple[str, ...]] = {"release_year": film.title.year, "genres": film.genres}
            yield Item(film.movie_id, film.language, features, film.location)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield the users of 1M; the other releases tell nothing about users."""
        if self._is_1m:
            names = tuple(self.user_fields)
            columns = {"userId": Column("user_id")} | {name: Column(name, required=False) for name in names}
            for row, location in located_rows(self._table("users", columns, rejects)):
                yield User(row["user_id"], {name: row[name] or "" for name in names}, location)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield for each film its display text, then the parallel ones by language."""
        titles: dict[str, dict[str, tuple[str, SourceLocation]]] = {}  # further ones by film and language
        if self.titles is not None:
            columns = {"movieId": Column("movie_id"), "language": Column("language"), "title": Column("title")}
            for row, location in located_rows(TextTable(self.titles, columns, rejects, layout=_TSV)):
                tag = stated_language(row["language"])
                language = row["language"] if tag == UNDETERMINED else tag
                of_film = titles.setdefault(row["movie_id"], {})
                of_film.setdefault(language, (row["title"].strip(), location))  # of two in a language the first counts
        self._counts.clear()
        self._counts["titles"] = sum(map(len, titles.values()))
        for film in self._films(rejects):
            more = titles.pop(film.movie_id, {})
            fields = film.english
            if film.native is not None:  # MovieLens's genres are English names, so only English texts have them
                genres = fields["genres"] if film.language == ENGLISH else ""
                fields = {"title": film.native.title, "year": film.title.year, "overview": film.native.overview}
                fields["genres"] = genres
            yield SourceText(film.movie_id, film.language, _not_empty(fields), DISPLAY, film.location)
            parallel = {language: {"title": title, "year": film.title.year} for language, (title, _) in more.items()}
            if ENGLISH in more or film.language != ENGLISH:
                parallel[ENGLISH] = film.english | ({"title": more[ENGLISH][0]} if ENGLISH in more else {})
            parallel.pop(film.language, None)
            for language in sorted(parallel):
                location = more[language][1] if language in more else film.location
                self._counts["joined"] += language in more
                yield SourceText(film.movie_id, language, _not_empty(parallel[language]), PARALLEL, location)
            self._counts["native"] += film.native is not None
            self._counts["titled"] += not more.keys().isdisjoint(parallel)
            self._counts["shown"] += film.language in more
        self._counts["unused"] = len(titles)

    def notes(self) -> Iterator[str]:
        """Yield how many films the other files have."""
        if self.tmdb_text is not None:
            yield f"{self._counts['native']} films have a native title and overview"
        if self.titles is not None:
            yield (
                f"{self._counts['joined']} of {self._counts['titles']} titles of {self.titles.name} became texts of "
                f"{self._counts['titled']} films; {self._counts['shown']} are in the language that their film is shown "
                f"in, and {self._counts['unused']} films are not in this release"
            )

    @cached_property
    def _is_1m(self) -> bool:
        if find_file(self.folder, "ratings.csv") is not None:
            return False
        if find_file(self.folder, "ratings.dat") is not None:
            return True
        raise DataError(f"{self.folder} has neither ratings.csv nor ratings.dat")

    def _table(self, what: str, columns: Mapping[str, Column], rejects: Rejects) -> TextTable:
        name = f"{what}.dat" if self._is_1m else f"{what}.csv"
        layout = Layout(separator="::", quote=None, encoding="latin-1", names=_NAMES_1M[what]) if self._is_1m else _CSV
        return TextTable(expected_file(self.folder, name), columns, rejects, layout=layout)

    def _films(self, rejects: Rejects) -> Iterator[_Film]:
        native = {} if self.tmdb_text is None else read_films(self.tmdb_text, rejects)
        tmdb_ids: dict[str, str] = {}  # by MovieLens's id
        if native:
            path = find_file(self.folder, "links.csv")
            if path is None:
                raise DataError(f"--tmdb-text needs links.csv in {self.folder}, which tells TMDB's ids of the films")
            columns = {"movieId": Column("movie_id"), "tmdbId": Column("tmdb_id", required=False)}
            for frame in TextTable(path, columns, rejects, layout=_CSV):
                tmdb_ids.update(frame.drop_nulls("tmdb_id").select("movie_id", "tmdb_id").iter_rows())
        columns = {"movieId": Column("movie_id"), "title": Column("title"), "genres": Column("genres", required=False)}
        for row, location in located_rows(self._table("movies", columns, rejects)):
            genres = row["genres"] if row["genres"] not in (None, NO_GENRES) else ""
            yield _Film(
                row["movie_id"],
                split_title(row["title"]),
                tuple(genre for genre in genres.split("|") if genre),
                native.get(tmdb_ids.get(row["movie_id"], "")),
                location,
            )


def _not_empty(fields: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}
