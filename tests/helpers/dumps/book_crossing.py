"""Book-Crossing as it was published and as its copies are."""

from __future__ import annotations

import csv
from pathlib import Path

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


_TABLES = {"ratings": ratings(24), "books": BOOKS, "users": USERS}


def semicolons(rows: Rows) -> str:
    """The published files: cells quoted, quotes escaped, only a missing age bare."""
    quoted = [[cell if cell == "NULL" else '"' + cell.replace('"', '\\"') + '"' for cell in row] for row in rows]
    return "".join(";".join(row) + "\r\n" for row in quoted)


def write_published(folder: Path) -> None:
    """Write the files as they were published: semicolons, Latin-1, escaped quotes."""
    for what, rows in _TABLES.items():
        (folder / NAMES[what]).write_bytes(semicolons(rows).encode("latin-1"))


def write_copied(folder: Path) -> None:
    """Write the files as copies of them are: commas, UTF-8, doubled quotes."""
    for what, rows in _TABLES.items():
        with open(folder / COPY_NAMES[what], "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
