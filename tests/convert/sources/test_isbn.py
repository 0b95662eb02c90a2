from __future__ import annotations

import pytest

from recbole_xling.convert.sources.book_crossing import isbn_language


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
def test_language_of_the_registration_group(isbn: str, language: str) -> None:
    assert isbn_language(isbn) == language


@pytest.mark.parametrize(
    "isbn", ["", "B0000633PU", "3", "32572270433", "3-257-22704", "034545104x", "9770195153441", "٣257227043"]
)
def test_no_isbn(isbn: str) -> None:
    assert isbn_language(isbn) == "und"
