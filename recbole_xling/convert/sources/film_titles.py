"""Film titles as MovieLens writes them: article behind, other titles in brackets, then the year."""

from __future__ import annotations

import re
from typing import NamedTuple

_ARTICLES = "|".join(
    """
    The A An Le La L' Les Un Une Il Lo I Gli Uno Una El Los Las Der Die Das Den Dem Ein Eine O Os As Um Uma
    De Het Een Det En Et Ett
    """.split()
)
_ARTICLE_BEHIND = re.compile(rf"(?P<rest>.+), (?P<article>{_ARTICLES})", re.DOTALL)
_YEAR = re.compile(r"(?<=\S)\s+\((?P<year>[0-9]{4})(?:\s*[-–]\s*(?:[0-9]{4})?\s*)?\)?$")
_BRACKETS = re.compile(r"(?<=\S)\s+\((?P<inside>[^()]*)\)$")
_ALSO = re.compile(r"a\.?k\.?a\.?:? ", re.IGNORECASE)


class FilmTitle(NamedTuple):
    """A title taken apart.

    Attributes:
        title: the first title, article in front.
        alternatives: the titles in brackets, article in front.
        year: four digits, the first of a range; empty if the title has none.
    """

    title: str
    alternatives: tuple[str, ...]
    year: str


def split_title(text: str) -> FilmTitle:
    """Take a title of MovieLens apart: ``Postino, Il (Postman, The) (1994)`` is Il Postino, The Postman, 1994."""
    text, year, alternatives = text.strip(), "", []
    if found := _YEAR.search(text):
        text, year = text[: found.start()].rstrip(), found["year"]
    while found := _BRACKETS.search(text):
        text = text[: found.start()].rstrip()
        alternatives.append(article_in_front(_ALSO.sub("", found["inside"].strip(), count=1)))
    return FilmTitle(article_in_front(text), tuple(title for title in reversed(alternatives) if title), year)


def article_in_front(title: str) -> str:
    """Return ``Big Blue, The`` as ``The Big Blue``."""
    found = _ARTICLE_BEHIND.fullmatch(title)
    if not found:
        return title
    space = "" if found["article"].endswith("'") else " "
    return found["article"] + space + found["rest"]
