"""Book-Crossing as it was published and as its copies are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made import lines

from recbole_xling.convert import ConvertReport, write_dataset
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.sources.book_crossing import BookCrossing
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

NAMES = {"ratings": "BX-Book-Ratings.csv", "books": "BX-Books.csv", "users": "BX-Users.csv"}
COPY_NAMES = {"ratings": "Ratings.csv", "books": "Books.csv", "users": "Users.csv"}
Rows = list[list[str]]
BOOKS: Rows = [
    ["ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S"],
    ["0195153448", "Classical Mythology", "Mark P. O. Morford", "2002", "Oxford University Press", "http://i/1.jpg"],
    ["3-257-22704-3", "Das Parfüm; die Geschichte", "Patrick Süskind", "1994", "Diogenes", "http://i/2.jpg"],
    ["2070360024", "L'Étranger", "Albert Camus", "0", "", "http://i/3.jpg"],
    ["840149186x", 'El "otro" &amp; yo', "", "2037", "Plaza &amp; Janés", "http://i/4.jpg"],
    ["8806142100", "Se questo è un uomo", "Primo Levi", "1987", "Einaudi", "http://i/5.jpg"],
    ["8020412345", "Svejk", "Jaroslav Hasek", "1990", "Praha", "http://i/6.jpg"],
    ["9788420636511", '"Rayuela"', '"Julio"  Cortázar', "1963", "Alianza", "http://i/7.jpg"],
    ["B0000633PU", "No number", "Somebody", "2001", "Amazon", "http://i/8.jpg"],
    ["9022512345", "Het huis", "A. de Vries", "1999", "Boekerij", "http://i/9.jpg"],
    ["0345451041", "Ten, or more", "B. Ten", "1998", "Ballantine", "http://i/10.jpg"],
    ["9727112345", "Os Maias", "Eça de Queirós", "1888", "Livros", "http://i/11.jpg"],
]
USERS: Rows = [
    ["User-ID", "Location", "Age"],
    ["1", "nyc, new york, usa", "NULL"],
    ["2", "münchen, bayern, Germany", "18"],
    ["3", "somewhere, n/a, n/a", "18.0"],
    ["4", 'the "moon", , ', "0"],
    ["7", 'barcelona, barcelona, "spain"', ""],
]


def ratings(number: int) -> Rows:
    isbns = [row[0] for row in BOOKS[1:]]
    rows = [[str(1 + i // 4), isbns[i % len(isbns)], str(i % 11)] for i in range(number)]
    return [["User-ID", "ISBN", "Book-Rating"], *rows]


def semicolons(rows: Rows) -> str:
    """The published files: cells quoted, quotes escaped, only a missing age bare."""
    quoted = [[cell if cell == "NULL" else '"' + cell.replace('"', '\\"') + '"' for cell in row] for row in rows]
    return "".join(";".join(row) + "\r\n" for row in quoted)


def write_copy(path: Path, rows: Rows) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "bx"
    folder.mkdir()
    for what, rows in (("ratings", ratings(24)), ("books", BOOKS), ("users", USERS)):
        (folder / NAMES[what]).write_bytes(semicolons(rows).encode("latin-1"))
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for what, rows in (("ratings", ratings(24)), ("books", BOOKS), ("users", USERS)):
        write_copy(folder / COPY_NAMES[what], rows)
    return folder


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., ConvertReport]:
    return lambda converter: write_dataset(converter, tmp_path / "out", "bx", max_bad=0.5, show_progress=False)


def rejected(tmp_path: Path) -> list[tuple[str, int, str]]:
    rows = map(json.loads, lines(tmp_path, "rejects.jsonl"))
    return [(Path(row["file"]).name, row["line"], row["reason"]) for row in rows]


@pytest.mark.parametrize("layout", ["published", "copied"])
def test_both_layouts_give_the_same(
    layout: str, tmp_path: Path, convert: Callable[..., ConvertReport], request: pytest.FixtureRequest
) -> None:
    report = convert(BookCrossing(input=request.getfixturevalue(layout)))
    assert (report.users, report.items, report.interactions, report.rejected) == (7, 11, 24, {})
    assert report.items_per_language == {"en": 2, "es": 2, "und": 2, "de": 1, "fr": 1, "it": 1, "nl": 1, "pt": 1}
    assert report.notes[1] == "3 interactions without a rating have the rating 0 (--explicit-only leaves them out)"
    inter = lines(tmp_path, "inter")
    assert inter[0] == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    assert [inter[1], inter[10], inter[-1]] == [
        "1\t0195153448\t0\t2",
        "3\t0345451041\t9\t11",
        "6\t3257227043\t1\t25",
    ]
    items = lines(tmp_path, "item")
    assert items[0] == "item_id:token\titem_language:token\tpublication_year:token\tauthor:token"
    assert [items[1], items[3], items[4], items[7], items[10], items[-1]] == [
        "0195153448\ten\t2002\tMark P. O. Morford",
        "2070360024\tfr\t\tAlbert Camus",
        "840149186X\tes\t\t",
        '9788420636511\tes\t1963\tJulio" Cortázar',
        "0345451041\ten\t1998\tB. Ten",
        "9727112345\tpt\t1888\tEça de Queirós",
    ]
    assert lines(tmp_path, "user") == [
        "user_id:token\tcountry:token\tage:token",
        "1\tusa\t",
        "2\tgermany\t18",
        "3\t\t18",
        "4\t\t0",
        "7\tspain\t",
        "5\t\t",
        "6\t\t",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "bx" / "bx.itemtext.jsonl")
    german = {
        "title": "Das Parfüm; die Geschichte",
        "author": "Patrick Süskind",
        "year": "1994",
        "publisher": "Diogenes",
    }
    assert store.display("3257227043") == ItemText("3257227043", "de", german, "display")
    spanish = {"title": 'El "otro" &amp; yo', "publisher": "Plaza &amp; Janés"}
    assert store.display("840149186X") == ItemText("840149186X", "es", spanish, "display")
    quoted = store.display("9788420636511")
    assert quoted is not None and quoted.fields["title"] == '"Rayuela"'


def test_interactions_without_a_rating(published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    report = convert(BookCrossing(input=published, explicit_only=True))
    assert report.interactions == 21
    assert report.notes[1] == "3 interactions without a rating were left out"
    inter = lines(tmp_path, "inter")
    assert [inter[1], inter[10], inter[-1]] == [
        "1\t3257227043\t1\t3",
        "3\t9727112345\t10\t12",
        "6\t3257227043\t1\t25",
    ]


def test_books_that_only_the_ratings_have(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(published / "BX-Book-Ratings.csv", "a", newline="") as file:
        file.write('"7";"3499-12345 x";"8"\r\n"8";"349912345X";"0"\r\n"8";"O67174142X";"5"\r\n"8";"\\"034";"5"\r\n')
    report = convert(BookCrossing(input=published))
    assert (report.items, report.interactions, report.rejected) == (
        11,
        24,
        {
            "an unknown item": 3,
            "a tab, a line break, a NUL, or a quote at the start, which RecBole cannot read back": 1,
        },
    )
    assert [place[:2] for place in rejected(tmp_path)] == [("BX-Book-Ratings.csv", line) for line in (26, 27, 28, 29)]
    report = convert(BookCrossing(input=published, keep_unknown=True))
    assert (report.items, report.interactions, sum(report.texts_per_language.values())) == (13, 27, 11)
    assert lines(tmp_path, "item")[-2:] == ["349912345X\tde\t\t", "O67174142X\tund\t\t"]
    assert lines(tmp_path, "inter")[-3:] == ["7\t349912345X\t8\t26", "8\t349912345X\t0\t27", "8\tO67174142X\t5\t28"]
    assert [place[:2] for place in rejected(tmp_path)] == [("BX-Book-Ratings.csv", 29)]


def test_bad_rows_of_the_published_files(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(published / "BX-Books.csv", "a", encoding="latin-1", newline="") as file:
        file.write('"0789466953";"Readers (Level 4)\\";Michael T.";"2000";"DK";"http://i/a.jpg"\r\n')
        file.write('"0195153448";"Classical Mythology";"M";"2002";"Oxford";"http://i/b.jpg"\r\n')
        file.write('"0000000001";"";"M";"2002";"Oxford";"http://i/c.jpg"\r\n')
        file.write('"0000000002";"Cut o')
    with open(published / "BX-Book-Ratings.csv", "a", newline="") as file:
        file.write('"9";"0195153448"\r\n"9";"0195153448";"good"\r\n"9";"0000000002";"3"\r\n"9";"01951')
    report = convert(BookCrossing(input=published))
    assert (report.items, report.interactions, report.rows_read) == (11, 24, 24 + 4 + 11 + 4 + 5)
    assert sorted(rejected(tmp_path)) == [
        ("BX-Book-Ratings.csv", 26, "3 cells expected"),
        ("BX-Book-Ratings.csv", 27, "no number in column 'Book-Rating'"),
        ("BX-Book-Ratings.csv", 28, "an unknown item"),
        ("BX-Book-Ratings.csv", 29, "a quote is not closed"),
        ("BX-Books.csv", 13, "6 cells expected"),
        ("BX-Books.csv", 14, "a second row of the same item"),
        ("BX-Books.csv", 15, "nothing in column 'Book-Title'"),
        ("BX-Books.csv", 16, "a quote is not closed"),
    ]


def test_cells_out_of_place_and_a_broken_byte_in_a_copy(
    copied: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(copied / "Books.csv", "ab") as file:
        file.write(b'0789466953,"Readers (Level 4)\\"";Michael T.",2000,DK,http://i/a.jpg,\n')
        file.write('2000000000,"Plus \\""réel\\"" que",M,2002,Seuil,http://i/b.jpg\n'.encode())
        file.write("".join(f"300000000{i},Müll,M,2002,Seuil,\n" for i in range(5)).encode())
        file.write(b"3000000009,M\xfcll,M,2002,Seuil,\n")
    (copied / "Users.csv").unlink()
    report = convert(BookCrossing(input=copied))
    assert (report.users, report.items, report.interactions) == (6, 17, 24)
    assert not (tmp_path / "out" / "bx" / "bx.user").exists()
    assert rejected(tmp_path) == [
        ("Books.csv", 13, "no number in column 'Year-Of-Publication'"),
        ("Books.csv", 20, "not valid utf-8"),
    ]
    text = ItemTextStore.load(tmp_path / "out" / "bx" / "bx.itemtext.jsonl").display("2000000000")
    assert text is not None and text.fields["title"] == 'Plus \\"réel\\" que'


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        BookCrossing()
    with pytest.raises(DataError, match=r"neither BX-Books\.csv nor Books\.csv"):
        list(BookCrossing(input=tmp_path).items(Rejects(tmp_path / "r")))
