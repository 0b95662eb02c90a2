"""Amazon-M2 as CSV and as Parquet, with and without test sessions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from dumps.amazon_m2 import PRODUCTS, products, write_csv, write_parquet
from made import lines, load_dataset

from recbole_xling.convert import ConvertReport
from recbole_xling.convert.sources.amazon_m2 import AmazonM2
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "m2"
    folder.mkdir()
    return folder


def write_shards(folder: Path) -> None:
    """Write each table as Spark does: a folder of that name with several files in it."""
    write_parquet(folder)
    for file in list(folder.glob("*.parquet")):
        table = pl.read_parquet(file)
        file.unlink()
        file.mkdir()
        for number, start in enumerate(range(0, table.height, 5)):
            table.slice(start, 5).write_parquet(file / f"part-{number}.parquet")


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_shards])
def test_csv_and_parquet_give_the_same_dataset(
    write: Callable[[Path], None], folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write(folder)
    report = convert(AmazonM2(input=folder))
    assert (report.users, report.items, report.interactions, report.rejected) == (12, 13, 102, {})
    assert report.items_per_language == {"de": 8, "ja": 4, "en": 1}
    assert report.texts_per_language == {"de": 8, "ja": 6, "en": 3}
    assert report.rows_read == 12 + len(PRODUCTS)
    inter = lines(tmp_path, "inter")
    assert [inter[0], *inter[1:4], inter[10], inter[-1]] == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "DE:0\tB000000000\t1",
        "DE:0\tB000000001\t2",
        "DE:0\tB000000000\t3",
        "UK:0\tB000000004\t3",
        "UK:3\tB000000003\t14",
    ]
    users = lines(tmp_path, "user")
    assert [users[0], users[1], users[10], users[-1]] == [
        "user_id:token\tuser_language:token\tmarket:token\tsession_file:token",
        "DE:0\tde\tDE\tsessions_train",
        "DE:3\tde\tDE\tsessions_train",
        "UK:3\ten\tUK\tsessions_train",
    ]
    items = lines(tmp_path, "item")
    assert [items[0], items[1], items[10], items[-1]] == [
        "item_id:token\titem_language:token\tbrand:token",
        'B000000000\tde\tMüller" AG',
        "B000000009\tja\t",
        "B000000012\ten\tMüller",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    rest = {"size": "10 cm", "material": "Holz", "description": "Beschreibung; lang"}
    german = {"title": "Ding 7", "brand": "Müller", "color": "rot"} | rest
    assert store.display("B000000007") == ItemText("B000000007", "de", german, "display")
    assert [text.language for text in store.parallel("B000000007")] == ["ja", "en"]
    english = store.text("B000000007", "en")
    assert english is not None and english.fields["title"] == "Thing 7, 3.5\nlarge"


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_test_sessions_are_histories(
    write: Callable[[Path], None], folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write(folder)
    report = convert(AmazonM2(input=folder, test_sessions=True))
    assert (report.users, report.interactions) == (14, 105)
    assert lines(tmp_path, "inter")[-3:] == ["DE:4\tB000000001\t1", "DE:4\tB000000002\t2", "UK:4\tB000000012\t1"]
    assert lines(tmp_path, "user")[-1] == "UK:4\ten\tUK\tsessions_test_task1"
    assert any("history" in note for note in report.notes)


def test_bad_products_and_sessions_are_listed(
    folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write_csv(folder)
    with open(folder / "products_train.csv", "a") as file:
        file.write("B000000001,DE,Twice,1,,,,,,,\nB000000001,UK,,,,,,,,,\nB77,XX,Elsewhere,1,,,,,,,\nB78,DE,short\n")
    sessions = [
        "['B000000001' 'B000000002'],B000000003,DE",
        "['B000000001' 'nowhere'],B000000003,DE",
        "['B000000001' ... 'B000000002'],B000000003,DE",
        "['B000000001' 'B0000,B000000003,DE",
        "B000000001,B000000003,DE",
        "['B000000001'],B000000003,XX",
        "['B000000001'],,DE",
        "[],B000000003,DE",
        "\"['B000000001'\n 'B000000002']\",B000000003,FR",
    ]
    (folder / "sessions_train.csv.gz").unlink()
    (folder / "sessions_train.csv").write_text("\n".join(["prev_items,next_item,locale", *sessions]))
    report = convert(AmazonM2(input=folder), max_bad=0.9)
    assert (report.interactions, report.rows_read) == (3 + 2 + 1 + 3, len(PRODUCTS) + 4 + len(sessions))
    assert [line.split("\t")[0] for line in lines(tmp_path, "user")[1:]] == ["DE:0", "DE:1", "DE:2", "FR:0"]
    found = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    start = 2 + len(PRODUCTS) + 3  # three titles have a line break
    assert [(Path(row["file"]).name.split("_")[0], row["line"], row["reason"]) for row in sorted(
        found, key=lambda row: (row["file"], row["line"])
    )] == [
        ("products", start, "a second text of the item in the same language"),
        ("products", start + 1, "an empty text"),
        ("products", start + 2, "an unknown locale"),
        ("products", start + 3, "11 cells expected"),
        ("sessions", 3, "an unknown item"),
        ("sessions", 4, "no whole list of items in column 'prev_items'"),
        ("sessions", 5, "no whole list of items in column 'prev_items'"),
        ("sessions", 6, "no whole list of items in column 'prev_items'"),
        ("sessions", 7, "an unknown locale"),
        ("sessions", 8, "nothing in column 'next_item'"),
    ]  # fmt: skip
    assert report.omitted == {"an empty text": 1}
    with pytest.raises(DataError, match="9 of 30 rows are bad"):
        convert(AmazonM2(input=folder))


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_products_without_a_brand_are_read(
    write: Callable[[Path], None], folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write(folder)
    few = products().select("id", "locale", "title", "desc")
    if write is write_csv:
        few.write_csv(folder / "products_train.csv")
    else:
        few.write_parquet(folder / "products_train.parquet")
    assert (convert(AmazonM2(input=folder)).items, lines(tmp_path, "item")[1]) == (13, "B000000000\tde\t")
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": "Ding 7", "description": "Beschreibung; lang"}
    assert store.display("B000000007") == ItemText("B000000007", "de", fields, "display")
    few.drop("title").write_csv(folder / "products_train.csv")
    with pytest.raises(DataError, match="unknown column 'title'"):
        convert(AmazonM2(input=folder))


def test_bad_sessions_of_parquet_are_listed(
    folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write_parquet(folder)
    rows = [(["B000000001", None], "B000000002", "DE"), (None, "B000000002", "DE"), (["B000000001"], None, "DE"),
            (["B000000001"], "B000000002", None), ([], "B000000002", "DE")]  # fmt: skip
    table = pl.DataFrame(rows, schema=["prev_items", "next_item", "locale"], orient="row")
    table.write_parquet(folder / "sessions_train.parquet")
    report = convert(AmazonM2(input=folder), max_bad=0.5)
    assert report.interactions == 1
    assert [json.loads(line)["line"] for line in lines(tmp_path, "rejects.jsonl")] == [1, 2, 3, 4]
    table.drop("locale").write_parquet(folder / "sessions_train.parquet")
    with pytest.raises(DataError, match="unknown column 'locale'"):
        convert(AmazonM2(input=folder))
    (folder / "sessions_train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        convert(AmazonM2(input=folder))


def test_missing_files_and_options_are_named(folder: Path, convert: Callable[..., ConvertReport]) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        AmazonM2()
    with pytest.raises(DataError, match=r"neither products_train\.csv nor products_train\.parquet"):
        convert(AmazonM2(input=folder))
    write_csv(folder)
    (folder / "sessions_test_task1.csv").unlink()
    with pytest.raises(DataError, match=r"--test-sessions needs"):
        convert(AmazonM2(input=folder, test_sessions=True))


def test_the_dataset_loads_in_recbole(folder: Path, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    write_csv(folder)
    convert(AmazonM2(input=folder))
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "item_language", "brand"],
               "user": ["user_id", "user_language"]}  # fmt: skip
    _, dataset = load_dataset(tmp_path, columns)
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (13, 14, 102)
    assert set(dataset.user_feat.columns) == set(columns["user"])
