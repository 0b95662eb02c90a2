"""Amazon Reviews in the layouts of 2018 and 2023."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dumps.amazon_reviews import META_2018, META_2023, REVIEWS_2018, REVIEWS_2023, write_lines
from made import lines

from recbole_xling.convert import ConvertReport
from recbole_xling.convert.sources.amazon_reviews import AmazonReviews
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "amazon"


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.zst"])
def test_the_release_of_2018_becomes_a_dataset(
    suffix: str, folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write_lines(folder / f"Books_5{suffix}", REVIEWS_2018)
    write_lines(folder / f"meta_Books{suffix}", META_2018)
    report = convert(AmazonReviews(input=folder))
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
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": "Book 1", "categories": "Books, Art &amp; Design", "description": "First. Second."}
    assert store.display("0000000001") == ItemText("0000000001", "en", fields, "display")


def test_the_release_of_2023_is_read_from_several_files_in_a_given_language(
    folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write_lines(folder / "review" / "All_Beauty.jsonl.gz", REVIEWS_2023[:15])
    write_lines(folder / "review" / "Baby.jsonl", REVIEWS_2023[15:])
    write_lines(folder / "meta" / "meta_All_Beauty.jsonl.gz", META_2023[:6])
    write_lines(folder / "meta" / "meta_Baby.jsonl", META_2023[6:])
    (folder / "README.md").write_text("not a table")
    (folder / "statistics.json").write_text('{"reviews": 25}')
    report = convert(AmazonReviews(input=folder, language="de"))
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
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": "Cream 1", "brand": "Howard", "categories": "Beauty, Skin", "features": "soft mild"}
    assert store.display("P1") == ItemText("P1", "de", fields, "display")


def test_a_file_and_its_compressed_copy_are_read_once(
    folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    for name, rows in (("reviews", REVIEWS_2023), ("meta_reviews", META_2023)):
        write_lines(folder / f"{name}.jsonl", rows)
    once = convert(AmazonReviews(input=folder)).interactions
    for name, rows in (("reviews", REVIEWS_2023), ("meta_reviews", META_2023)):
        write_lines(folder / f"{name}.jsonl.gz", rows)
    assert convert(AmazonReviews(input=folder)).interactions == once


def test_repeated_products_are_noted_and_bad_rows_listed(
    folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    bad: list[dict[str, Any]] = [{"asin": "none such"}, {"overall": "five"}, {"unixReviewTime": None}]
    write_lines(folder / "reviews.json", REVIEWS_2018 + [REVIEWS_2018[0] | change for change in bad], more=b"{'a': 1\n")
    again = [META_2018[2] | {"also_buy": []}, META_2018[3] | {"title": "Another"}, {"asin": 7, "title": "x"}]
    more = [{"asin": "no text", "title": " "}, {"asin": "broken \ud83d", "title": "x"}]
    write_lines(folder / "meta.json", META_2018 + again + more, more=b"[1]\n\n")
    report = convert(AmazonReviews(input=folder), max_bad=0.5)
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
    with pytest.raises(DataError, match="8 of 46 rows are bad"):
        convert(AmazonReviews(input=folder), max_bad=0.1)


def test_missing_files_and_options_are_named(folder: Path, convert: Callable[..., ConvertReport]) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        AmazonReviews()
    with pytest.raises(ConfigError, match="'Englsh' names no language"):
        AmazonReviews(input=folder, language="Englsh")
    with pytest.raises(DataError, match="amazon does not exist"):
        convert(AmazonReviews(input=folder))
    write_lines(folder / "reviews.json", REVIEWS_2018)
    with pytest.raises(DataError, match="amazon has no metadata"):
        convert(AmazonReviews(input=folder))
    (folder / "reviews.json").unlink()
    write_lines(folder / "meta.json", META_2018)
    with pytest.raises(DataError, match="amazon has no reviews"):
        convert(AmazonReviews(input=folder))
    write_lines(folder / "reviews.json.gz", REVIEWS_2018)
    content = (folder / "reviews.json.gz").read_bytes()
    (folder / "reviews.json.gz").write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"reviews\.json\.gz cannot be read"):
        convert(AmazonReviews(input=folder))
