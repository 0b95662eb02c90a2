"""goodbooks-10k in the layout of its second release."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dumps.goodbooks import BOOKS, write
from made import lines

from recbole_xling.convert import ConvertReport
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.sources.goodbooks import Goodbooks
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "goodbooks-10k"
    folder.mkdir()
    write(folder)
    return folder


def test_the_second_release_becomes_a_dataset(
    source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(Goodbooks(input=source))
    assert (report.users, report.items, report.interactions, report.rejected) == (6, 11, 24, {})
    assert report.items_per_language == {"en": 4, "und": 2, "fr": 1, "es": 1, "nl": 1, "fa": 1, "no": 1}
    assert report.texts_per_language == report.items_per_language
    (note,) = report.notes
    assert note.startswith("no times in the source, but its ratings are in order of time")
    inter = lines(tmp_path, "inter")
    assert inter[0] == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    assert [inter[1], inter[10], inter[-1]] == ["1\t1\t1\t2", "3\t9\t5\t11", "6\t8\t4\t25"]
    items = lines(tmp_path, "item")
    assert (
        items[0] == "item_id:token\titem_language:token\tgoodreads_book_id:token\tpublication_year:token\tauthor:token"
    )
    assert [items[1], items[2], items[3], items[6], items[10], items[-1]] == [
        "1\ten\t2767052\t2008\tSuzanne Collins",
        "2\ten\t3\t1997\tJ.K. Rowling",
        "3\ten\t1371\t-750\tHomer",
        "6\tnl\t9460487\t\tHarry Mulisch",
        "10\tno\t800\t2007\tJo Nesbø",
        "11\ten\t900\t2000\tIsabel Allende",
    ]
    assert not (tmp_path / "out" / "d" / "d.user").exists()


def test_a_text_has_the_original_title_unless_it_is_the_title(
    source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    convert(Goodbooks(input=source))
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    games = {"title": "The Hunger Games (The Hunger Games, #1)", "authors": "Suzanne Collins", "year": "2008"}
    assert store.display("1") == ItemText("1", "en", games, "display")
    potter = {
        "title": "Harry Potter and the Sorcerer's Stone (Harry Potter, #1)",
        "original_title": "Harry Potter and the Philosopher's Stone",
        "authors": "J.K. Rowling, Mary GrandPré",
        "year": "1997",
    }
    assert store.display("2") == ItemText("2", "en", potter, "display")
    assert store.display("6") == ItemText("6", "nl", {"title": "De aanslag ", "authors": "Harry Mulisch"}, "display")
    originals = {
        text.item_id: text.fields.get("original_title") for text in map(store.display, map(str, range(1, 12))) if text
    }
    assert {item: title for item, title in originals.items() if title is not None} == {
        "2": "Harry Potter and the Philosopher's Stone",
        "3": "Ἰλιάς",
        "7": "Complete Harry Potter Boxed Set",
        "8": 'I "Am" Malala',
        "11": "Retrato en sepia",
    }
    assert not any(store.parallel(str(item)) for item in range(1, 12))


def test_bad_rows_are_listed(source: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    with open(source / "books.csv", "a", encoding="utf-8") as file:
        file.write("12,1,1,1,1,,,A,2000.0,T,T,zzz-nothing,4,u\n13,2,2,2,2,,,A,long ago,T,T,eng,4,u\n14,3,3")
    with open(source / "ratings.csv", "a", encoding="utf-8") as file:
        file.write("7,12,3\n7,1,five\n7,1\n")
    report = convert(Goodbooks(input=source), max_bad=0.5)
    assert (report.items, report.interactions, report.rows_read) == (13, 25, 27 + 14)
    assert report.omitted == {"no number in column 'original_publication_year'": 1}
    assert report.unread_languages == {"mul": 1, "zzz-nothing": 1}
    rows = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    assert sorted((Path(row["file"]).name, row["line"], row["reason"]) for row in rows) == [
        ("books.csv", 14, "no number in column 'original_publication_year'"),
        ("books.csv", 15, "14 cells expected"),
        ("ratings.csv", 27, "no number in column 'rating'"),
        ("ratings.csv", 28, "3 cells expected"),
    ]


def test_the_first_release_is_refused(source: Path) -> None:
    header = BOOKS.splitlines()[0].replace("book_id,goodreads_book_id,", "id,book_id,", 1)
    (source / "books.csv").write_text(header + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"books\.csv: unknown column 'goodreads_book_id'"):
        list(Goodbooks(input=source).items(Rejects(source / "r")))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        Goodbooks()
    with pytest.raises(DataError, match=r"file .*books\.csv does not exist"):
        list(Goodbooks(input=tmp_path).items(Rejects(tmp_path / "r")))
