"""XMarket: several markets and categories, in one folder or in folders of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dumps.xmarket import MARKETS, write_market
from made import lines

from recbole_xling.convert import ConvertReport
from recbole_xling.convert.sources.xmarket import LANGUAGES, XMarket
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.language.tags import is_language
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for market, numbers in MARKETS.items():
        write_market(tmp_path / "xm" / (market if market != "jp" else "jp/Home"), market, numbers)
    return tmp_path / "xm"


def test_all_markets_become_one_dataset(source: Path, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    report = convert(XMarket(input=source))
    assert (report.users, report.items, report.interactions, report.rejected) == (20, 12, 120, {})
    assert report.items_per_language == {"en": 6, "de": 5, "ja": 1}
    assert report.texts_per_language == {"en": 9, "de": 5, "ja": 2}
    assert list(report.notes) == ["4 texts of products that had one in the same language were left out"]
    inter = lines(tmp_path, "inter")
    assert [inter[0], inter[1], inter[10], inter[-1]] == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "de0\tB06\t1\t1420070400",
        "de3\tB07\t4\t1420329600",
        "us0\tB07\t1\t1420502400",
    ]
    users = lines(tmp_path, "user")
    assert [users[0], users[1], users[10], users[-1]] == [
        "user_id:token\tuser_language:token\tmarket:token",
        "de0\tde\tde",
        "jp4\tja\tjp",
        "us4\ten\tus",
    ]
    items = lines(tmp_path, "item")
    assert [items[0], items[1], items[10], items[-1]] == [
        "item_id:token\titem_language:token\tbrand:token",
        "B06\tde\tBrand de",
        "B01\ten\tBrand us",
        "B03\ten\tBrand us",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": "de 6", "brand": "Brand de", "categories": "Home, Küche", "features": "a b"}
    assert store.display("B06") == ItemText("B06", "de", fields, "display")
    assert [(text.language, text.fields["title"]) for text in store.parallel("B06")] == [("en", "uk 6")]


def test_the_order_of_markets_decides_which_shows_a_product(
    source: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write_market(source, "us", range(7, 9), "Books")
    report = convert(XMarket(input=source, markets="us, de"))
    assert (report.users, report.items, report.interactions) == (10, 11, 8 * 6 + 2 * 6 + 5 * 6)
    assert report.items_per_language == {"en": 9, "de": 2}
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    text = store.display("B06")
    assert text is not None and text.fields["title"] == "us 6"
    assert [text.language for text in store.parallel("B06")] == ["de"]


def test_an_empty_text_does_not_displace_one_of_a_later_market(
    source: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    for market, title in (("de", "Kanne"), ("uk", ""), ("us", "Teapot")):
        with open(source / market / f"metadata_{market}_Kitchen.json", "a") as file:
            file.write(json.dumps({"asin": "B50", "title": title}) + "\n")
            file.write(json.dumps({"asin": "B51", "title": title if market != "de" else ""}) + "\n")
            if market != "de":
                file.write(json.dumps({"asin": "B52", "title": title}) + "\n")
    report = convert(XMarket(input=source))
    assert list(report.notes) == ["4 texts of products that had one in the same language were left out"]
    assert report.rejected == {}
    assert report.omitted == {"an empty text": 4}
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    found = [(text.item_id, text.language, text.fields.get("title"), text.source) for text in store.texts()]
    assert [row for row in found if row[0] >= "B50"] == [
        ("B50", "de", "Kanne", "display"),
        ("B50", "en", "Teapot", "parallel"),
        ("B51", "en", "Teapot", "parallel"),
        ("B51", "de", "", "display"),
        ("B52", "en", "Teapot", "display"),
    ]


def test_a_user_of_two_markets_belongs_to_the_first(
    source: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    with open(source / "uk" / "ratings_uk_Home_Kitchen.txt", "a") as file:
        file.write("de0 B05 1.0 2014-02-28\n")
    report = convert(XMarket(input=source))
    assert (report.users, report.interactions) == (20, 121)
    assert "1 users rated in several markets; they have the language of the first" in report.notes
    assert lines(tmp_path, "user")[1] == "de0\tde\tde"


def test_bad_ratings_and_products_are_listed(
    source: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    with open(source / "uk" / "ratings_uk_Home_Kitchen.txt", "a") as file:
        file.write("uk0 B05 1.0 01.02.2014\nuk0 B05 many 2014-02-01\nuk0 B05 1.0\nuk0 B99 1.0 2014-02-01\n")
    with open(source / "uk" / "metadata_uk_Home_Kitchen.json", "a") as file:
        file.write('{"asin": "B50", "title": ""}\n{"title": "no id"}\nnot JSON\n')
    report = convert(XMarket(input=source), max_bad=0.5)
    assert (report.items, report.interactions, report.rows_read) == (13, 120, 120 + 4 + 20 + 3)
    found = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    first = 2 + 5 * 6
    assert sorted((Path(row["file"]).name.split("_")[0], row["line"], row["reason"]) for row in found) == [
        ("metadata", 6, "an empty text"),
        ("metadata", 7, "no text in column 'asin'"),
        ("metadata", 8, "not a JSON object in UTF-8"),
        ("ratings", first, "no date like 2015-01-31 in column 'date'"),
        ("ratings", first + 1, "no number in column 'rate'"),
        ("ratings", first + 2, "4 cells expected"),
        ("ratings", first + 3, "an unknown item"),
    ]
    with pytest.raises(DataError, match="6 of 147 rows are bad"):
        convert(XMarket(input=source))


def test_missing_files_and_unknown_markets_are_named(source: Path, convert: Callable[..., ConvertReport]) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        XMarket()
    with pytest.raises(ConfigError, match=r"unknown market 'jap'\. Did you mean 'jp'"):
        convert(XMarket(input=source, markets="us,jap"))
    with pytest.raises(DataError, match="no file metadata_fr_<category>"):
        convert(XMarket(input=source, markets="us,fr"))
    (source / "uk" / "metadata_uk_Home_Kitchen.json").unlink()
    with pytest.raises(DataError, match="no file metadata_uk_<category>"):
        convert(XMarket(input=source))
    write_market(source, "zz", range(2))
    with pytest.raises(DataError, match=r"unknown market 'zz'.*leave it out"):
        convert(XMarket(input=source))
    with pytest.raises(DataError, match="none does not exist"):
        list(XMarket(input=source / "none").texts(None))  # type: ignore[arg-type]


def test_every_market_has_a_language() -> None:
    assert all(is_language(language) for language in LANGUAGES.values())
