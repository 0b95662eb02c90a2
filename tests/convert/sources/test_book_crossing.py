"""Book-Crossing as it was published and as its copies are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dumps.book_crossing import write_copied, write_published
from made import lines, rejected

from recbole_xling.convert import ConvertReport
from recbole_xling.convert.reading import compressed
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.reading.text_table import Layout
from recbole_xling.convert.sources.book_crossing import BookCrossing, find_layout, isbn_language
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "bx"
    folder.mkdir()
    write_published(folder)
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    write_copied(folder)
    return folder


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
        "1\t0195153448\t0\t14266743",
        "3\t0345451041\t9\t5988519",
        "6\t3257227043\t1\t7024037",
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
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
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


def test_explicit_only_leaves_out_interactions_without_a_rating(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(BookCrossing(input=published, explicit_only=True))
    assert report.interactions == 21
    assert report.notes[1] == "3 interactions without a rating were left out"
    inter = lines(tmp_path, "inter")
    assert [inter[1], inter[10], inter[-1]] == [
        "1\t3257227043\t1\t15599265",
        "3\t9727112345\t10\t1244405",
        "6\t3257227043\t1\t7024037",
    ]


def test_books_that_only_the_ratings_have_are_rejected_or_kept_without_text(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(published / "BX-Book-Ratings.csv", "a", newline="") as file:
        file.write('"7";"3499-12345 x";"8"\r\n"8";"349912345X";"0"\r\n"8";"O67174142X";"5"\r\n"8";"\\"034";"5"\r\n')
    report = convert(BookCrossing(input=published), max_bad=0.5)
    assert (report.items, report.interactions, report.rejected) == (
        11,
        24,
        {
            "an unknown item": 3,
            "a tab, a line break, a NUL, or a quote at the start, which RecBole cannot read back": 1,
        },
    )
    assert [place[:2] for place in rejected(tmp_path / "out/d/d.rejects.jsonl")] == [
        ("BX-Book-Ratings.csv", line) for line in (26, 27, 28, 29)
    ]
    report = convert(BookCrossing(input=published, keep_unknown=True), max_bad=0.5)
    assert (report.items, report.interactions, sum(report.texts_per_language.values())) == (13, 27, 11)
    assert lines(tmp_path, "item")[-2:] == ["349912345X\tde\t\t", "O67174142X\tund\t\t"]
    assert lines(tmp_path, "inter")[-3:] == [
        "7\t349912345X\t8\t14556274",
        "8\t349912345X\t0\t15824949",
        "8\tO67174142X\t5\t13371301",
    ]
    assert [place[:2] for place in rejected(tmp_path / "out/d/d.rejects.jsonl")] == [("BX-Book-Ratings.csv", 29)]


def test_bad_rows_of_the_published_files_are_listed(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(published / "BX-Books.csv", "a", encoding="latin-1", newline="") as file:
        file.write('"0789466953";"Readers (Level 4)\\";Michael T.";"2000";"DK";"http://i/a.jpg"\r\n')
        file.write('"0195153448";"Classical Mythology";"M";"2002";"Oxford";"http://i/b.jpg"\r\n')
        file.write('"0000000001";"";"M";"2002";"Oxford";"http://i/c.jpg"\r\n')
        file.write('"0000000002";"Cut o')
    with open(published / "BX-Book-Ratings.csv", "a", newline="") as file:
        file.write('"9";"0195153448"\r\n"9";"0195153448";"good"\r\n"9";"0000000002";"3"\r\n"9";"01951')
    report = convert(BookCrossing(input=published), max_bad=0.5)
    assert (report.items, report.interactions, report.rows_read) == (11, 24, 24 + 4 + 11 + 4 + 5)
    assert sorted(rejected(tmp_path / "out/d/d.rejects.jsonl")) == [
        ("BX-Book-Ratings.csv", 26, "3 cells expected"),
        ("BX-Book-Ratings.csv", 27, "no number in column 'Book-Rating'"),
        ("BX-Book-Ratings.csv", 28, "an unknown item"),
        ("BX-Book-Ratings.csv", 29, "a quote is not closed"),
        ("BX-Books.csv", 13, "6 cells expected"),
        ("BX-Books.csv", 14, "a second row of the same item"),
        ("BX-Books.csv", 15, "nothing in column 'Book-Title'"),
        ("BX-Books.csv", 16, "a quote is not closed"),
    ]


def test_cells_out_of_place_and_a_broken_byte_in_a_copy_are_listed(
    copied: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(copied / "Books.csv", "ab") as file:
        file.write(b'0789466953,"Readers (Level 4)\\"";Michael T.",2000,DK,http://i/a.jpg,\n')
        file.write('2000000000,"Plus \\""réel\\"" que",M,2002,Seuil,http://i/b.jpg\n'.encode())
        file.write("".join(f"300000000{i},Müll,M,2002,Seuil,\n" for i in range(5)).encode())
        file.write(b"3000000009,M\xfcll,M,2002,Seuil,\n")
    (copied / "Users.csv").unlink()
    report = convert(BookCrossing(input=copied), max_bad=0.5)
    assert (report.users, report.items, report.interactions) == (6, 18, 24)
    assert not (tmp_path / "out" / "d" / "d.user").exists()
    assert rejected(tmp_path / "out/d/d.rejects.jsonl") == [("Books.csv", 20, "not valid utf-8")]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": "Readers (Level 4)", "author": "Michael T.", "year": "2000", "publisher": "DK"}
    assert store.display("0789466953") == ItemText("0789466953", "en", fields, "display")
    assert "1 books had author, year and publisher in the cells of their neighbors" in report.notes
    text = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl").display("2000000000")
    assert text is not None and text.fields["title"] == 'Plus \\"réel\\" que'


# each user's rows in the order of the ISBNs, as in the published file
SORTED = [(f"{u}", f"{g}{i:08}X", "5") for u in range(40) for g, i in ((0, u), (1, u), (2, u), (3, u), (8, u))]


def test_what_comes_last_is_left_to_chance_and_the_same_in_every_order_of_the_rows(
    tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    books = "ISBN,Book-Title\n" + "".join(f"{isbn},T {isbn}\n" for _, isbn, _ in SORTED)
    (tmp_path / "Books.csv").write_text(books)
    last: list[dict[str, str]] = []
    for rows in (SORTED, SORTED[::-1]):
        (tmp_path / "Ratings.csv").write_text("User-ID,ISBN,Book-Rating\n" + "".join(",".join(r) + "\n" for r in rows))
        assert "a hash of user and book" in convert(BookCrossing(input=tmp_path)).notes[0]
        cells = [line.split("\t") for line in lines(tmp_path, "inter")[1:]]
        assert all(float(time) < 2**24 for *_, time in cells)  # exact in single precision
        last.append({user: isbn for user, isbn, *_ in sorted(cells, key=lambda row: int(row[-1]))})
    assert last[0] == last[1]
    groups = [isbn[0] for isbn in last[0].values()]
    assert all(3 <= groups.count(group) <= 15 for group in "01238")  # of 40; in the order of the file all are 8


@pytest.mark.parametrize(
    ("books", "ratings", "users"),
    [
        ("ISBN;Title;Author;Year;Book-Publisher", "User-ID;ISBN;Rating", "User-ID;User-Country;User-Age"),
        (
            "isbn,book_title,book_author,year_of_publication,publisher",
            "user_id,isbn,book_rating",
            "user_id,location,age",
        ),
        ("ISBN,Book Title,Author,Year,PUBLISHER", "User ID,ISBN,Rating", "user,User-Location,age"),
    ],
)
def test_other_published_headers_are_read(
    tmp_path: Path, convert: Callable[..., ConvertReport], books: str, ratings: str, users: str
) -> None:
    cells = {"Books": (books, "3257227043,Das Parfum,Patrick Suskind,1994,Diogenes"),
             "Ratings": (ratings, "1,3257227043,7"), "Users": (users, "1,Germany,18")}  # fmt: skip
    for name, (header, row) in cells.items():
        (tmp_path / f"{name}.csv").write_text(f"{header}\n{row.replace(',', ';' if ';' in header else ',')}\n")
    report = convert(BookCrossing(input=tmp_path))
    assert (report.items, report.interactions, report.rejected, report.omitted) == (1, 1, {}, {})
    assert lines(tmp_path, "item")[1] == "3257227043\tde\t1994\tPatrick Suskind"
    assert lines(tmp_path, "user")[1] == "1\tgermany\t18"
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": "Das Parfum", "author": "Patrick Suskind", "year": "1994", "publisher": "Diogenes"}
    assert store.display("3257227043") == ItemText("3257227043", "de", fields, "display")


def test_files_without_what_is_not_needed_are_read_and_a_needed_column_is_named(
    tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    (tmp_path / "books.csv").write_text("ISBN,Title\n3257227043,Das Parfum\n")
    (tmp_path / "ratings.csv").write_text("user,ISBN,rating\n1,3257227043,7\n")
    (tmp_path / "users.csv").write_text("User-ID;Age\n1;18\n")
    convert(BookCrossing(input=tmp_path))
    assert lines(tmp_path, "user")[1] == "1\t\t18"
    (tmp_path / "books.csv").write_text("ISBN,Name\n3257227043,Das Parfum\n")
    with pytest.raises(DataError, match=r"books\.csv: unknown column 'Book-Title'.*Known: ISBN, Name"):
        convert(BookCrossing(input=tmp_path))


def test_a_year_that_is_no_number_costs_neither_the_book_nor_its_ratings(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    with open(published / "BX-Books.csv", "a", encoding="latin-1", newline="") as file:
        file.write('"2000000000";"Plus";"M";"ca. 1990";"Seuil";"http://i/b.jpg"\r\n')
    with open(published / "BX-Book-Ratings.csv", "a", newline="") as file:
        file.write('"9";"2000000000";"3"\r\n')
    report = convert(BookCrossing(input=published))
    assert (report.items, report.interactions, report.rejected) == (12, 25, {})
    assert report.omitted == {"a year that is no number": 1}
    assert rejected(tmp_path / "out/d/d.rejects.jsonl") == [("BX-Books.csv", 13, "a year that is no number")]
    assert lines(tmp_path, "item")[-1] == "2000000000\tfr\t\tM"


def test_isbns_get_back_the_zeros_that_they_lost(tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    """The books have lost zeros, some ratings have not; a number with another check digit is no ISBN."""
    (tmp_path / "Books.csv").write_text("ISBN,Title\n2005018,Clara Callan\n195153448,Mythology\n195153449,Other\n")
    rows = "1,0002005018,5\n1,195153448,5\n2,0195153448,5\n2,2005018,5\n2,195153449,5\n"
    (tmp_path / "Ratings.csv").write_text(f"User-ID,ISBN,Rating\n{rows}")
    report = convert(BookCrossing(input=tmp_path))
    assert lines(tmp_path, "item")[1:] == ["0002005018\ten\t\t", "0195153448\ten\t\t", "195153449\tund\t\t"]
    assert [line.split("\t")[:2] for line in lines(tmp_path, "inter")[1:]] == [
        ["1", "0002005018"], ["1", "0195153448"], ["2", "0195153448"], ["2", "0002005018"], ["2", "195153449"],
    ]  # fmt: skip
    assert "2 ISBNs had lost zeros in front, which they got back, in books and ratings alike" in report.notes


def test_lines_that_end_with_a_mere_return_are_read(
    published: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    convert(BookCrossing(input=published))
    before = {suffix: lines(tmp_path, suffix) for suffix in ("inter", "item", "user", "itemtext.jsonl")}
    for path in published.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    convert(BookCrossing(input=published))
    assert {suffix: lines(tmp_path, suffix) for suffix in before} == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        BookCrossing()
    with pytest.raises(DataError, match=r"neither BX-Books\.csv nor Books\.csv"):
        list(BookCrossing(input=tmp_path).items(Rejects(tmp_path / "r")))


@pytest.mark.parametrize(
    ("isbn", "language"),
    [
        ("0195153448", "en"),
        ("034545104X", "en"),
        ("2070360024", "fr"),
        ("3257227043", "de"),
        ("9788420636", "und"),  # of ten characters: group 978, Nigeria
        ("9788420636511", "es"),
        ("6074001234", "es"),
        ("6171234567", "und"),  # group 617, Ukraine, lies between two that are in the table
        ("9571234567", "zh-Hant"),
        ("9990512345", "es"),
        ("9990112345", "und"),
        ("8020412345", "und"),  # former Czechoslovakia
        ("9791012345678", "fr"),
        ("9798123456789", "en"),
        ("9799123456789", "und"),
    ],
)
def test_an_isbn_has_the_language_of_its_registration_group(isbn: str, language: str) -> None:
    assert isbn_language(isbn) == language


@pytest.mark.parametrize(
    "isbn", ["", "B0000633PU", "3", "32572270433", "3-257-22704", "034545104x", "9770195153441", "٣257227043"]
)
def test_what_is_not_an_isbn_has_no_language(isbn: str) -> None:
    assert isbn_language(isbn) == "und"


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (b'"a";"b"\n"1";"x, y, z"\n', Layout(";")),
        (b'a,b\n1,"x; ""y"""\n', Layout(",")),
        (b'"a";"b"\n"1";"the \\"real\\" one"\n', Layout(";", escape="\\")),
        (b'a,b\n1,"the \\"real\\" one"\n', Layout(",", escape="\\")),
        (b'a,b\n1,"the \\""real\\"" one\\"\n"2\\",x\n', Layout(",")),  # backslashes that are text
        ('a,b\n1,"Müll"\n'.encode(), Layout(",")),
        ('a,b\n1,"Müll"\n'.encode("latin-1"), Layout(",", encoding="latin-1")),
        (b"", Layout(",")),
    ],
)
def test_the_layout_of_a_file_is_found(tmp_path: Path, data: bytes, layout: Layout) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    assert find_layout(tmp_path / "t.csv") == layout


def test_damaged_lines_do_not_change_the_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n" + "1,Müll\n".encode() * 9 + b"2,M\xfcll\n")
    assert find_layout(path).encoding == "utf-8"
    path.write_bytes(b"a,b\n" + "1,Müll\n".encode() * 8 + b"2,M\xfcll\n")
    assert find_layout(path).encoding == "latin-1"


def test_the_layout_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_layout(tmp_path / "t.csv")
