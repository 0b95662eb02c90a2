"""MovieLens in each of its layouts, alone and with texts of other files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dumps.movielens import FRENCH, HEADER, MOVIES, ratings, write_csv, write_tmdb
from made import lines, load_dataset

from recbole_xling.convert import ConvertReport
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.sources.movielens import MovieLens
from recbole_xling.convert.sources.tmdb import read_films
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The CSV layout with 24 ratings."""
    folder = tmp_path / "ml"
    (folder / "tmdb").mkdir(parents=True)
    write_csv(folder)
    write_tmdb(folder / "tmdb")
    return folder


def test_the_csv_layout_becomes_a_dataset(source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    report = convert(MovieLens(input=source))
    assert (report.users, report.items, report.interactions, report.rejected) == (6, 11, 24, {})
    assert report.items_per_language == report.texts_per_language == {"en": 11}
    inter = lines(tmp_path, "inter")
    assert inter[0] == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    assert [inter[1], inter[10], inter[-1]] == [
        "1\t1\t0.5\t1000000000",
        "3\t10\t5.0\t999999991",
        "6\t4\t2.0\t999999977",
    ]
    items = lines(tmp_path, "item")
    assert items[0] == "item_id:token\titem_language:token\trelease_year:token\tgenres:token_seq"
    assert [items[1], items[4], items[5], items[10], items[-1]] == [
        "1\ten\t1995\tAdventure Animation Children",
        "4\ten\t\tSci-Fi",
        "5\ten\t2001\t",
        "10\ten\t1995\tDrama",
        "11\ten\t2000\tDrama",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    assert not (tmp_path / "out" / "d" / "d.user").exists()
    fields = {"title": "Il Postino", "alternative_title": "The Postman", "year": "1994", "genres": "Comedy, Drama"}
    assert store.display("2") == ItemText("2", "en", fields, "display")
    assert store.display("5") == ItemText("5", "en", {"title": 'Say "Yes"', "year": "2001"}, "display")


def test_the_layout_of_1m_becomes_a_dataset_with_users(tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    rows = [f"{u}::{m}::{int(r) + 1}::{t}" for u, m, r, t in ratings(24)]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    films = [line for line in MOVIES.splitlines()[1:] if '"' not in line]
    films = ["::".join(line.split(",")) for line in films] + ["2::Postino, Il (Postman, The) (1994)::Comedy|Drama"]
    films += [f"{i}::Film {i} (1990)::War" for i in (3, 5, 10)]
    (folder / "movies.dat").write_bytes(("\n".join(films) + "\n").encode("latin-1"))
    users = [f"{u}::{'FM'[u % 2]}::{u}5::{u}::0{u}067-12" for u in range(1, 7)]
    with gzip.open(folder / "users.dat.gz", "wt") as file:
        file.write("\n".join(users) + "\n")
    report = convert(MovieLens(input=folder))
    assert (report.users, report.items, report.interactions, report.rejected) == (6, 11, 24, {})
    inter = lines(tmp_path, "inter")
    assert [inter[1], inter[10], inter[-1]] == ["1\t1\t1\t1000000000", "3\t10\t6\t999999991", "6\t4\t3\t999999977"]
    assert lines(tmp_path, "user")[:2] == [
        "user_id:token\tgender:token\tage:token\toccupation:token\tzip_code:token",
        "1\tM\t15\t1\t01067-12",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    text = store.display("6")
    assert text is not None and text.fields["title"] == "Amélie"
    (tmp_path / "top9_french_films.csv").write_text(FRENCH, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"--tmdb-text needs links\.csv"):
        convert(MovieLens(input=folder, tmdb_text=tmp_path))


def test_native_texts_are_shown_and_other_titles_are_parallel(
    source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(MovieLens(input=source, tmdb_text=source / "tmdb", titles=source / "titles.tsv"), max_bad=0.5)
    assert report.items_per_language == {"en": 7, "de": 2, "it": 1, "fr": 1}
    assert report.texts_per_language == {"en": 11, "es": 2, "de": 2, "it": 1, "fr": 1}
    assert list(report.notes) == [
        "4 films have a native title and overview",
        "3 of 5 titles of titles.tsv became texts of 2 films; 1 are in the language that their film is shown in, and "
        "1 films are not in this release",
    ]
    (bad,) = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    assert (Path(bad["file"]).name, bad["line"], bad["row"]) == ("top6000_german_films.csv", 3, "broken")
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    assert store.display("10") == ItemText(
        "10", "fr", {"title": "Les 'Misérables'", "year": "1995", "overview": 'Il dit ; "non"'}, "display"
    )
    assert store.display("3") == ItemText(
        "3", "de", {"title": 'Das "Boot"; Teil 1', "year": "1981", "overview": "Ein U-Boot; es ist '42'"}, "display"
    )
    assert store.parallel("3") == (
        ItemText(
            "3",
            "en",
            {"title": "Das Boot", "alternative_title": "The Boat", "year": "1981", "genres": "Drama, War"},
            "parallel",
        ),
    )
    assert store.display("2") == ItemText("2", "it", {"title": "Il postino", "year": "1994"}, "display")
    assert [text.language for text in store.parallel("2")] == ["en", "es"]
    english = store.text("2", "en")
    assert english is not None and english.fields["title"] == "The Postman!"
    assert lines(tmp_path, "item")[2] == "2\tit\t1994\tComedy Drama"


def test_of_two_files_with_a_film_the_first_counts_and_texts_may_have_semicolons(source: Path, tmp_path: Path) -> None:
    films = read_films(source / "tmdb", Rejects(tmp_path / "rejects.jsonl"))
    assert set(films) == {"194", "99", "387", "11010"}
    assert (films["194"].language, films["194"].title, films["194"].location.line) == ("de", "Amelie", 4)
    (source / "tmdb" / "top6000_german_films.csv").unlink()
    films = read_films(source / "tmdb", Rejects(tmp_path / "rejects.jsonl"))
    assert films["194"].title == "Le Fabuleux Destin d'Amélie Poulain"
    assert films["194"].overview == "Amélie; une jeune serveuse; rêve."


def test_bad_rows_are_listed(source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    with open(source / "ratings.csv", "a", encoding="utf-8") as file:
        file.write("1,77,3.0,1\n1,2,good,1\n1,2,3.0\n")
    with open(source / "movies.csv", "a", encoding="utf-8") as file:
        file.write("1,Toy Story again (1995),Drama\n")
    report = convert(MovieLens(input=source), max_bad=0.5)
    assert (report.items, report.interactions) == (11, 24)
    found = {(Path(bad["file"]).name, bad["line"]) for bad in map(json.loads, lines(tmp_path, "rejects.jsonl"))}
    assert found == {("ratings.csv", 26), ("ratings.csv", 27), ("ratings.csv", 28), ("movies.csv", 13)}
    assert sum(report.rejected.values()) == 4
    assert report.rows_read == 27 + 12


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        MovieLens()
    with pytest.raises(DataError, match=r"neither ratings\.csv nor ratings\.dat"):
        list(MovieLens(input=tmp_path).items(Rejects(tmp_path / "r")))
    with pytest.raises(DataError, match="has no file top"):
        read_films(tmp_path, Rejects(tmp_path / "r"))
    (tmp_path / "top10_klingon_films.csv").write_text(HEADER)
    with pytest.raises(DataError, match="unknown language 'klingon'"):
        read_films(tmp_path, Rejects(tmp_path / "r"))


def test_the_dataset_loads_in_recbole(source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    from recbole_xling.data.catalog import dataset_catalog

    convert(MovieLens(input=source, tmdb_text=source / "tmdb"), max_bad=0.5)
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"],
               "item": ["item_id", "item_language", "release_year", "genres"]}  # fmt: skip
    config, dataset = load_dataset(tmp_path, columns, text_template="{title}. {overview}")
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (7, 12, 24)
    catalog = dataset_catalog(config)
    assert sorted(catalog.languages[1:]) == ["de"] * 2 + ["en"] * 7 + ["fr", "it"]
    assert "Das \"Boot\"; Teil 1. Ein U-Boot; es ist '42'" in catalog.texts
