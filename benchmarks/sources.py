"""Small readers for the benchmarks' data: NeMig's clicks, and MovieLens-small with film texts of TMDB."""

from __future__ import annotations

import csv
import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from functools import cached_property

import polars as pl

from recbole_xling.convert.base import Converter, Item, SourceText, User
from recbole_xling.convert.reading.rejects import Rejects


def frame(rows: Iterable[tuple[str, str, float | None, float]], file: str) -> pl.DataFrame:
    """Make a batch of (user, item, rating, time); the column of ratings is left out where there are none."""
    schema = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}
    batch = pl.DataFrame(list(rows), schema=schema, orient="row").with_row_index("line", offset=1)
    batch = batch.with_columns(pl.col("line").cast(pl.Int64), pl.lit(file).alias("file"))
    return batch.drop("rating") if batch["rating"].null_count() == batch.height else batch


class NeMigClicks(Converter):
    """Clicks of NeMig's German and English readers: each user's history, then the articles clicked when shown.

    NeMig has no times and does not say that the history is in order; the order of the file stands in for time.
    """

    name = "nemig"
    languages = ("de", "en")

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield a user's history once, then the clicked candidates of each impression."""
        yield frame(self._clicks(), "behaviors.tsv")

    def _clicks(self) -> Iterator[tuple[str, str, None, float]]:
        for language in self.languages:
            place: dict[str, int] = {}
            for _, user, _, history, shown in self._rows(language, "behaviors.tsv", 5):
                clicked = [candidate[:-2] for candidate in shown.split() if candidate.endswith("-1")]
                for article in (history.split() if user not in place else []) + clicked:
                    place[user] = place.get(user, 0) + 1
                    yield f"{language}:{user}", f"{language}:{article}", None, float(place[user])

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the articles."""
        for language in self.languages:
            for row in self._rows(language, "news.tsv", 8):
                yield Item(f"{language}:{row[0]}", language, {})

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield nothing: NeMig tells nothing of its users here."""
        return iter(())

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield headline and abstract."""
        for language in self.languages:
            for row in self._rows(language, "news.tsv", 8):
                fields = {"title": _clean(row[3]), "abstract": _clean(row[4])[:300]}
                yield SourceText(f"{language}:{row[0]}", language, fields, "display")

    def _rows(self, language: str, name: str, width: int) -> Iterator[list[str]]:
        assert self.input is not None
        with open(self.input / language / name, encoding="utf-8", newline="\n") as file:
            for line in file:
                row = line.rstrip("\r\n").split("\t")
                if len(row) >= width:
                    yield row


class ColdItems(Converter):
    """Another source of which a share of the items is never seen in training.

    Of these items only interactions that are their user's last one are kept: under leave-one-out they are test
    targets and nothing else. Which items, is decided by a hash of their ids.
    """

    name = "cold"

    def __init__(self, source: Converter, share: float = 0.1) -> None:
        super().__init__(input=source.input)
        self.source, self.share = source, share

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield all items of the source."""
        return self.source.items(rejects)

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield all users of the source."""
        return self.source.users(rejects)

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield all texts of the source."""
        return self.source.texts(rejects)

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield what is left."""
        table = pl.concat(self.source.interactions(rejects)).with_row_index("number")
        last = table.sort("timestamp", "number").unique("user_id", keep="last")["number"].implode()
        cold = [item for item in table["item_id"].unique() if self._is_cold(item)]
        kept = pl.col("number").is_in(last) | ~pl.col("item_id").is_in(cold)
        yield table.filter(kept).drop("number")

    def _is_cold(self, item: str) -> bool:
        return int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") < self.share * 2**32


class MovieLensSmall(Converter):
    """MovieLens latest-small; films found in the TMDB files carry their native title and overview."""

    name = "movielens-small"
    files = {
        "american": "en",
        "french": "fr",
        "spanish": "es",
        "italian": "it",
        "german": "de",
        "danish": "da",
        "polish": "pl",
        "portuguese": "pt",
    }

    def interactions(self, rejects: Rejects) -> Iterator[pl.DataFrame]:
        """Yield the ratings."""
        rows = self._table("ratings.csv")
        ratings = ((row["userId"], row["movieId"], float(row["rating"]), float(row["timestamp"])) for row in rows)
        yield frame(ratings, "ratings.csv")

    def items(self, rejects: Rejects) -> Iterator[Item]:
        """Yield the films with the language of their text."""
        for text in self.texts(rejects):
            yield Item(text.item_id, text.language, {})

    def users(self, rejects: Rejects) -> Iterator[User]:
        """Yield nothing."""
        return iter(())

    def texts(self, rejects: Rejects) -> Iterator[SourceText]:
        """Yield one text per film."""
        for row in self._table("movies.csv"):
            title, year = re.fullmatch(r"(.*?)\s*(?:\((\d{4})\)?)?\s*", row["title"]).groups()  # type: ignore[union-attr]
            genres = "" if row["genres"].startswith("(") else row["genres"].replace("|", ", ")
            fields = {"title": title, "year": year or "", "genres": genres, "overview": ""}
            language, native, overview = self._tmdb.get(self._links.get(row["movieId"], ""), ("en", title, ""))
            fields.update(title=native, overview=overview)
            yield SourceText(row["movieId"], language, fields, "display")

    @cached_property
    def _links(self) -> dict[str, str]:
        return {row["movieId"]: row["tmdbId"] for row in self._table("links.csv")}

    @cached_property
    def _tmdb(self) -> dict[str, tuple[str, str, str]]:
        assert self.input is not None
        films: dict[str, tuple[str, str, str]] = {}
        for path in sorted((self.input.parent / "tmdb-multilang").glob("top*_films.csv")):
            language = self.files[path.stem.split("_")[1]]
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    match = re.match(r"(\d+);(.*);[\d-]*;[\d.]*\s*$", line)
                    if match:
                        title, overview = _title_and_overview(match[2])
                        films.setdefault(match[1], (language, title, overview))
        return films

    def _table(self, name: str) -> Iterator[dict[str, str]]:
        assert self.input is not None
        with open(self.input / name, encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _title_and_overview(text: str) -> tuple[str, str]:
    quoted = re.match(r'"((?:[^"]|"")*)";(.*)', text)
    title, _, overview = (quoted[1], "", quoted[2]) if quoted else text.partition(";")
    overview = _clean(overview.strip('"').replace('""', '"'))
    return _clean(title.replace('""', '"')), "" if overview.startswith("No overview") else overview[:300]


def _clean(text: str) -> str:
    return " ".join(html.unescape(html.unescape(text)).split())
