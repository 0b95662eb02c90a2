"""A small valid input of each converter and layout."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from dumps import (
    amazon_m2,
    amazon_reviews,
    book_crossing,
    debian,
    deskdrop,
    goodbooks,
    mind,
    ml100k,
    movielens,
    table,
    xmarket,
)

from recbole_xling.convert.base import Converter
from recbole_xling.convert.reading.compressed import expected_file
from recbole_xling.convert.sources.amazon_m2 import AmazonM2
from recbole_xling.convert.sources.amazon_reviews import AmazonReviews
from recbole_xling.convert.sources.book_crossing import BookCrossing
from recbole_xling.convert.sources.debian import Debian
from recbole_xling.convert.sources.deskdrop import DeskDrop
from recbole_xling.convert.sources.goodbooks import Goodbooks
from recbole_xling.convert.sources.mind import Mind
from recbole_xling.convert.sources.ml100k import MovieLens100K
from recbole_xling.convert.sources.movielens import MovieLens
from recbole_xling.convert.sources.table import TableConverter
from recbole_xling.convert.sources.xmarket import XMarket


@dataclass(frozen=True)
class Source:
    """An input.

    Attributes:
        write: writes its files to an empty folder.
        converter: returns the converter of such a folder.
        packed: whether its text files may be compressed.
    """

    write: Callable[[Path], None]
    converter: Callable[[Path], Converter]
    packed: bool = True


def files_of(source: Source, folder: Path) -> dict[str, bytes]:
    """Write the files of a source; return their contents by name, all unpacked."""
    source.write(folder)
    return dict(_unpacked(folder))


def _unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".gz":
            path.unlink()
            path, content = path.with_suffix(""), gzip.decompress(content)
            path.write_bytes(content)
        yield path.relative_to(folder).as_posix(), content


# ---- Amazon ---------------------------------------------------------------------------------------------------


def _reviews(year: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        amazon_reviews.write_lines(folder / "reviews.json", getattr(amazon_reviews, f"REVIEWS_{year}"))
        amazon_reviews.write_lines(folder / "meta.json", getattr(amazon_reviews, f"META_{year}"))

    return write


def _xmarket(folder: Path) -> None:
    for market, numbers in xmarket.MARKETS.items():
        xmarket.write_market(folder / market, market, numbers)


# ---- news -----------------------------------------------------------------------------------------------------


def _mind(folder: Path) -> None:
    """Two folders of a release and translations."""
    mind.write_table(folder / "mind/train/news.tsv", mind.news(range(1, 13)))
    mind.write_table(folder / "mind/train/behaviors.tsv", mind.BEHAVIORS)
    later = [("1", "U1", "11/15/2019 1:00:00 AM", "N1", "N13-1 N5-0")]
    mind.write_table(folder / "mind/dev/news.tsv", mind.news(range(5, 14), title="Later"))
    mind.write_table(folder / "mind/dev/behaviors.tsv", later)
    rows = [("nid", "title", "abstract"), *((f"N{i}", f"Titlu {i}", f"Rezumat {i}") for i in range(1, 9))]
    mind.write_table(folder / "ron/train.tsv", rows)
    frame = pl.DataFrame(rows[1:], schema=list(rows[0]), orient="row")
    (folder / "fin").mkdir()
    frame.write_parquet(folder / "fin/train.parquet.gzip", compression="gzip")


def _mind_converter(folder: Path) -> Converter:
    return Mind(input=folder / "mind", xmind=[("ro", folder / "ron"), ("fi", folder / "fin")])


def _nemig(folder: Path) -> None:
    """Two editions without times."""
    rows = [(*row[:2], "", *row[3:]) for row in mind.BEHAVIORS]
    for language, title in (("de", "Größe"), ("en", "Size")):
        mind.write_table(folder / language / "news.tsv", mind.news(range(1, 13), title))
        mind.write_table(folder / language / "behaviors.tsv", rows)


# ---- films ----------------------------------------------------------------------------------------------------


def _movielens(folder: Path) -> None:
    movielens.write_csv(folder)
    movielens.write_tmdb(folder)


def _movielens_converter(folder: Path) -> Converter:
    return MovieLens(input=folder, tmdb_text=folder, titles=expected_file(folder, "titles.tsv"))


def _movielens_1m(folder: Path) -> None:
    films = "".join(f"{i}::Misérables {i}, Les (Été, L') ({1990 + i})::War|Drama\n" for i in range(1, 11))
    rows = "".join(f"{u}::{m}::{int(r) + 1}::{t}\n" for u, m, r, t in movielens.ratings(24))
    users = "".join(f"{u}::{'FM'[u % 2]}::{u}5::{u}::0{u}067-12\n" for u in range(1, 7))
    for name, text in (("movies", films), ("ratings", rows), ("users", users)):
        (folder / f"{name}.dat").write_text(text, encoding="latin-1", newline="")


def _ml_100k(folder: Path) -> None:
    films = [f"{i}|Big Blue, The (Grand bleu, Le) {i}|{1980 + i}|Drama" for i in range(1, 9)]
    rows = [f"{i // 4}|{1 + i % 8}|{i % 5}|{881250949 + i}" for i in range(24)]
    users = [f"{i}|{20 + i}|F|none|0904{i}" for i in range(6)]
    columns = "item_id:token|movie_title:token_seq|release_year:token|class:token_seq"
    ml100k.write_table(folder / "ml-100k.item", columns, *films)
    columns = "user_id:token|item_id:token|rating:float|timestamp:float"
    ml100k.write_table(folder / "ml-100k.inter", columns, *rows)
    columns = "user_id:token|age:token|gender:token|occupation:token|zip_code:token"
    ml100k.write_table(folder / "ml-100k.user", columns, *users)
    ml100k.write_table(folder / "titles.tsv", "movie_id|language|title", "1|fr|Le Grand Bleu", "2|ja|コーリャ")
    ml100k.write_table(folder / "original_languages.tsv", "movie_id|language", "1|fr", "3|cs")
    ml100k.write_table(folder / "genres.tsv", "genre|en|fr|ja", "Drama|Drama|Drame|ドラマ")


def _table(suffix: str) -> Source:
    def write(folder: Path) -> None:
        table.write(folder, suffix)

    def converter(folder: Path) -> Converter:
        names = {"input": "sales", "items": "products", "users": "customers"}
        paths = {what: expected_file(folder, f"{name}{suffix}") for what, name in names.items()}
        return TableConverter(**table.SETTINGS, **paths)

    return Source(write, converter)


def _markets(folder: Path) -> None:
    """Events of several markets, and products with a name in each of their languages."""
    events = [{"user_id": f"u{i % 6}", "item_id": f"i{i % 8}", "event": "view buy cart".split()[i % 3],
               "market": "de fr".split()[i % 2], "qty": str(i % 4)} for i in range(40)]  # fmt: skip
    items = [
        {"item_id": f"i{i}", "de": f"Ding {i}", "fr": f"Chose {i}" if i % 2 else "", "eur": f"{i}.5"} for i in range(8)
    ]
    table.write_rows(folder / "events.csv", events)
    table.write_rows(folder / "items.tsv", items)


def _markets_converter(folder: Path) -> Converter:
    return TableConverter(
        input=expected_file(folder, "events.csv"),
        items=expected_file(folder, "items.tsv"),
        text="title:de=de,title:fr=fr",
        item_features="price=eur:float",
        interaction_features="event,market,weight=qty:float",
        where=["event=buy,cart", "qty<3"],
        random_order=True,
    )


SOURCES = {
    "amazon-m2, CSV": Source(amazon_m2.write_csv, lambda folder: AmazonM2(input=folder, test_sessions=True)),
    "amazon-m2, Parquet": Source(amazon_m2.write_parquet, lambda folder: AmazonM2(input=folder, test_sessions=True)),
    "amazon-reviews, 2018": Source(_reviews("2018"), lambda folder: AmazonReviews(input=folder)),
    "amazon-reviews, 2023": Source(_reviews("2023"), lambda folder: AmazonReviews(input=folder)),
    "book-crossing, published": Source(book_crossing.write_published, lambda folder: BookCrossing(input=folder)),
    "book-crossing, copied": Source(
        book_crossing.write_copied, lambda folder: BookCrossing(input=folder, keep_unknown=True)
    ),
    "debian": Source(debian.write, lambda folder: Debian(input=folder, reader_language={"it": 1, "pt": 1})),
    "deskdrop": Source(deskdrop.write, lambda folder: DeskDrop(input=folder)),
    "goodbooks": Source(goodbooks.write, lambda folder: Goodbooks(input=folder)),
    "mind, with xMIND": Source(_mind, _mind_converter),
    "mind, editions": Source(_nemig, lambda folder: Mind(lang=[("de", folder / "de"), ("en", folder / "en")])),
    "ml-100k": Source(_ml_100k, lambda folder: MovieLens100K(input=folder, tables=folder), packed=False),
    "movielens, CSV": Source(_movielens, _movielens_converter),
    "movielens, 1M": Source(_movielens_1m, lambda folder: MovieLens(input=folder)),
    "table, CSV": _table(".csv"),
    "table, TSV": _table(".tsv"),
    "table, JSON lines": _table(".jsonl"),
    "table, Parquet": _table(".parquet"),
    "table, markets": Source(_markets, _markets_converter),
    "xmarket": Source(_xmarket, lambda folder: XMarket(input=folder)),
}
