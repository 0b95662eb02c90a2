"""Amazon Reviews in the layouts of 2018 and 2023."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from made import lines

from recbole_xling.convert import ConvertReport, write_dataset
from recbole_xling.convert.sources.amazon_reviews import AmazonReviews
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

ZSTD = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

REVIEWS_2018: list[dict[str, Any]] = [
    {"overall": 1.0 + i % 5, "verified": True, "reviewTime": "09 1, 2016", "reviewerID": f"A{i // 4}",
     "asin": f"000{i % 11:07}", "style": {"Format:": " Hardcover"}, "reviewerName": "N", "reviewText": "größer\n",
     "summary": "s", "unixReviewTime": 1472688000 + i} for i in range(24)
]  # fmt: skip
META_2018: list[dict[str, Any]] = [
    {"category": ["Books", "Art &amp; Design"], "tech1": "", "description": ["First.", "", "Second."],
     "title": f"Book {i}", "also_buy": ["B1"], "brand": ['"The\nPress"', "", "Müller"][i % 3], "feature": [],
     "price": "$9.99", "asin": f"000{i:07}"} for i in range(12)
]  # fmt: skip
REVIEWS_2023: list[dict[str, Any]] = [
    {"rating": 1.0 + i % 5, "title": "t", "text": "x", "images": [], "asin": f"V{i}", "parent_asin": f"P{i % 10}",
     "user_id": f"AE{i // 5}", "timestamp": 1588687728923 + 1000 * i, "helpful_vote": 0, "verified_purchase": True}
    for i in range(25)
]  # fmt: skip
META_2023: list[dict[str, Any]] = [
    {"main_category": "All Beauty", "title": f"Cream {i}", "average_rating": 4.8, "features": ["soft", "mild"],
     "description": [] if i else ["For skin."], "price": None, "images": [], "store": "Howard" if i % 2 else None,
     "categories": ["Beauty", "Skin"], "details": {"Package": "1"}, "parent_asin": f"P{i}", "bought_together": None}
    for i in range(10)
]  # fmt: skip


def write_lines(path: Path, rows: list[dict[str, Any]], *, more: bytes = b"") -> None:
    """Write JSON lines, compressed as the file's name says."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode() + more
    packed = {".gz": gzip.compress, ".zst": ZSTD.compress}.get(path.suffix, bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "amazon"


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., ConvertReport]:
    def convert(max_bad: float = 0.0, **options: str) -> ConvertReport:
        converter = AmazonReviews(input=tmp_path / "amazon", **options)
        return write_dataset(converter, tmp_path / "out", "books", max_bad=max_bad, show_progress=False)

    return convert


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.zst"])
def test_2018(suffix: str, folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    write_lines(folder / f"Books_5{suffix}", REVIEWS_2018)
    write_lines(folder / f"meta_Books{suffix}", META_2018)
    report = convert()
    assert (report.users, report.items, report.interactions, report.rejected) == (6, 12, 24, {})
    assert report.texts_per_language == {"en": 12}
    inter = lines(tmp_path, "inter")
    assert [inter[0], inter[1], inter[10], inter[-1]] == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "A0\t0000000000\t1\t1472688000",
        "A2\t0000000009\t5\t1472688009",
        "A5\t0000000001\t4\t1472688023",
    ]
    items = lines(tmp_path, "item")
    assert [items[0], items[1], items[10], items[-1]] == [
        "item_id:token\titem_language:token\tbrand:token",
        '0000000000\ten\tThe Press"',
        '0000000009\ten\tThe Press"',
        "0000000011\ten\tMüller",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "books" / "books.itemtext.jsonl")
    fields = {"title": "Book 1", "categories": "Books, Art &amp; Design", "description": "First. Second."}
    assert store.display("0000000001") == ItemText("0000000001", "en", fields, "display")


def test_2023_in_several_files_and_another_language(
    folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write_lines(folder / "review" / "All_Beauty.jsonl.gz", REVIEWS_2023[:15])
    write_lines(folder / "review" / "Baby.jsonl", REVIEWS_2023[15:])
    write_lines(folder / "meta" / "meta_All_Beauty.jsonl.gz", META_2023[:6])
    write_lines(folder / "meta" / "meta_Baby.jsonl", META_2023[6:])
    (folder / "README.md").write_text("not a table")
    (folder / "statistics.json").write_text('{"reviews": 25}')
    report = convert(language="de")
    assert (report.users, report.items, report.interactions, report.rejected) == (5, 10, 25, {})
    assert (report.items_per_language, report.rows_read) == ({"de": 10}, 35)
    assert report.notes == ("neither reviews nor metadata, so not read: statistics.json",)
    inter = lines(tmp_path, "inter")
    assert [inter[1], inter[10], inter[-1]] == [
        "AE0\tP0\t1\t1588687728.923",
        "AE1\tP9\t5\t1588687737.923",
        "AE4\tP4\t5\t1588687752.923",
    ]
    items = lines(tmp_path, "item")
    assert [items[1], items[10]] == ["P0\tde\t", "P9\tde\tHoward"]
    store = ItemTextStore.load(tmp_path / "out" / "books" / "books.itemtext.jsonl")
    fields = {"title": "Cream 1", "brand": "Howard", "categories": "Beauty, Skin", "features": "soft mild"}
    assert store.display("P1") == ItemText("P1", "de", fields, "display")


def test_repeated_and_bad_rows(folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [{"asin": "none such"}, {"overall": "five"}, {"unixReviewTime": None}]
    write_lines(folder / "reviews.json", REVIEWS_2018 + [REVIEWS_2018[0] | change for change in bad], more=b"{'a': 1\n")
    again = [META_2018[2] | {"also_buy": []}, META_2018[3] | {"title": "Another"}, {"asin": 7, "title": "x"}]
    more = [{"asin": "no text", "title": " "}, {"asin": "broken \ud83d", "title": "x"}]
    write_lines(folder / "meta.json", META_2018 + again + more, more=b"[1]\n\n")
    report = convert(max_bad=0.5)
    assert (report.items, report.interactions, report.rows_read) == (13, 24, 28 + 18)
    assert "1 rows of the metadata repeat a product with the same text" in report.notes
    found = sorted((json.loads(line) for line in lines(tmp_path, "rejects.jsonl")), key=lambda row: row["line"])
    assert [(Path(row["file"]).name, row["line"], row["reason"]) for row in found] == [
        ("meta.json", 14, "a second row of the same item"),
        ("meta.json", 15, "no text in column 'asin'"),
        ("meta.json", 16, "an empty text"),
        ("meta.json", 17, "a tab, a line break, a NUL, or a quote at the start, which RecBole cannot read back"),
        ("meta.json", 18, "not a JSON object in UTF-8"),
        ("reviews.json", 25, "an unknown item"),
        ("reviews.json", 26, "no number in column 'overall'"),
        ("reviews.json", 27, "nothing in column 'unixReviewTime'"),
        ("reviews.json", 28, "not a JSON object in UTF-8"),
    ]
    with pytest.raises(DataError, match="9 of 46 rows are bad"):
        convert(max_bad=0.1)


def test_what_is_missing_is_named(folder: Path, convert: Callable[..., ConvertReport]) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        AmazonReviews()
    with pytest.raises(ConfigError, match="'Englsh' names no language"):
        AmazonReviews(input=folder, language="Englsh")
    with pytest.raises(DataError, match="there is no folder"):
        convert()
    write_lines(folder / "reviews.json", REVIEWS_2018)
    with pytest.raises(DataError, match="there are no metadata"):
        convert()
    (folder / "reviews.json").unlink()
    write_lines(folder / "meta.json", META_2018)
    with pytest.raises(DataError, match="there are no reviews"):
        convert()
    write_lines(folder / "reviews.json.gz", REVIEWS_2018)
    content = (folder / "reviews.json.gz").read_bytes()
    (folder / "reviews.json.gz").write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"reviews\.json\.gz cannot be read"):
        convert()
