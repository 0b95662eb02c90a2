"""Damaged files end in a data set that can be read, or in an error that says what is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from recbole_xling.convert import Converter, write_dataset
from recbole_xling.convert.movielens import MovieLens
from recbole_xling.convert.table import TableConverter
from recbole_xling.errors import XlingError
from recbole_xling.text.store import ItemTextStore

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(f"{1 + i // 4},{1 + i % 10},{i % 5},{i}\n" for i in range(60))
MOVIES = "movieId,title,genres\n" + "".join(f'{i},"Film {i}, The (Été) ({1990 + i})",War\n' for i in range(1, 11))
LINKS = "movieId,imdbId,tmdbId\n" + "".join(f"{i},0,{i * 7}\n" for i in range(1, 11))
TMDB = "id;title;overview;release_date;vote_average\n" + "".join(
    f'{i * 7};"Der ""Film"" {i}";Er; sieht {i};1999-01-01;7.5\n' for i in range(1, 9)
)
TITLES = "movieId\tlanguage\ttitle\n" + "".join(f"{i}\tes\tPelícula {i}\n" for i in range(1, 9))
CLICKS = "".join(
    json.dumps({"user_id": f"u{i // 4}", "item_id": i % 10, "stars": i % 5, "at": f"2024-01-{1 + i % 28:02}"}) + "\n"
    for i in range(60)
)
ITEMS = "".join(json.dumps({"item_id": i, "name": f"Ding {i}", "lang": "de"}) + "\n" for i in range(10))
FILES = {"ratings.csv": RATINGS, "movies.csv": MOVIES, "links.csv": LINKS, "top8_german_films.csv": TMDB,
         "titles.tsv": TITLES, "clicks.jsonl": CLICKS, "items.jsonl": ITEMS}  # fmt: skip
ODD = [b"\0", b'"', b"'", b"\n", b"\r", b",", b";", b"\t", b"\xff", b"NA", b"nan", b"1e999", b"{", b"[]", b"null",
       b"\xef\xbb\xbf", b"9" * 40, b"\\", b"\xe2\x80\xa8"]  # fmt: skip


def movielens(folder: Path) -> Converter:
    return MovieLens(input=folder, tmdb_text=folder, titles=folder / "titles.tsv")


def table(folder: Path) -> Converter:
    names = {"rating": "stars", "time": "at", "text": "title=name", "language": "lang"}
    return TableConverter(input=folder / "clicks.jsonl", items=folder / "items.jsonl", **names)


def damaged(content: bytes, choice: random.Random) -> bytes:
    """Cut, change or repeat a few places of a file."""
    for _ in range(choice.randint(1, 5)):
        place = choice.randrange(len(content) + 1)
        end = min(len(content), place + choice.randint(0, 40))
        content = choice.choice(
            [
                content[:place],
                content[:place] + content[end:],
                content[:place] + choice.choice(ODD) + content[place:],
                content[:place] + choice.choice(ODD) + content[end:],
                content[:place] + content[place:end] + content[place:],
                content[:place] + bytes([choice.randrange(256)]) + content[place + 1 :],
            ]
        )
    return content


@pytest.mark.parametrize(
    ("file", "converter"), [(file, table if file.endswith(".jsonl") else movielens) for file in FILES]
)
def test_damaged_files(file: str, converter: Callable[[Path], Converter], tmp_path: Path) -> None:
    choice = random.Random(file)
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    written = 0
    for _ in range(25):
        (tmp_path / file).write_bytes(damaged(FILES[file].encode(), choice))
        try:
            report = write_dataset(converter(tmp_path), tmp_path / "out", "d", max_bad=0.3, show_progress=False)
        except XlingError:
            continue
        written += 1
        for suffix, rows in (("inter", report.interactions), ("item", report.items)):
            read = pd.read_csv(report.folder / f"d.{suffix}", sep="\t", dtype=str)  # as RecBole reads
            assert len(read) == rows
            assert read.iloc[:, :2].notna().all(axis=None)
        ItemTextStore.load(report.folder / "d.itemtext.jsonl")
    assert written > 0
