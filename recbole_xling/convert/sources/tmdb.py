"""Films by language as listed from The Movie Database (TMDB): native titles and overviews.

Files ``top<number>_<language>_films.csv`` with the columns ``id;title;overview;release_date;vote_average``. Semicolons
inside of texts are not always quoted and quotes are of two kinds, so no CSV reader takes the rows apart: id, date and
vote are taken from the ends, and what is left is title and overview.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from recbole_xling.convert.base import SourceLocation
from recbole_xling.convert.reading.compressed import PERHAPS_PACKED, numbered_lines
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.errors import DataError, unknown_name

LANGUAGES = {
    "american": "en", "arabic": "ar", "bulgarian": "bg", "catalan": "ca", "chinese": "zh", "croatian": "hr",
    "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "estonian": "et", "finnish": "fi", "french": "fr",
    "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi", "hungarian": "hu", "icelandic": "is",
    "indonesian": "id", "italian": "it", "japanese": "ja", "korean": "ko", "latvian": "lv", "lithuanian": "lt",
    "norwegian": "no", "persian": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru",
    "serbian": "sr", "slovak": "sk", "slovenian": "sl", "spanish": "es", "swedish": "sv", "tamil": "ta",
    "telugu": "te", "thai": "th", "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
"""Language tag by the language's name in a file name."""

_FILE_NAME = re.compile(rf"top[0-9]*_(?P<language>[a-z]+)_films\.csv{PERHAPS_PACKED}")
_HEADER = "id;title;overview;"
_ROW = re.compile(r"(?P<id>[0-9]+);(?P<texts>.*);[0-9-]*;[0-9.]*\s*")
_QUOTED = (re.compile(r'"((?:[^"]|"")*)"'), re.compile(r"'((?:[^']|'')*)'"))
_PLACEHOLDER = re.compile(r"no overview\b", re.IGNORECASE)


class TmdbFilm(NamedTuple):
    """A film: TMDB's id, the language of its file, title and overview in that language, and where it comes from."""

    tmdb_id: str
    language: str
    title: str
    overview: str
    location: SourceLocation


def read_films(folder: Path, rejects: Rejects) -> dict[str, TmdbFilm]:
    """Return the films of all files of a folder by id; of two rows with an id the first one counts.

    Raises:
        DataError: the folder has no such file, or its language is unknown.
    """
    named = ((path, _FILE_NAME.fullmatch(path.name)) for path in sorted(folder.glob("top*_films.csv*")))
    files = [(path, found["language"]) for path, found in named if found]
    if not files:
        raise DataError(f"{folder} has no file top..._<language>_films.csv")
    films: dict[str, TmdbFilm] = {}
    for path, name in files:
        if name not in LANGUAGES:
            raise DataError(f"{path}: {unknown_name('language', name, LANGUAGES)}")
        rejects.begin(path)
        for number, line in numbered_lines(path):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r")
            if not text.strip() or (number == 1 and text.startswith(_HEADER)):
                continue
            rejects.saw(path, 1)
            row = _ROW.fullmatch(text)
            if row is None or "\0" in text or "\ufffd" in text:
                rejects.add(path, number, "no row of id;title;overview;release_date;vote_average in UTF-8", text)
                continue
            title, overview = _title_and_overview(row["texts"])
            film = TmdbFilm(row["id"], LANGUAGES[name], title, overview, SourceLocation(str(path), number))
            films.setdefault(film.tmdb_id, film)
    return films


def _title_and_overview(texts: str) -> tuple[str, str]:
    """Take ``title;overview`` apart at the first semicolon that is not within quotes around the title."""
    for quoted in _QUOTED:
        found = quoted.match(texts)
        if found and texts[found.end() : found.end() + 1] == ";":
            title, overview = texts[: found.end()], texts[found.end() + 1 :]
            break
    else:
        title, _, overview = texts.partition(";")
    title, overview = _unquoted(title), _unquoted(overview)
    return title, "" if _PLACEHOLDER.match(overview) else overview


def _unquoted(text: str) -> str:
    for quoted, quote in zip(_QUOTED, "\"'", strict=True):
        found = quoted.fullmatch(text.strip())
        if found:
            return found[1].replace(quote * 2, quote).strip()
    return text.strip()
